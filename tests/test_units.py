"""doublezerod's unit: masked, or held by a drop-in where its file is in /etc; killed whole; given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dzagent.errors import KernelError, MigrationError
from dzagent.kernel.run import Completed
from dzagent.migration.units import DROP_IN, MASK, Systemd, Unit

NAME = "doublezerod.service"
SHOWN = b"""LoadState=loaded
ActiveState=active
UnitFileState=enabled
FragmentPath=/lib/systemd/system/doublezerod.service
ExecStart={ path=/usr/bin/doublezerod ; argv[]=/usr/bin/doublezerod -env mainnet-beta ; ignore_errors=no ; pid=7 }
"""


@dataclass
class Systemctl:
    """Answers as told, by the first word."""

    answers: dict[str, Completed] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        assert program == "systemctl"
        assert not stdin
        self.asked.append(" ".join(args))
        return self.answers.get(args[0], Completed(0, b"", b""))


@pytest.fixture
def systemctl() -> Systemctl:
    return Systemctl({"show": Completed(0, SHOWN, b"")})


@pytest.fixture
def systemd(tmp_path: Path, systemctl: Systemctl) -> Systemd:
    (tmp_path / "run").mkdir()
    return Systemd(systemctl, tmp_path / "run", tmp_path / "etc")


def refuse(message: str) -> Completed:
    return Completed(1, b"", message.encode())


def test_a_unit_is_shown_with_its_command(systemd: Systemd) -> None:
    assert systemd.show(NAME) == Unit(
        NAME,
        "loaded",
        active=True,
        enabled="enabled",
        command=("/usr/bin/doublezerod", "-env", "mainnet-beta"),
    )


@pytest.mark.parametrize(
    "text", [b"LoadState=not-found\n", b"", b"nonsense", b"ExecStart={ argv[]=a 'b ; }\n"]
)
def test_a_unit_that_is_not_there(systemd: Systemd, systemctl: Systemctl, text: bytes) -> None:
    systemctl.answers["show"] = Completed(0, text, b"")
    assert systemd.show(NAME) == Unit(NAME)


def test_where_systemd_does_not_run_nobody_is_asked(tmp_path: Path, systemctl: Systemctl) -> None:
    assert Systemd(systemctl, tmp_path / "none").show(NAME) is None
    assert systemctl.asked == []


def test_a_systemd_that_does_not_answer_has_no_unit(tmp_path: Path, systemctl: Systemctl) -> None:
    systemctl.answers["show"] = refuse("Failed to connect to bus")
    assert Systemd(systemctl, tmp_path).show(NAME) is None

    def missing(*_: object, **__: object) -> Completed:
        raise KernelError("not found")

    assert Systemd(missing, tmp_path).show(NAME) is None


def test_it_is_masked(systemd: Systemd, systemctl: Systemctl) -> None:
    assert systemd.hold(NAME) == MASK
    systemd.release(NAME, MASK)
    assert systemctl.asked == [f"mask {NAME}", f"unmask {NAME}"]


def test_one_in_etc_gets_a_drop_in_and_loses_it_again(
    systemd: Systemd, systemctl: Systemctl, tmp_path: Path
) -> None:
    systemctl.answers["mask"] = refuse("Failed to mask unit: File /etc/... already exists.")
    assert systemd.hold(NAME) == DROP_IN
    (file,) = (tmp_path / "etc").rglob("*.conf")
    for line in ("Restart=no", "ExecStop=", "ExecStopPost=", "ConditionPathExists="):
        assert line in file.read_text()
    systemd.release(NAME, DROP_IN)
    assert not file.exists()
    systemd.release(NAME, DROP_IN)
    assert systemctl.asked.count("daemon-reload") == 3


def test_one_that_can_neither_be_masked_nor_held_stops_it(
    systemd: Systemd, systemctl: Systemctl, tmp_path: Path
) -> None:
    systemctl.answers["mask"] = refuse("Access denied")
    with pytest.raises(MigrationError, match="Access denied"):
        systemd.hold(NAME)
    systemctl.answers["mask"] = refuse("exists")
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(MigrationError, match="neither be masked"):
        systemd.hold(NAME)


def test_all_of_it_is_killed(systemd: Systemd, systemctl: Systemctl) -> None:
    systemd.kill(NAME)
    assert systemctl.asked == [f"kill --signal=SIGKILL {NAME}"]
    systemctl.answers["kill"] = refuse("No process to kill")
    systemd.kill(NAME)
    systemctl.answers["kill"] = refuse("Access denied")
    with pytest.raises(MigrationError, match="Access denied"):
        systemd.kill(NAME)


def test_a_failed_start_before_does_not_hinder_the_next(systemd: Systemd, systemctl: Systemctl) -> None:
    systemd.start(NAME)
    assert systemctl.asked == [f"reset-failed {NAME}", f"start {NAME}"]
    systemctl.answers["start"] = refuse("Unit is masked")
    with pytest.raises(MigrationError, match="masked"):
        systemd.start(NAME)
