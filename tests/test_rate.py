"""What went without a proven cause counts for an hour, whoever counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dzagent.rate import Rate


def test_what_went_counts_for_an_hour() -> None:
    rate = Rate()
    rate.note({"unicast": 5}, 100.0)
    rate.note({"unicast": 2, "multicast": 0}, 3000.0)
    assert rate.recent(3600.0) == {"unicast": 7}
    assert rate.recent(3701.0) == {"unicast": 2}


def test_a_restart_does_not_begin_a_new_hour(tmp_path: Path) -> None:
    path = tmp_path / "gone.json"
    Rate(path, "here").note({"unicast": 5}, 100.0)
    again = Rate(path, "here")
    assert again.recent(200.0) == {"unicast": 5}
    again.note({"unicast": 1, "multicast": 3}, 3701.0)
    assert Rate(path, "here").recent(3702.0) == {"unicast": 1, "multicast": 3}


def test_another_boot_or_namespace_begins_a_new_hour(tmp_path: Path) -> None:
    path = tmp_path / "gone.json"
    Rate(path, "here").note({"unicast": 5}, 100.0)
    assert Rate(path, "there").recent(200.0) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"place": "here"}',
        '{"place": "here", "gone": {}}',
        '{"place": "here", "gone": [3, [], [1, 2], ["x", "unicast", 1], [1, "y", 1], [1, [], 1], [1, "unicast", "1"]]}',
        '{"place": "here", "gone": [[NaN, "unicast", 1], [Infinity, "unicast", 1], [1, "unicast", true]]}',
        '{"place": "here", "gone": [[1, "unicast", -5]]}',
    ],
)
def test_a_file_of_another_shape_counts_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gone.json"
    path.write_text(text)
    rate = Rate(path, "here")
    assert not any(rate.recent(2.0).values())
    rate.note({"unicast": 1}, 3.0)
    assert rate.recent(4.0) == {"unicast": 1}


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    rate = Rate(tmp_path / "gone.json", "here")
    (tmp_path / "gone.json").mkdir()
    rate.note({"unicast": 4}, 1.0)
    assert rate.recent(2.0) == {"unicast": 4}


def test_the_file_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "gone.json"
    path.write_text(json.dumps({"place": "here", "gone": [[1.0, "unicast", 1]] * 10_000}))
    rate = Rate(path, "here")
    assert rate.recent(2.0) == {"unicast": 4096}
    rate.note({"unicast": 1}, 2.0)
    assert len(json.loads(path.read_text())["gone"]) == 4096
