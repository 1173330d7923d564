"""`dzagent api` as a process: its socket, its signals, and clients that mean no good."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dzagent.api.app import create_app
from dzagent.api.listeners import Listener, listen, passed_by_systemd
from dzagent.api.respond import Responder
from dzagent.api.serve import OneWorkerArbiter, settings, socket_paths
from dzagent.api.worker import most_connections
from dzagent.config import COMPAT_SOCKET, Config
from dzagent.errors import StateError
from tests.api_fakes import (
    World,
    answers,
    api_process,
    ask,
    closed,
    config_file,
    connect,
    eventually,
    gunicorn_config,
    read_answer,
    request_bytes,
)

STATUS = request_bytes("GET", "/v3/status")


class Api:
    """A running `dzagent api`."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "log"
        self.path = root / "run" / "dzagent.sock"
        with self.log.open("wb") as log:
            self.process = api_process(config_file(root), stdout=log, stderr=log)
        eventually("the API answers", self.up)

    def up(self) -> bool:
        """Whether it answers; fails with its log if it has ended."""
        assert self.process.poll() is None, self.log.read_text()
        return answers(self.path)

    def stop(self) -> int:
        """End it; returns its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def worker(self) -> int:
        """Return the pid of the process that serves."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Api]]:
    """Start servers in one directory; none outlives the test."""
    started: list[Api] = []

    def another() -> Api:
        started.append(Api(tmp_path))
        return started[-1]

    yield another
    for running in started:
        running.process.terminate()
        running.process.wait(30)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    running = Api(tmp_path_factory.mktemp("api"))
    yield running
    running.stop()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process hold enough clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4000 if hard == resource.RLIM_INFINITY else min(hard, 4000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- clients that mean no good -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /v3/status HTTP/1.1\r\nHost: x\r\n",
        b"POST /enable HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        STATUS + b"GET",
    ],
    ids=["silent", "half a head", "half a body", "answered once"],
)
@pytest.mark.usefixtures("many_files")
def test_half_open_connections_hold_up_nobody(api: Api, start: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(connect(api.path)).sendall(start)
        for _ in range(20):
            assert ask(api.path, "GET", "/v3/status")[0] == 200
        assert ask(api.path, "POST", "/disable")[0] == 200


@pytest.mark.usefixtures("many_files")
def test_more_connections_than_it_takes(api: Api) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(api.path))
        for _ in range(1000 + 200):
            stack.enter_context(connect(api.path)).sendall(b"GET /")
        assert ask(api.path, "GET", "/v3/status")[0] == 200
        assert closed(first)


def test_clients_that_never_read_hold_up_nobody(api: Api) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(connect(api.path))
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(STATUS * 50)
        for _ in range(20):
            assert ask(api.path, "GET", "/v3/status")[0] == 200


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /status HTTP/9.9\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\n\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"POST /disable HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /disable HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 40000, 431),
        (b"POST /disable HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 411),
        (b"POST /disable HTTP/1.1\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000, 413),
        (b"POST /disable HTTP/1.1\r\nExpect: tea\r\n\r\n", 417),
        (b"POST /disable HTTP/1.1\r\nTransfer-Encoding: zip\r\n\r\n", 501),
    ],
)
def test_bad_requests_are_refused_in_json(api: Api, raw: bytes, code: int) -> None:
    with connect(api.path) as sock:
        sock.sendall(raw)
        found, headers, body = read_answer(sock)
        assert found == code, body
        assert headers["content-type"] == "application/json"
        assert set(json.loads(body)) == {"description", "status"}
        assert closed(sock)
    assert answers(api.path)


def test_http_1_0_and_any_host_are_served(api: Api) -> None:
    for raw in (
        b"GET /status HTTP/1.0\r\n\r\n",
        b"GET /status HTTP/1.0\r\nSCRIPT_NAME: /x\r\nX-Forwarded-Proto: https\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: a.b:1\r\nConnection: close\r\n\r\n",
    ):
        with connect(api.path) as sock:
            sock.sendall(raw)
            assert read_answer(sock)[2] == b'[{"doublezero_status": {"session_status": "disconnected"}}]'
            assert closed(sock)


@pytest.mark.parametrize("closing", [True, False])
def test_a_server_that_stops_says_so(tmp_path: Path, closing: bool) -> None:
    config = World.at(tmp_path).config
    answer = Responder(gunicorn_config(config), create_app(config), lambda: closing)(STATUS)
    assert answer.close is closing
    assert (b"Connection: close" in answer.data) is closing


# ---- the socket ----------------------------------------------------------------------------------------------


def test_the_socket_is_for_the_group_only_and_goes_with_the_server(start: Callable[[], Api]) -> None:
    api = start()
    assert stat.S_IMODE(api.path.stat().st_mode) == 0o660
    assert api.stop() == 0
    assert not api.path.exists()
    assert "Traceback" not in api.log.read_text()


def test_a_live_server_is_left_alone(api: Api) -> None:
    before = api.path.stat().st_ino
    done = subprocess.run(
        [sys.executable, "-m", "dzagent.cli.main", "--config", str(api.root / "config.yaml"), "api"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"dzagent: another server answers on {api.path}")
    assert done.stderr.count("\n") == 1
    assert api.path.stat().st_ino == before
    assert answers(api.path)


def test_a_killed_server_leaves_a_socket_that_the_next_one_replaces(start: Callable[[], Api]) -> None:
    first = start()
    worker = first.worker()
    first.process.kill()  # first: it would replace its worker
    first.process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    eventually("nobody listens", lambda: not answers(first.path))
    assert first.path.exists()
    second = start()
    assert second.stop() == 0


def test_a_killed_worker_is_replaced(api: Api) -> None:
    before = api.worker()
    os.kill(before, signal.SIGKILL)
    eventually("another worker serves", lambda: api.worker() not in {0, before} and answers(api.path))


def test_a_worker_that_ends_leaves_the_socket(api: Api) -> None:
    before = api.worker()
    os.kill(before, signal.SIGTERM)
    eventually("another worker serves", lambda: api.worker() not in {0, before} and answers(api.path))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2])
def test_no_signal_changes_the_number_of_workers(api: Api, number: signal.Signals) -> None:
    before = api.worker()
    api.process.send_signal(number)
    eventually("it says so", lambda: f"{number.name} is ignored" in api.log.read_text())
    os.kill(before, signal.SIGHUP)
    assert answers(api.path)
    assert api.worker() == before
    assert (
        len(list(Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text().split())) == 1
    )


def test_sockets_of_systemd_are_served_and_left(tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execv(sys.executable, [sys.executable, '-m', 'dzagent.cli.main', '--config', sys.argv[2], 'api'])"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as given, (tmp_path / "log").open("wb") as log:
        given.bind(str(path))
        given.listen(16)
        with connect(path) as early:  # before anybody serves: it waits in the backlog
            early.sendall(request_bytes("GET", "/status"))
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    program,
                    str(given.fileno()),
                    str(config_file(tmp_path, "compat_socket: true\n")),
                ],
                pass_fds=[given.fileno()],
                stdout=log,
                stderr=log,
            )
            assert read_answer(early)[0] == 200, (tmp_path / "log").read_text()
        process.terminate()
        assert process.wait(30) == 0
        assert path.exists(), "it is systemd's"
        assert "add ListenStream=/run/doublezerod/doublezerod.sock" in (tmp_path / "log").read_text()
        assert not (tmp_path / "run" / "dzagent.sock").exists()


# ---- listeners, without a process ----------------------------------------------------------------------------


def close(made: list[Listener]) -> None:
    for listener in made:
        listener.sock.close()
        listener.remove()


def test_missing_directories_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "sock"
    made = listen([path])
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    close(made)
    assert not path.exists()


def test_of_two_servers_one_gets_the_socket(tmp_path: Path) -> None:
    made = listen([tmp_path / "sock"])
    with pytest.raises(StateError, match="another server answers"):
        listen([tmp_path / "sock"])
    close(made)
    close(listen([tmp_path / "sock"]))


def test_a_server_that_has_only_begun_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "sock.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="another server answers"):
            listen([tmp_path / "sock"])
    assert not (tmp_path / "sock").exists()


def test_a_stranger_s_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(str(path))
        stranger.listen(1)
        with pytest.raises(StateError, match="another server answers"):
            listen([tmp_path / "first", path])
    assert path.exists()
    assert not (tmp_path / "first").exists(), "all or nothing"
    close(listen([tmp_path / "first", path]))


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path / "folder", tmp_path / "link"):
        if path.name == "file":
            path.write_text("mine")
        elif path.name == "folder":
            path.mkdir()
        else:
            path.symlink_to("nowhere")
        with pytest.raises(StateError, match="not a socket; remove it"):
            listen([path])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_socket_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"sock cannot be made \(File exists\)$"):
        listen([tmp_path / "file" / "sock"])
    with pytest.raises(StateError, match="cannot be made"):
        listen([tmp_path / ("x" * 150)])


def test_a_socket_that_somebody_replaced_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    made = listen([path])
    path.unlink()
    path.write_text("mine")
    close(made)
    assert path.read_text() == "mine"


def test_the_socket_goes_to_the_group_where_it_exists(tmp_path: Path) -> None:
    mine = os.getgroups()[-1] if os.getgroups() else os.getgid()
    made = listen([tmp_path / "sock"], grp.getgrgid(mine).gr_name)
    assert (tmp_path / "sock").stat().st_gid == mine
    close(made)
    close(listen([tmp_path / "sock"], "no such group"))


def test_activation_is_for_this_process_only() -> None:
    assert passed_by_systemd({}, 7) == []
    environ = {"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "y"}
    assert passed_by_systemd(environ, 7) == []
    assert environ == {"OTHER": "y"}


@pytest.mark.parametrize("count", ["x", "0", "-1", "99", "1.0", "²"])
def test_a_senseless_activation_is_refused(count: str) -> None:
    with pytest.raises(StateError, match="LISTEN_FDS is"):
        passed_by_systemd({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


def test_only_listening_unix_sockets_are_served(tmp_path: Path) -> None:
    def passed(number: int) -> list[Listener]:
        return passed_by_systemd({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7, number)

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(1)
        with pytest.raises(StateError, match="not a listening unix socket"):
            passed(tcp.detach())
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
        pytest.raises(StateError, match="not a listening"),
    ):
        passed(unix.detach())
    with (tmp_path / "file").open("w") as file, pytest.raises(StateError, match="is not a socket"):
        passed(file.fileno())


# ---- settings ------------------------------------------------------------------------------------------------


def test_the_compatible_socket_is_served_if_asked_for() -> None:
    assert socket_paths(Config()) == [Config().paths.socket]
    assert socket_paths(Config(compat_socket=True)) == [Config().paths.socket, COMPAT_SOCKET]


def test_gunicorn_opens_nothing_else_and_reloads_never() -> None:
    found = settings(Config())
    assert (found["workers"], found["preload_app"], found["control_socket_disable"]) == (1, False, True)
    for name in ("hup", "ttin", "ttou", "usr2"):
        assert f"handle_{name}" in vars(OneWorkerArbiter)


def test_connections_leave_room_for_files() -> None:
    assert [most_connections(n) for n in (1024, 20, 100_000, resource.RLIM_INFINITY)] == [960, 8, 1000, 1000]
