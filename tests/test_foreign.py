"""The other agent of a host: whether it runs, whose turn it is, and what becomes of its last wish."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dzagent.config import Doublezerod, Paths
from dzagent.errors import StateError
from dzagent.foreign.firststart import take_over
from dzagent.foreign.oldstate import read_old_state
from dzagent.foreign.record import Phase, Record, read_record, write_record
from dzagent.foreign.sight import LOOK_SECONDS, Eyes, ForeignWatch, Sighting
from dzagent.foreign.turns import Hindrance, Turns, alone
from dzagent.state import Intent, read_intent, write_intent

ADMIN = "0000000000001000"
"""CapEff with CAP_NET_ADMIN alone."""


@dataclass
class Host:
    """A /proc and a cgroup tree of files."""

    root: Path
    now: float = 100.0
    places: Doublezerod = field(init=False)

    def __post_init__(self) -> None:
        self.proc, self.cgroups = self.root / "proc", self.root / "cgroup"
        (self.root / "run").mkdir()
        self.places = Doublezerod(self.root / "old", self.root / "run" / "doublezerod.sock")
        self.paths = Paths(self.root / "state", self.root / "run")
        self.paths.agent.mkdir()
        self.process(1, "systemd")
        (self.proc / "self").symlink_to("1")
        (self.proc / "net").mkdir()
        self.listening("")

    def process(
        self,
        pid: int,
        comm: str = "doublezerod",
        *,
        caps: str = ADMIN,
        state: str = "S",
        net: str = "1",
        users: str = "0",
    ) -> None:
        directory = self.proc / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "comm").write_text(f"{comm}\n")
        (directory / "status").write_text(f"Name:\t{comm}\nState:\t{state} (x)\nCapEff:\t{caps}\n")
        (directory / "uid_map").write_text(f"0 {users} 4294967295\n")
        (directory / "ns" / "net").symlink_to(f"net:[{net}]")

    def ends(self, pid: int) -> None:
        (self.proc / str(pid) / "comm").unlink()

    def listening(self, path: str, flags: str = "00010000") -> None:
        head = "Num       RefCount Protocol Flags    Type St Inode Path\n"
        line = f"0000000000000000: 00000002 00000000 {flags} 0001 01 4711 {path}\n"
        (self.proc / "net" / "unix").write_text(head + (line if path else ""))

    def unit(self, text: str) -> None:
        directory = self.cgroups / "system.slice" / "doublezerod.service"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.events").write_text(f"{text}\nfrozen 0\n")

    def socket_file(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(self.places.socket))

    @property
    def eyes(self) -> Eyes:
        return Eyes(self.places, proc=self.proc, cgroups=self.cgroups)

    def watch(self) -> ForeignWatch:
        return ForeignWatch(self.eyes, lambda: self.now)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# ---- sight -----------------------------------------------------------------------------------------------


def test_nothing_is_seen_where_nothing_runs(host: Host) -> None:
    host.process(7, "doublezero")
    host.process(8, "doublezerod-not")
    assert host.eyes.look() is None


def test_a_process_is_seen(host: Host) -> None:
    host.process(77)
    assert host.eyes.look() == Sighting("process 77", 77)


@pytest.mark.parametrize(
    "other",
    [
        {"caps": "0000000000000000"},
        {"caps": "0000000000000800"},
        {"state": "Z"},
        {"state": "X"},
        {"net": "2"},
        {"users": "1000"},
    ],
    ids=["no capability", "another capability", "zombie", "dead", "other network", "other users"],
)
def test_a_process_that_could_not_change_this_network_is_none(host: Host, other: dict[str, str]) -> None:
    host.process(77, **other)
    assert host.eyes.look() is None


def test_a_namespace_that_may_not_be_seen_is_ours(host: Host) -> None:
    host.process(77)
    (host.proc / "77" / "ns" / "net").unlink()
    assert host.eyes.look() is not None


@pytest.mark.parametrize("name", ["comm", "status", "uid_map"])
def test_a_process_that_ends_while_it_is_looked_at_is_none(host: Host, name: str) -> None:
    host.process(77)
    (host.proc / "77" / name).unlink()
    assert host.eyes.look() is None


def test_its_unit_is_seen_where_processes_are_hidden(host: Host) -> None:
    host.unit("populated 0")
    assert host.eyes.look() is None
    host.unit("populated 1")
    assert host.eyes.look() == Sighting("unit doublezerod.service")


def test_its_unit_is_seen_in_an_old_hierarchy(host: Host) -> None:
    directory = host.cgroups / "systemd" / "system.slice" / "doublezerod.service"
    directory.mkdir(parents=True)
    (directory / "cgroup.procs").write_text("")
    assert host.eyes.look() is None
    (directory / "cgroup.procs").write_text("77\n")
    assert host.eyes.look() is not None


def test_its_socket_is_seen(host: Host) -> None:
    path = str(host.places.socket)
    host.listening(path)
    assert host.eyes.look() is None, "a name of another mount namespace"
    host.socket_file()
    assert host.eyes.look() == Sighting(f"it listens on {path}")
    host.listening(path, flags="00000000")
    assert host.eyes.look() is None, "a client of it"


def test_the_socket_of_our_own_api_is_not_taken_for_it(host: Host) -> None:
    host.socket_file()
    host.listening(str(host.places.socket))
    assert Eyes(host.places, socket=False, proc=host.proc, cgroups=host.cgroups).look() is None


def test_garbage_in_the_list_of_sockets_is_no_listener(host: Host) -> None:
    host.socket_file()
    (host.proc / "net" / "unix").write_text(f"a b c d e f g h {host.places.socket}\n\nx\n")
    assert host.eyes.look() is None
    (host.proc / "net" / "unix").unlink()
    assert host.eyes.look() is None


def test_absence_is_remembered_for_a_while_and_presence_is_looked_at_again(host: Host) -> None:
    watch = host.watch()
    assert watch.look() is None
    host.process(77)
    host.now += LOOK_SECONDS - 0.1
    assert watch.look() is None
    host.now += 0.1
    assert watch.look() is not None
    host.ends(77)
    assert watch.look() is None


def test_one_that_is_replaced_by_another_is_still_seen(host: Host) -> None:
    host.process(77)
    watch = host.watch()
    watch.look()
    host.ends(77)
    host.process(78)
    assert watch.look() == Sighting("process 78", 78)


# ---- turns -----------------------------------------------------------------------------------------------


@pytest.fixture
def turns(host: Host) -> Turns:
    return Turns(host.paths, host.watch(), "boot 1")


def hindrance(turns: Turns) -> Hindrance | None:
    with turns.turn() as found:
        return found


def test_it_is_our_turn_where_nobody_else_is(turns: Turns) -> None:
    assert hindrance(turns) is None


def test_it_is_not_while_doublezerod_runs(host: Host, turns: Turns) -> None:
    host.process(77)
    found = hindrance(turns)
    assert found is not None
    assert found.code == "DoublezerodRuns"
    assert "process 77" in found.message
    assert "dzagent migrate" in found.message
    host.ends(77)
    assert hindrance(turns) is None


def test_it_is_not_while_a_migration_holds_the_lock(host: Host, turns: Turns) -> None:
    with alone(host.paths.turn):
        found = hindrance(turns)
    assert found is not None
    assert found.code == "Migrating"
    assert hindrance(turns) is None


def test_a_migration_waits_for_the_end_of_a_pass(host: Host, turns: Turns) -> None:
    waited: list[float] = []
    with (
        turns.turn(),
        pytest.raises(StateError, match="is locked"),
        alone(host.paths.turn, sleep=waited.append),
    ):
        pass
    assert waited
    with (
        alone(host.paths.turn, sleep=waited.append),
        pytest.raises(StateError),
        alone(host.paths.turn, patience=0),
    ):
        pass


@pytest.mark.parametrize(
    ("phase", "boot", "code"),
    [
        ("migrating", "boot 1", "MigrationUnfinished"),
        ("undoing", "boot 1", "MigrationUnfinished"),
        ("migrated", "boot 1", None),
        ("undone", "boot 1", "HandedBack"),
        ("undone", "boot 0", None),
        ("migrating", "boot 0", None),
    ],
)
def test_an_unfinished_migration_of_this_boot_is_not_our_turn(
    host: Host, turns: Turns, phase: Phase, boot: str, code: str | None
) -> None:
    write_record(host.paths.migration, Record(phase, boot, 1.0, "doublezerod.service"))
    found = hindrance(turns)
    assert (found.code if found else None) == code


def test_a_wish_after_the_way_back_ends_it_for_good(host: Host, turns: Turns) -> None:
    """Else `dzagent disable` would leave in place what a later `dzagent enable` has set up."""
    intent, record = host.paths.intent, host.paths.migration
    write_intent(intent, Intent(False))
    write_record(record, Record("undone", "boot 1", 1.0, "doublezerod.service"))
    os.utime(intent, ns=(10, 10))
    os.utime(record, ns=(20, 20))
    assert hindrance(turns) is not None
    for enabled in (True, False):
        write_intent(intent, Intent(enabled))
        assert hindrance(turns) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            "{}",
            '{"phase": "x", "boot": "", "at": 1, "unit": ""}',
            '{"phase": [], "boot": 1}',
            "\0",
        ),
        f'{{"phase": "migrated", "boot": "", "at": 1{"0" * 400}, "unit": ""}}',
    ],
)
def test_a_record_that_cannot_be_read_is_doubt(host: Host, turns: Turns, text: str) -> None:
    host.paths.migration.parent.mkdir(parents=True)
    host.paths.migration.write_text(text)
    found = hindrance(turns)
    assert found is not None
    assert found.code == "MigrationUnreadable"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record("migrated", "b", 2.5, "x.service", "mask", "enabled", True, ("rule a", "link b"), False)
    write_record(tmp_path / "r" / "record.json", record)
    assert read_record(tmp_path / "r" / "record.json") == record
    assert read_record(tmp_path / "none.json") is None


def test_a_record_of_a_careful_root_can_be_read_by_the_reconciler(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_record(tmp_path / "migration" / "record.json", Record("migrated", "b", 1.0, "u"))
    finally:
        os.umask(before)
    assert (tmp_path / "migration").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "migration" / "record.json").stat().st_mode & 0o777 == 0o644


def test_a_record_goes_through_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "migration").symlink_to("elsewhere")
    with pytest.raises(StateError, match="symlink"):
        write_record(tmp_path / "migration" / "record.json", Record("migrated", "b", 1.0, "u"))


def test_no_place_for_the_lock_stops_no_repair(host: Host) -> None:
    host.paths.agent.rmdir()
    turns = Turns(host.paths, host.watch(), "boot 1")
    assert hindrance(turns) is None


def test_a_lock_that_somebody_shares_is_no_hindrance(host: Host, turns: Turns) -> None:
    host.paths.turn.touch()
    descriptor = os.open(host.paths.turn, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert hindrance(turns) is None
    os.close(descriptor)


# ---- its last wish ---------------------------------------------------------------------------------------

ENTRY = {"user_type": "IBRL", "tunnel_net": "169.254.0.0/30", "doublezero_ip": "198.51.100.7"}


@dataclass
class Disk:
    """doublezerod's state directory, and ours."""

    root: Path

    def __post_init__(self) -> None:
        self.old = self.root / "old"
        self.paths = Paths(self.root / "state", self.root / "run")
        self.old.mkdir()

    def put(self, name: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.old / name).write_text(text)

    def start(self) -> tuple[str, str]:
        """Be a new process; returns the condition."""
        before = {path: path.read_bytes() for path in self.old.iterdir()}
        taken = take_over(self.paths, Doublezerod(self.old), lambda: 7.0)
        assert {path: path.read_bytes() for path in self.old.iterdir()} == before, "its files are only read"
        return taken.status, taken.reason

    @property
    def intent(self) -> Intent | None:
        return read_intent(self.paths.intent)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "enabled"),
    [
        ("state.json", {"reconciler_enabled": True}, True),  # S1
        ("state.json", {"reconciler_enabled": False}, False),  # S2
        ("state.json", {}, False),
        ("doublezerod.json", [ENTRY], True),  # S3
        ("doublezerod.json", [7, ENTRY], True),
        ("doublezerod.json", [], False),  # S4
        ("doublezerod.json", {}, False),
    ],
)
def test_its_wish_becomes_ours_once(disk: Disk, name: str, content: object, enabled: bool) -> None:
    disk.put(name, content)
    assert disk.start() == ("True", "TakenOver")
    assert disk.intent == Intent(enabled)
    note = json.loads(disk.paths.taken_over.read_text())
    assert (note["file"], note["reconciler_enabled"], note["at"]) == (str(disk.old / name), enabled, 7.0)
    assert len(note["sha256"]) == 64
    assert disk.start() == ("Unknown", "NotNeeded")


def test_nothing_is_taken_over_where_there_is_nothing(disk: Disk) -> None:  # S5
    assert disk.start() == ("Unknown", "NothingFound")
    assert disk.intent is None
    assert not disk.paths.taken_over.exists()


def test_the_newer_file_wins(disk: Disk) -> None:  # S6
    disk.put("state.json", {"reconciler_enabled": False})
    disk.put("doublezerod.json", [ENTRY])
    disk.start()
    assert disk.intent == Intent(False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", ""),  # S7
        ("state.json", "{"),
        ("state.json", "null"),
        ("state.json", "[]"),
        ("state.json", {"reconciler_enabled": "yes"}),
        ("state.json", {"reconciler_enabled": 1}),
        ("state.json", "[" * 100_000),
        ("state.json", '{"reconciler_enabled": tr\x00ue}'),
        ("doublezerod.json", ""),
        ("doublezerod.json", "["),
        ("doublezerod.json", [{"tunnel_net": "x/31"}]),
        ("doublezerod.json", [{"tunnel_net": 7}, None, []]),
        ("doublezerod.json", "7"),
    ],
)
def test_what_cannot_be_read_is_told_and_tried_again(disk: Disk, name: str, content: object) -> None:
    disk.put(name, content)
    assert disk.start() == ("False", "Unreadable")
    assert disk.intent is None
    disk.put("state.json", {"reconciler_enabled": True})
    assert disk.start() == ("True", "TakenOver")


def test_an_unreadable_newer_file_does_not_let_the_older_one_speak(disk: Disk) -> None:
    disk.put("state.json", "{")
    disk.put("doublezerod.json", [ENTRY])
    assert disk.start() == ("False", "Unreadable")
    assert disk.intent is None


def test_a_pipe_or_a_giant_in_its_place_does_not_hang_or_fill_us(disk: Disk) -> None:
    os.mkfifo(disk.old / "state.json")
    with pytest.raises(StateError, match=r"not a regular file|Invalid"):
        read_old_state(disk.old)
    (disk.old / "state.json").unlink()
    disk.put("state.json", " " * (2 * 1024 * 1024))
    assert disk.start() == ("False", "Unreadable")


def test_a_person_who_has_spoken_is_not_overruled(disk: Disk) -> None:
    write_intent(disk.paths.intent, Intent(False))
    disk.put("state.json", {"reconciler_enabled": True})
    assert disk.start() == ("Unknown", "NotNeeded")
    assert disk.intent == Intent(False)


def test_a_corrupt_intent_of_our_own_is_not_replaced(disk: Disk) -> None:
    disk.paths.intent.parent.mkdir(parents=True)
    disk.paths.intent.write_text("{")
    disk.put("state.json", {"reconciler_enabled": True})
    assert disk.start() == ("Unknown", "NotNeeded")
    assert disk.paths.intent.read_text() == "{"


def test_a_lost_intent_is_not_taken_over_again(disk: Disk) -> None:
    disk.put("state.json", {"reconciler_enabled": True})
    disk.start()
    disk.paths.intent.unlink()
    assert disk.start() == ("True", "Before")
    assert disk.intent is None


def test_a_pinned_address_comes_along(disk: Disk) -> None:
    disk.put("state.json", {"reconciler_enabled": True, "client_ip": "198.51.100.7"})
    disk.start()
    assert disk.intent == Intent(True, IPv4Address("198.51.100.7"))


@pytest.mark.parametrize("address", ["127.0.0.1", "nonsense", 7, "::1"])
def test_a_pinned_address_that_nobody_can_have_is_left_out_and_told(disk: Disk, address: object) -> None:
    disk.put("state.json", {"reconciler_enabled": True, "client_ip": address})
    taken = take_over(disk.paths, Doublezerod(disk.old), lambda: 7.0)
    assert disk.intent == Intent(True)
    assert "left out" in taken.message


def test_a_disk_that_cannot_be_written_is_told(disk: Disk) -> None:
    disk.put("state.json", {"reconciler_enabled": True})
    disk.paths.state.write_text("a file in the place of the directory")
    assert disk.start() == ("False", "NotWritten")


def test_the_lock_beside_the_intent_is_for_the_whole_group(disk: Disk) -> None:
    """The API, another user of the same group, must be able to lock what the reconciler has made."""
    disk.put("state.json", {"reconciler_enabled": True})
    before = os.umask(0o027)
    try:
        disk.start()
    finally:
        os.umask(before)
    assert (disk.paths.intent.parent / "lock").stat().st_mode & 0o777 == 0o660
