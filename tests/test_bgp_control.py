"""The client of BIRD's control socket against good, slow, endless and senseless servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dzagent.bgp.bird import Bird, BirdFiles
from dzagent.bgp.control import ControlSocket
from dzagent.errors import DzagentError, EngineError, EngineGone, EngineRefused, EngineSilent
from dzagent.kernel.run import Completed
from dzagent.render import Templates
from dzagent.share import find
from tests.bgp_fakes import PEER, FakeSocket

TEXTS = Path(__file__).parent / "fixtures" / "bird"
LOOK = 'show protocols all "dz_*"'
Serve = Callable[..., tuple[FakeSocket, ControlSocket]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made: list[FakeSocket] = []
    clients: list[ControlSocket] = []

    def start(
        answers: Mapping[str, bytes | None], banner: bytes = b"0001 BIRD 2.0.12 ready.\n", limit: int = 10_000
    ) -> tuple[FakeSocket, ControlSocket]:
        made.append(FakeSocket(tmp_path / "ctl", answers, banner))
        clients.append(ControlSocket(tmp_path / "ctl", timeout=0.5, limit=limit))
        return made[-1], clients[-1]

    yield start
    for client in clients:
        client.close()
    for server in made:
        server.close()


def test_an_answer_of_many_lines_is_whole(serve: Serve) -> None:
    answer = b"1007-Table x:\n 1.2.3.4/32 y\n0000 \n"
    _, client = serve({"show route": answer})
    assert client.command("show route") == answer.decode()
    assert client.version == "2.0.12"


def test_a_code_inside_a_line_does_not_end_an_answer(serve: Serve) -> None:
    answer = b"1006-x\n 0000 is only a text\n0013 done\n"
    _, client = serve({"a": answer})
    assert client.command("a") == answer.decode()


def test_a_refusal_is_an_error_with_its_words(serve: Serve) -> None:
    _, client = serve({"configure": b"0002-Reading\n8002 /x.conf:3:1 syntax error\n"})
    with pytest.raises(EngineRefused, match="3:1 syntax error"):
        client.command("configure")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(EngineGone, match="is dzagent-bird running"):
        ControlSocket(tmp_path / "none").command("x")


def test_a_lost_connection_is_made_anew(serve: Serve) -> None:
    _, client = serve({"die": None, "a": b"0000 \n"})
    client.command("a")
    with pytest.raises(EngineGone):
        client.command("die")
    client.command("a")
    assert client.connections == 2


@pytest.mark.parametrize("answer", [b"", b"1006-never ends\n", b"no code at all\n", b"0000"])
def test_an_answer_without_an_end_is_silence(serve: Serve, answer: bytes) -> None:
    _, client = serve({"a": answer or b"-"})
    with pytest.raises(EngineSilent, match="did not answer within"):
        client.command("a")


def test_an_endless_answer_is_cut(serve: Serve) -> None:
    _, client = serve({"a": b" x\n" * 10_000}, limit=5_000)
    with pytest.raises(EngineError, match="more than 5000 bytes"):
        client.command("a")


@pytest.mark.parametrize("banner", [b"220 smtp ready\n0000 \n", b"0001 FRR ready.\n", b"\xff\x00\n0000 x\n"])
def test_another_program_is_not_taken_for_bird(serve: Serve, banner: bytes) -> None:
    _, client = serve({}, banner)
    with pytest.raises(EngineError, match="not BIRD's control socket"):
        client.command("a")


# ---- Bird ------------------------------------------------------------------------------------------------


class Checker:
    """Stands in for `bird -p`."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.checked: list[str] = []

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        del stdin
        assert (program, args[0]) == ("bird", "-p")
        text = Path(args[-1]).read_text()
        self.checked.append(text.removesuffix("\nprotocol device dz_device { }\n"))
        if "protocol " not in text:  # as BIRD does
            return Completed(1, b"", b"No protocol is specified in the config file")
        return Completed(self.code, b"", b"x.candidate:7:1 syntax error" if self.code else b"")


GOOD = {
    LOOK: (TEXTS / "established.txt").read_bytes(),
    "show status": (TEXTS / "status.txt").read_bytes(),
    "configure": b"0002-Reading configuration from x\n0003 Reconfigured\n",
    "show route table dzt_unicast protocol dz_unicast": (TEXTS / "routes.txt").read_bytes(),
}


def bird(tmp_path: Path, client: ControlSocket, checker: Checker) -> Bird:
    files = BirdFiles(tmp_path / "ctl", tmp_path / "bgp" / "services.conf")
    return Bird(
        files, Templates((find("templates"),)), runner=checker, control=client, monotonic=lambda: 100.0
    )


def test_a_look_reads_life_and_sessions(serve: Serve, tmp_path: Path) -> None:
    _, client = serve(GOOD)
    look = bird(tmp_path, client, Checker()).look()
    assert look.peers["unicast"].established
    assert look.life.startswith("2026-11-25 01:26")
    assert look.age > 0


@pytest.mark.parametrize(
    ("version", "good"), [("1.6.8", False), ("2.0.6", False), ("2.0.7", True), ("3.1.8", True)]
)
def test_an_old_bird_is_refused(serve: Serve, tmp_path: Path, version: str, good: bool) -> None:
    _, client = serve(GOOD, f"0001 BIRD {version} ready.\n".encode())
    engine = bird(tmp_path, client, Checker())
    if good:
        assert engine.look().version == version
    else:
        with pytest.raises(EngineError, match="too old"):
            engine.look()


def test_a_foreign_bird_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    _, client = serve({**GOOD, LOOK: b"8003 No protocols match\n"})
    with pytest.raises(EngineError, match="not dzagent's"):
        bird(tmp_path, client, Checker()).look()


def test_sessions_are_checked_written_and_told_once(serve: Serve, tmp_path: Path) -> None:
    server, client = serve(GOOD)
    checker = Checker()
    engine = bird(tmp_path, client, checker)
    assert engine.configure({"unicast": PEER}, 20)
    assert not engine.configure({"unicast": PEER}, 20)
    text = (tmp_path / "bgp" / "services.conf").read_text()
    assert checker.checked == [text]
    assert server.asked == ["configure"]
    assert (tmp_path / "bgp" / "services.conf").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "bgp" / "services.candidate").exists()


def test_no_session_at_all_is_a_good_file(serve: Serve, tmp_path: Path) -> None:
    _, client = serve(GOOD)
    engine = bird(tmp_path, client, Checker())
    assert engine.configure({"unicast": PEER}, 20)
    assert engine.configure({}, 20)
    assert "protocol" not in (tmp_path / "bgp" / "services.conf").read_text()


def test_what_bird_refuses_leaves_the_last_good_file(serve: Serve, tmp_path: Path) -> None:
    _, client = serve(GOOD)
    bird(tmp_path, client, Checker()).configure({"unicast": PEER}, 20)
    before = (tmp_path / "bgp" / "services.conf").read_text()
    with pytest.raises(EngineRefused, match="last good ones stay"):
        bird(tmp_path, client, Checker(code=1)).configure({}, 20)
    assert (tmp_path / "bgp" / "services.conf").read_text() == before


def test_what_the_engine_refuses_is_taken_back(serve: Serve, tmp_path: Path) -> None:
    _, client = serve({**GOOD, "configure": b"8002 no\n"})
    path = tmp_path / "bgp" / "services.conf"
    path.parent.mkdir()
    path.write_text("# good\n")
    with pytest.raises(EngineRefused):
        bird(tmp_path, client, Checker()).configure({"unicast": PEER}, 20)
    assert path.read_text() == "# good\n"


def test_the_rendered_sessions(tmp_path: Path, serve: Serve) -> None:
    from dataclasses import replace
    from ipaddress import IPv4Address

    _, client = serve(GOOD)
    checker = Checker()
    subscriber = replace(
        PEER, service="multicast", link="doublezero1", local=IPv4Address("169.254.0.7"),
        remote=IPv4Address("169.254.0.6"), advertise=None, install=False,
    )  # fmt: skip
    bird(tmp_path, client, checker).configure({"unicast": PEER, "multicast": subscriber}, 20)
    first, second = checker.checked[0].split("ipv4 table dzt_multicast;")
    for line in (
        "route 198.51.100.7/32 blackhole;",
        "local 169.254.0.5 port 11179 as 65000;",
        "neighbor 169.254.0.4 port 179 as 65342;",
        'interface "doublezero0";',
        "allow local as 1;",
        "import where net != 198.51.100.7/32;",
        "import limit 20 action block;",
        "export where source = RTS_STATIC;",
    ):
        assert first.count(line) == 1
    assert "export none;" in second
    assert "import none;" in second
    assert "route " not in second.replace("router ", "")


def test_a_missing_bird_says_which_package(tmp_path: Path, serve: Serve) -> None:
    from dzagent.kernel.run import run

    _, client = serve(GOOD)
    files = BirdFiles(tmp_path / "ctl", tmp_path / "bgp" / "services.conf")

    def missing(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        return run(program, args, stdin, search=[str(tmp_path)])

    engine = Bird(files, Templates((find("templates"),)), runner=missing, control=client)
    with pytest.raises(EngineError, match="install the package bird2"):
        engine.configure({"unicast": PEER}, 20)
    assert issubclass(EngineError, DzagentError)
