"""Children: what they say comes at once and bounded, and none outlives the agent."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dzagent.errors import KernelError
from dzagent.kernel.children import ShChild, start
from tests.api_fakes import eventually

ORPHAN = """
import sys, time
from dzagent.kernel.children import ShChild
child = ShChild("sleep", ["300"], sys.argv[1].split(":"))
print(child.pid, flush=True)
time.sleep(300)
"""


def read_all(child: ShChild) -> bytes:
    said = b""
    while (piece := child.read(30)) is not None:
        said += piece
    return said


def test_what_it_says_on_both_streams_comes_until_the_end() -> None:
    child = ShChild("sh", ["-c", "echo out; echo err >&2; exit 3"])
    assert set(read_all(child).split()) == {b"out", b"err"}
    assert child.end() in {3, -signal.SIGKILL}


def test_nothing_is_not_the_end() -> None:
    child = start("sleep", ["300"])
    assert child.read(0.01) == b""
    threading.Timer(0.05, child.interrupt).start()
    assert child.read(None) == b""
    assert child.end() == -signal.SIGKILL


def test_whatever_it_started_ends_with_it() -> None:
    child = ShChild("sh", ["-c", "sleep 300 & echo $!; wait"])
    pid = int(child.read(30) or b"0")
    child.end()
    eventually("the grandchild is gone", lambda: not _runs(pid))


def test_arguments_and_environment_are_as_for_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert read_all(ShChild("printf", ["%s", "$(id) ; `id` #"])) == b"$(id) ; `id` #"
    assert b"SECRET" not in read_all(ShChild("env", []))


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(KernelError, match="install the package iproute2"):
        ShChild("ip", [], ["/nonexistent"])


def test_no_descriptor_is_left_behind() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        start("true", []).end()
        with pytest.raises(KernelError):
            ShChild("ip", [], ["/nonexistent"])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_killed_agent_leaves_no_child() -> None:
    if not Path("/usr/bin/setpriv").exists():
        pytest.skip("NOT TESTED: setpriv (util-linux) is not installed")
    agent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, "/usr/bin:/bin"], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert agent.stdout is not None
    pid = int(agent.stdout.readline())
    # before setpriv has become the program the kernel does not know yet that they are tied
    eventually(
        "it runs", lambda: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"sleep")
    )
    agent.kill()
    agent.wait()
    agent.stdout.close()
    eventually("the child is gone", lambda: not _runs(pid))


def test_without_setpriv_it_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "echo").symlink_to("/bin/echo")
    child = ShChild("echo", ["hello"], [str(tmp_path)])
    assert read_all(child) == b"hello\n"
    child.end()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
