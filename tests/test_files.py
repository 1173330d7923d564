"""Small files: whole or not at all, whatever stands in their place, and never a wait."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.errors import StateError
from dzagent.files import (
    MAX_BYTES,
    absent,
    is_seconds,
    locked,
    read_bytes,
    read_json,
    write_atomic,
    write_json,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# ---- writing -------------------------------------------------------------------------------------------------


def test_a_file_is_made_with_its_folders_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one", mode=0o640)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path.parent) == ["file"]


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"


def test_a_symlink_is_replaced_and_what_it_points_to_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("precious")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()


def test_what_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "folder" / "x").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"old")
    for path in (
        tmp_path / "folder",
        tmp_path / "file" / "x",
        Path("/proc/dzagent/x"),
        tmp_path / ("n" * 300),
    ):
        with pytest.raises(StateError, match=r"cannot be written .*; the old content stays"):
            write_atomic(path, b"new")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text")  # type: ignore[arg-type] # stands for any failure in the middle
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_every_write_has_a_later_time_however_fast_it_follows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    times = []
    for number in range(200):
        write_atomic(path, str(number).encode(), durable=False)
        times.append(path.stat().st_mtime_ns)
    assert times == sorted(set(times))


def test_every_write_has_a_later_time_though_the_clock_went_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"from the future")
    future = path.stat().st_mtime_ns + 10**18
    os.utime(path, ns=(future, future))
    write_atomic(path, b"from now", durable=False)
    assert path.stat().st_mtime_ns == future + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(document=json_values.filter(lambda document: document is not None))
def test_what_was_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    write_json(path, document)
    assert read_json(path) == document


def test_a_byte_order_mark_is_no_error_and_another_encoding_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(StateError, match="is not valid JSON"):
        read_json(path)


def test_a_text_that_is_no_text_stops_no_document(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"message": json.loads('"the node said \\ud800"')})
    assert read_json(path) == {"message": "the node said ?"}


# ---- reading -------------------------------------------------------------------------------------------------


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none") is None
    assert read_json(tmp_path / "none" / "deeper") is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"\0", b"[" * 200_000, b"{}{}", b"1" * 5000, b'"\xed\xa0\x80"', b"{'a': 1}", b"nul"],
)
def test_what_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(StateError, match="is not valid JSON"):
        read_json(path)


def test_null_is_not_taken_for_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b" null\n")
    with pytest.raises(StateError, match="holds null"):
        read_json(tmp_path / "file")


def test_a_file_that_is_too_large_is_refused_and_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(StateError, match=f"larger than {MAX_BYTES} bytes"):
        read_json(path)
    with path.open("wb") as file:
        file.truncate(50 * 1024**3)  # takes no room: it is all hole
    assert len(read_bytes(path, 1000)) == 1001


def test_nothing_but_a_regular_file_is_read_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "loop"):
        with pytest.raises(StateError, match="cannot be read"):
            read_json(path)


def test_a_refused_file_is_closed_again(tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file") as caught:
            read_bytes(path, 10)
        assert caught.value.errno == errno.EINVAL
    assert opened() == before


def test_absent_is_only_what_is_provably_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("none")
    assert absent(tmp_path / "none")
    assert absent(tmp_path / "file" / "x")
    for path in (tmp_path / "file", tmp_path, tmp_path / "dangling", tmp_path / ("n" * 300), Path("a\0b")):
        assert not absent(path)


# ---- the lock --------------------------------------------------------------------------------------------------


def is_free(path: Path) -> bool:
    """Try the lock as another process would: a lock belongs to the open file, not to the process."""
    with path.open("rb") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a" / "lock"
    with locked(path):
        assert not is_free(path)
    assert is_free(path)


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    assert is_free(tmp_path / "lock")


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be opened"), locked(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "intent"
    directory.mkdir()
    os.chown(directory, 12345, 54321)
    with locked(directory / "lock"):
        write_atomic(directory / "state.json", b"{}")
    for name in ("lock", "state.json"):
        status = (directory / name).stat()
        assert (status.st_uid, status.st_gid) == (12345, 54321), name


@pytest.mark.parametrize("value", [0, 1.5, -3, 1_800_000_000])
def test_a_number_can_be_a_time(value: float) -> None:
    assert is_seconds(value)


@pytest.mark.parametrize(
    "value", [None, True, "1", [], float("nan"), float("inf"), -float("inf"), 10**400, 1e12]
)
def test_what_no_clock_says_is_no_time(value: object) -> None:
    assert not is_seconds(value)
