"""Known managers are found by their name, in our network namespace alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dzagent.suspects import MANAGERS, running_managers


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    process(tmp_path, "self", "dzagentd")
    (tmp_path / "cpuinfo").touch()
    return tmp_path


def process(proc: Path, pid: str, comm: str, namespace: str | None = "net:[1]") -> None:
    (proc / pid / "ns").mkdir(parents=True)
    (proc / pid / "comm").write_text(f"{comm}\n")
    if namespace is not None:
        (proc / pid / "ns" / "net").symlink_to(namespace)


def test_managers_are_named_once_each(proc: Path) -> None:
    process(proc, "10", "systemd-network")
    process(proc, "11", "zebra")
    process(proc, "12", "zebra")
    process(proc, "13", "python3")
    found = running_managers(proc)
    assert found == (MANAGERS["systemd-network"], MANAGERS["zebra"])
    assert "ManageForeignRoutes=no" in found[0]


def test_a_manager_of_another_namespace_is_no_suspect_and_one_that_cannot_be_told_is(proc: Path) -> None:
    process(proc, "10", "zebra", "net:[2]")
    process(proc, "11", "NetworkManager", None)
    assert running_managers(proc) == (MANAGERS["NetworkManager"],)


def test_one_bird_is_our_own_engine_and_two_are_not(proc: Path) -> None:
    process(proc, "10", "bird")
    assert running_managers(proc) == ()
    process(proc, "11", "bird")
    assert running_managers(proc) == (MANAGERS["bird"],)


def test_a_process_that_ends_meanwhile_or_a_missing_proc_is_nothing(proc: Path) -> None:
    (proc / "10").mkdir()
    assert running_managers(proc) == ()
    assert running_managers(proc / "none") == ()


def test_a_name_has_at_most_the_length_that_the_kernel_keeps() -> None:
    assert all(len(name) <= 15 for name in MANAGERS)
