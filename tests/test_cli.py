"""The frame of the command line: help, options, errors as one line, quiet ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dzagent.cli.client import ApiRefused, Client, NoApi, Unreadable
from dzagent.cli.commands import LazyCommand, LazyGroup, Options, failure
from dzagent.cli.main import COMMANDS, main
from dzagent.cli.output import Paper, seconds, visible
from dzagent.errors import ConfigError, DecodeError, InputError, LedgerError, StateError
from tests.api_fakes import World, ask, config_file, eventually, listening, run, threaded
from tests.test_api_server import LIMITS, App

HEAVY = (
    "flask",
    "jinja2",
    "gunicorn",
    "solders",
    "solana",
    "sh",
    "hypothesis",
    "dzagent.kernel",
    "dzagent.reconcile",
)


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run this Python."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


# ---- help and start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["status", "--help"], ["enable", "-h"], ["--socket", "/nowhere", "status"]],
)
def test_start_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys\nfrom dzagent.cli.main import main\ntry:\n    main(sys.argv[1:])\n"
        f"finally:\n    print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = python("-c", program, *words)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_verb_in_its_order_without_importing_one() -> None:
    done = run("--help")
    assert done.code == 0
    names = [line.split()[0] for line in done.out[done.out.index("Commands:") :].splitlines()[1:]]
    assert names == [command.name for command in COMMANDS]
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("name", [c.name for c in COMMANDS])
def test_every_verb_is_there_and_says_what_it_does(name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0, done.err
    assert "Usage: dzagent" in done.out


def test_a_verb_that_is_not_installed_is_one_line() -> None:
    group = LazyGroup("dzagent", lazy=[LazyCommand("gone", "dzagent.cli.no_such_module:gone", "Gone.")])
    with pytest.raises(
        click.ClickException, match=r"`dzagent gone` is not installed: dzagent.cli.no_such_module"
    ):
        group.main(["gone"], "dzagent", standalone_mode=False)


# ---- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (ConfigError("x", file="f", line=3), 2),
        (DecodeError("x"), 2),
        (StateError("x"), 1),
        (LedgerError("x"), 1),
        (NoApi("x"), 1),
        (ApiRefused("x"), 1),
    ],
)
def test_exit_status_of_errors(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def fails() -> None:
        raise error

    group = LazyGroup("dzagent", commands={"fails": fails})
    with pytest.raises(click.ClickException) as caught:
        group.main(["fails"], "dzagent", standalone_mode=False)
    assert caught.value.exit_code == code
    with pytest.raises(SystemExit) as ended:
        group.main(["fails"], "dzagent")
    assert ended.value.code == code
    assert capsys.readouterr().err == f"dzagent: {error}\n"


def test_an_error_is_one_line_that_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failure(StateError("two\nlines \x1b[31m and a \u202e turn")).show()
    assert capsys.readouterr().err == "dzagent: two lines ?[31m and a ? turn\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network: moon\n", "config.yaml:1: network: expected"),
        ("a: [", "config.yaml:1"),
        ("nonsense: 1\n", "nonsense"),
    ],
)
def test_a_broken_configuration_is_one_line_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    for words in (["status"], ["api"], ["enable", "--wait"], ["plan", "--json"]):
        done = run(*words, config=file)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith("dzagent: ")
        assert said in done.err


def test_a_missing_configuration_is_an_error_only_if_it_was_named(tmp_path: Path) -> None:
    done = run("status", config=tmp_path / "none.yaml")
    assert done.code == 2
    assert "none.yaml" in done.err
    assert run("--socket", str(tmp_path / "none.sock"), "status").code == 1


def test_unknown_words_are_usage_errors() -> None:
    for words in (["nonsense"], ["status", "--nonsense"], ["apply"], ["enable", "--client-ip", "x"]):
        assert run(*words).code == 2


def test_a_configuration_that_may_not_be_read_needs_no_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People in the group may use the API and not read the tokens in the file."""
    from dzagent import config

    secret = tmp_path / "config.yaml"
    secret.write_text("network: localnet\n")
    monkeypatch.setattr(config, "DEFAULT_CONFIG", secret)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert Options().api_socket() == Path("/run/dzagent/dzagent.sock")
    assert Options(config_file=config_file(tmp_path)).api_socket() == tmp_path / "run" / "dzagent.sock"
    assert Options(socket=Path("/x")).api_socket() == Path("/x")


# ---- quiet ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problems", [0, 5000], ids=["buffered", "longer than a pipe"])
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, problems: int) -> None:
    world = World.at(tmp_path)
    world.publish(problems=[{"code": "X", "message": f"problem {n} " * 10} for n in range(problems)])
    with world.serving() as path, world.agent():
        read, write = os.pipe()
        os.close(read)
        process = subprocess.Popen(
            [sys.executable, "-m", "dzagent.cli.main", "--socket", str(path), "status"],
            stdout=write,
            stderr=subprocess.PIPE,
        )
        os.close(write)
        _, err = process.communicate(timeout=60)
        assert err == b""


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A shell that runs the tests in the background lets them, and all their children, ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.publish()
    with world.serving() as path:
        process = subprocess.Popen(
            [sys.executable, "-m", "dzagent.cli.main", "--socket", str(path), "status", "--watch", "0.2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert err.strip() == b""
        assert process.returncode == 130


def test_a_terminal_that_lacks_letters_is_no_error(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.publish(services=[], problems=[{"code": "X", "message": "München 東京"}])
    with world.serving() as path:
        environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
        words = ("-m", "dzagent.cli.main", "--socket", str(path), "status")
        done = python(*words, env=environment, encoding="latin-1")
        assert "München ??" in done.stdout
        assert done.stderr == ""


# ---- the client ----------------------------------------------------------------------------------------------


def test_what_is_wrong_with_the_socket_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with pytest.raises(
        NoApi, match=r"sock does not exist; start it with: systemctl start dzagent-api.socket"
    ):
        Client(path).status()
    path.touch()
    with pytest.raises(NoApi, match="nobody listens on"):
        Client(path).status()
    with pytest.raises(NoApi, match="too long"):
        Client(tmp_path / ("x" * 200)).status()
    with pytest.raises(NoApi, match=r"you may not use .*; join its group"):
        raise NoApi(str(Client(path)._unreachable(PermissionError(13, "Permission denied"))))


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting.setblocking(False)
                waiting.connect(str(path))
        with pytest.raises(NoApi, match="Resource temporarily unavailable"):
            Client(path, pause=lambda _: None).status()

        def serve_at_last(_: float) -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
            stack.enter_context(World.at(tmp_path / "world").serving_on(listener))

        document = Client(path, pause=serve_at_last).status()
    assert document["network"] == "localnet"


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    app = App()
    app.gate.clear()
    with listening(tmp_path / "sock") as listener, threaded(listener, app, LIMITS):
        with pytest.raises(NoApi, match="took the request and said nothing"):
            Client(tmp_path / "sock", timeout=0.05).ask("POST", "/slow")
        app.gate.set()


def test_another_server_is_not_taken_for_the_api(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    refused = pytest.raises(Unreadable, match="it is not dzagent's API")
    with listening(path) as listener, threaded(listener, App(), LIMITS), refused:
        Client(path).status()


def test_an_old_api_that_lacks_a_path_is_said(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    with world.serving() as path, pytest.raises(Unreadable, match="GET /nothing with status 404"):
        Client(path).ask("GET", "/nothing")


# ---- text ----------------------------------------------------------------------------------------------------


def test_text_is_made_visible() -> None:
    assert visible("a\x1b[31m\nb\u202ec\x9b") == "a\\x1b[31m b\\u202ec\\x9b"
    assert visible("München 東京") == "München 東京"


def test_wrapping_keeps_the_width() -> None:
    sheet = Paper(width=20)
    assert sheet.wrap("one two three four five six", "- ") == ["- one two three four", "  five six"]
    assert all(len(line) <= 20 for line in sheet.wrap("x" * 100, "- "))
    assert sheet.wrap("", "name") == ["name"]


def test_durations() -> None:
    assert [seconds(n) for n in (0, 3.9, 119, 120, 7200, 86400, 864000)] == [
        "0 s",
        "3 s",
        "119 s",
        "2 min",
        "2 h",
        "24 h",
        "10 days",
    ]


def test_the_main_command_can_be_called_as_a_function(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    with world.serving() as path:
        assert main.main(["--socket", str(path), "disable"], "dzagent", standalone_mode=False) is None
        assert main.main(["--socket", str(path), "status"], "dzagent", standalone_mode=False) == 1
        with pytest.raises(click.ClickException) as caught:
            main.main(["--socket", str(path), "apply", "../x"], "dzagent", standalone_mode=False)
        assert caught.value.exit_code == 2


def test_the_real_program_serves_and_asks(tmp_path: Path) -> None:
    from tests.api_fakes import answers, api_process

    file = config_file(tmp_path)
    process = api_process(file, stderr=subprocess.DEVNULL)
    try:
        eventually("it answers", lambda: answers(tmp_path / "run" / "dzagent.sock"))
        done = python("-m", "dzagent.cli.main", "--config", str(file), "disable")
        assert done.returncode == 0
        assert "warning: dzagentd does not run" in done.stderr
        assert ask(tmp_path / "run" / "dzagent.sock", "GET", "/v2/status")[0] == 200
    finally:
        process.terminate()
        process.wait(30)
