"""Generations on disk: whole, numbered, and written only when something changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dzagent.config import Paths
from dzagent.desired import KEPT, DesiredStore, stamped
from dzagent.errors import StateError
from dzagent.wishes import Texts


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(state=tmp_path / "state", run=tmp_path / "run")


def texts(line: str = "link", slot: int = 1) -> Texts:
    return {"unicast": {"tunnel.ip": f"# slot: {slot}\n# generation: 0\n{line}\n", "rule.ip": ""}}


def test_what_is_written_is_read_back_by_the_next_process(paths: Paths) -> None:
    store = DesiredStore(paths)
    assert store.write(texts()) == 1
    assert paths.desired.readlink() == Path("generations/000001")
    again = DesiredStore(paths)
    assert again.read() == {"unicast": {"tunnel.ip": "# slot: 1\n# generation: 1\nlink\n", "rule.ip": ""}}
    assert again.generation == 1
    assert again.write(texts()) == 1


def test_only_a_change_makes_a_new_generation(paths: Paths) -> None:
    store = DesiredStore(paths)
    store.write(texts())
    before = (paths.desired / "unicast" / "tunnel.ip").stat()
    assert store.write(texts(slot=99)) == 1
    assert (paths.desired / "unicast" / "tunnel.ip").stat() == before
    assert store.write(texts("another")) == 2
    assert "# generation: 2\nanother" in (paths.desired / "unicast" / "tunnel.ip").read_text()
    assert store.write({}) == 3
    assert list(paths.desired.iterdir()) == []


def test_nothing_wanted_and_nothing_there_writes_nothing(paths: Paths) -> None:
    store = DesiredStore(paths)
    assert store.read() == {}
    assert store.write({}) == 0
    assert not paths.state.exists()


def test_old_generations_and_half_made_ones_go(paths: Paths) -> None:
    store = DesiredStore(paths)
    store.write(texts())
    (paths.state / "generations" / ".new-left").mkdir()
    for number in range(KEPT + 2):
        store.write(texts(f"line {number}"))
    names = sorted(p.name for p in (paths.state / "generations").iterdir())
    assert len(names) == KEPT
    assert names[-1] == paths.desired.readlink().name


def test_a_lost_symlink_does_not_bring_an_old_number_back(paths: Paths) -> None:
    DesiredStore(paths).write(texts())
    paths.desired.unlink()
    assert DesiredStore(paths).write(texts("new")) == 2


def test_a_disk_that_takes_nothing_leaves_the_old_generation(paths: Paths) -> None:
    store = DesiredStore(paths)
    store.write(texts())
    generations = paths.state / "generations"
    moved = paths.state / "moved"
    generations.rename(moved)
    generations.write_text("not a directory")
    with pytest.raises(StateError, match="the old ones stay"):
        store.write(texts("new"))
    generations.unlink()
    moved.rename(generations)
    assert store.generation == 1
    assert store.write(texts("new")) == 2


def test_a_directory_in_the_place_of_the_symlink_is_an_error_that_says_so(paths: Paths) -> None:
    paths.desired.mkdir(parents=True)
    store = DesiredStore(paths)
    with pytest.raises(StateError, match="symlink"):
        store.read()
    with pytest.raises(StateError, match="old ones stay"):
        store.write(texts())
    assert list((paths.state / "generations").glob(".new-*")) == []


def test_bytes_that_are_no_text_are_read_for_the_parser_to_refuse(paths: Paths) -> None:
    DesiredStore(paths).write(texts())
    (paths.desired / "unicast" / "tunnel.ip").write_bytes(b"link \xff\n")
    assert DesiredStore(paths).read()["unicast"]["tunnel.ip"] == "link \\xff\n"


def test_a_file_that_cannot_be_read_is_an_error(paths: Paths) -> None:
    DesiredStore(paths).write(texts())
    file = paths.desired / "unicast" / "tunnel.ip"
    file.unlink()
    file.mkdir()
    with pytest.raises(StateError, match=r"tunnel\.ip"):
        DesiredStore(paths).read()


def test_only_the_header_line_is_stamped() -> None:
    text = "# generation: 0\nroute\n# generation: 0\n"
    assert stamped(text, 7) == "# generation: 7\nroute\n# generation: 0\n"
