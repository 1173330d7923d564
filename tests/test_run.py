"""Starting programs: bounded in time and output, without a shell, in an environment of its own."""

from __future__ import annotations

import time

import pytest

from dzagent.errors import KernelError, KernelTimeout
from dzagent.kernel.run import Completed, run


def test_exit_code_and_both_streams_come_back() -> None:
    done = run("sh", ["-c", "cat; echo oops >&2; exit 3"], "hello\n")
    assert done == Completed(3, b"hello\n", b"oops\n")
    assert done.message == "oops"


def test_arguments_are_not_read_by_a_shell() -> None:
    assert run("printf", ["%s", "$(id) ; `id` #"]).stdout == b"$(id) ; `id` #"


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("SECRET", "x")
    lines = run("env", []).stdout.decode().splitlines()
    assert "LC_ALL=C" in lines
    assert not [line for line in lines if line.startswith("SECRET")]


def test_output_is_not_a_terminal() -> None:
    assert run("sh", ["-c", "test -t 1 || echo no"]).stdout == b"no\n"


def test_a_program_that_hangs_is_killed_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(KernelTimeout, match=r"did not end within 0.2 s"):
        run("sh", ["-c", "sleep 30 & sleep 30; true"], timeout=0.2)
    assert time.monotonic() - started < 10


def test_output_is_bounded() -> None:
    with pytest.raises(KernelError, match="more than 100 bytes"):
        run("head", ["-c", "200000", "/dev/zero"], limit=100)


def test_a_program_killed_by_a_signal_is_a_result() -> None:
    assert run("sh", ["-c", "kill -9 $$"]).code == -9


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(KernelError, match="install the package iproute2"):
        run("ip", [], search=["/nonexistent"])


def test_a_large_input_does_not_block() -> None:
    text = "x" * 1_000_000
    assert run("cat", [], text).stdout == text.encode()
