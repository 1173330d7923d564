"""The checkpoint on disk: written whole, read back strictly, and only where it is valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dzagent.checkpoint import CheckpointFile, Pending, UndoneFile
from dzagent.errors import StateError
from dzagent.nftmodel import MARKED, NftTable, combine
from dzagent.undo import Undo
from dzagent.undone import Undone
from tests.test_undo import DZ, LINK, MOVED, OVERLAY, OWNER, ROUTES, RULES

HERE = "0c0ffee0-boot 2a.f0000000"
PENDING = Pending(
    "ab12cd34", 1234.5, 1_800_000_000.0, Undo((LINK, OVERLAY, ROUTES[0], RULES[0]), (MOVED, DZ))
)


@pytest.fixture
def file(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "rollback.json", OWNER, HERE)


def test_what_was_written_is_read_back(file: CheckpointFile) -> None:
    assert file.read() is None
    file.write(PENDING)
    assert file.read() == PENDING
    file.clear()
    file.clear()
    assert file.read() is None


def test_a_table_is_kept_in_its_own_grammar_and_only_ours(file: CheckpointFile) -> None:
    table = combine((MARKED, NftTable(counters=("unicast_dropped",))))
    file.write(replace(PENDING, undo=Undo((table,), ())))
    assert file.read() == replace(PENDING, undo=Undo((table,), ()))
    file.write(replace(PENDING, undo=Undo((NftTable(counters=("unicast_dropped",)),), ())))
    with pytest.raises(StateError, match="not an object of ours"):
        file.read()


@pytest.mark.parametrize("place", ["another-boot 2a.f0000000", "0c0ffee0-boot 2b.f0000000", ""])
def test_another_boot_or_namespace_has_nothing_to_undo(file: CheckpointFile, place: str) -> None:
    file.write(PENDING)
    assert CheckpointFile(file.path, OWNER, place).read() is None


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.__setitem__(name, value)


@pytest.mark.parametrize(
    "edit",
    [
        put("restore", [["link delete eth0"]]),
        put("restore", [["rule add priority 1 from 0.0.0.0/0 to 10.0.0.0/8 table 7 protocol 4"]]),
        put("restore", [["route add 10.0.0.0/8 via 192.0.2.1 dev eth0 table 254 proto 210"]]),
        put("restore", [["addr add 10.0.0.1/24 dev eth0 scope global"]]),
        put("restore", [["addr add 10.0.0.1/24 dev doublezero0 scope global\nlink delete eth0"]]),
        put("restore", [[]]),
        put("restore", [["# a comment"]]),
        put("restore", "link"),
        put("restore", [7]),
        put("restore", None),
        put("deadline", "soon"),
        put("deadline", True),
        put("deadline", -1),
        put("deadline_at", float("nan")),
        put("plan_id", "../x"),
        put("plan_id", 7),
        put("version", 2),
        lambda document: document.pop("remove"),
    ],
)
def test_anything_else_is_refused(file: CheckpointFile, edit: Callable[[dict[str, Any]], None]) -> None:
    file.write(PENDING)
    document = json.loads(file.path.read_text())
    edit(document)
    file.path.write_text(json.dumps(document))
    with pytest.raises(StateError):
        file.read()
    file.set_aside()
    assert file.read() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"'])
def test_a_torn_file_is_refused(file: CheckpointFile, text: str) -> None:
    file.path.write_text(text)
    with pytest.raises(StateError):
        file.read()


def test_what_was_rolled_back_is_read_back_after_a_reboot(tmp_path: Path) -> None:
    file = UndoneFile(tmp_path / "undone.json", OWNER)
    assert file.read() is None
    undone = Undone("ab12cd34", 1_800_000_000.0, (MOVED, DZ), (LINK,))
    file.write(undone)
    assert file.read() == undone
    file.path.write_text(file.path.read_text().replace("doublezero0", "eth0"))
    with pytest.raises(StateError):
        file.read()
    file.write(None)
    assert file.read() is None
