"""The last good snapshot on disk: it comes back as it was, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dzagent.errors import StateError
from dzagent.feed import restored_view
from dzagent.ledger.poller import DirectPoller
from dzagent.ledger.snapshot import Snapshot
from dzagent.ledger.store import SnapshotStore
from tests.ledger_fakes import CONFIG, IP, OTHER_PROGRAM, PROGRAM, UNICAST, FakeLedger

DAY = 86400.0


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def make(path: Path, clock: Clock | None = None, program: str = PROGRAM) -> SnapshotStore:
    clock = clock or Clock()
    return SnapshotStore(path / "ledger.json", program, now=clock, clock=clock)


def snapshot() -> Snapshot:
    agent = DirectPoller(FakeLedger(), PROGRAM)
    agent.poll([IP])
    return agent.poll([IP])


def test_a_snapshot_comes_back_but_proves_no_absence(tmp_path: Path) -> None:
    before = snapshot()
    assert before.complete
    make(tmp_path).save(before, frozenset({IP}))
    stored = make(tmp_path).load()
    assert stored is not None
    assert stored.snapshot == replace(before, complete=False)
    assert (stored.searched, stored.read_at) == (frozenset({IP}), Clock.now)


def test_nothing_stored_and_another_program_are_no_error(tmp_path: Path) -> None:
    assert make(tmp_path).load() is None
    make(tmp_path).save(snapshot(), frozenset({IP}))
    assert make(tmp_path, program=OTHER_PROGRAM).load() is None
    assert make(tmp_path).load() is not None


def test_the_poller_goes_on_from_what_is_stored(tmp_path: Path) -> None:
    make(tmp_path).save(snapshot(), frozenset({IP}))
    stored = make(tmp_path).load()
    assert stored is not None
    ledger = FakeLedger(slot=2000)
    del ledger.accounts[UNICAST]
    agent = DirectPoller(ledger, PROGRAM, previous=stored.snapshot)
    assert set(agent.poll([IP]).users) == {UNICAST}
    assert agent.poll([IP]).users == {}


def test_it_is_written_when_bytes_change_and_now_and_then(tmp_path: Path) -> None:
    clock, found = Clock(), snapshot()
    store = make(tmp_path, clock)

    def written(snap: Snapshot, *, after: float) -> bool:
        clock.now += after
        path = tmp_path / "ledger.json"
        before = path.stat().st_ino if path.exists() else 0
        store.save(snap, frozenset({IP}))
        return path.stat().st_ino != before

    assert written(found, after=0)
    assert not written(replace(found, slot=found.slot + 9), after=10)
    assert not written(found, after=580)
    assert written(found, after=10)
    assert written(replace(found, raw={**found.raw, UNICAST: b"\7" * 206}), after=1)


def test_forgetting_removes_it(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.clear()
    store.save(snapshot(), frozenset({IP}))
    store.clear()
    assert make(tmp_path).load() is None
    store.save(snapshot(), frozenset({IP}))
    assert make(tmp_path).load() is not None


def edit(path: Path, change: Callable[[dict[str, Any]], Any], *, sign: bool = True) -> None:
    document = json.loads(path.read_text())
    document = change(document) or document
    if sign and isinstance(document, dict):
        from dzagent.ledger.store import _digest

        body = {key: value for key, value in document.items() if key not in {"version", "sha256"}}
        document["sha256"] = _digest(body)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["accounts"].pop(CONFIG) and None,
        lambda d: d["accounts"].update({CONFIG: "AAAA"}),
        lambda d: d["accounts"].update({CONFIG: "?"}),
        lambda d: d["accounts"].update({CONFIG: 7}),
        lambda d: d.update(accounts=[]),
        lambda d: d.update(accounts=None),
        lambda d: d["accounts"].update({"nobody": "AAAA"}),
        lambda d: d.update(slot=-1),
        lambda d: d.update(slot=True),
        lambda d: d.update(slot=1e3),
        lambda d: d.update(read_at="now"),
        lambda d: d.update(read_at=float("inf")),
        lambda d: d.update(genesis_hash=None),
        lambda d: d.update(searched=["x"]),
        lambda d: d.update(searched=7),
        lambda d: d.update(version=2),
        lambda _: [1],
        lambda _: 7,
    ],
)
def test_a_corrupt_file_is_set_aside_and_reported(tmp_path: Path, change: Any) -> None:
    make(tmp_path).save(snapshot(), frozenset({IP}))
    path = tmp_path / "ledger.json"
    edit(path, change)
    with pytest.raises(StateError, match="set aside"):
        make(tmp_path).load()
    assert not path.exists()
    assert (tmp_path / "ledger.json.corrupt").exists()
    assert make(tmp_path).load() is None


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    make(tmp_path).save(snapshot(), frozenset({IP}))
    edit(tmp_path / "ledger.json", lambda d: d.update(slot=d["slot"] + 1), sign=False)
    with pytest.raises(StateError, match="digest"):
        make(tmp_path).load()
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(StateError, match="JSON"):
        make(tmp_path).load()


def test_a_full_disk_is_no_reason_to_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = make(tmp_path / "file")
    store.save(snapshot(), frozenset({IP}))
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (0.0, ""),
        (DAY, ""),
        (-299.0, ""),
        (DAY + 3600, "25.0 h old, more than 24.0 h"),
        (365 * DAY, "8760.0 h old"),
        (-365 * DAY, "in the future"),
    ],
)
def test_only_young_data_brings_service_back(tmp_path: Path, later: float, said: str) -> None:
    make(tmp_path).save(snapshot(), frozenset({IP}))
    view = restored_view(make(tmp_path).load(), Clock.now + later, 50.0, DAY)
    assert view.restored == (not said)
    assert said in view.not_restored
    if view.restored:
        assert view.age(50.0) == max(0.0, later)
    assert restored_view(None, 0.0, 0.0, DAY).not_restored
