"""The journal: written before and after, believed only where it is whole, and never in the way."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.journal import MAX_BEGUN, MAX_BYTES, Entries, Journal, here, parse, read
from dzagent.model import Action, KernelObject, Link, Route, SeenLink, Step
from dzagent.ownership import NO_CLAIMS, Claims, LinkClaim, Ownership
from tests.owning import ours

PLACE = "boot-1 ns-1"
LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast"})
SEEN = SeenLink("doublezero0", 7, "gre", up=True, mtu=1476, alias="dzagent:unicast", tunnel=LINK)
CLAIM = LinkClaim("doublezero0", 7, "gre")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "journal"


def add(obj: KernelObject) -> Step:
    return Step(Action.ADD, None, obj, "missing")


def routes(count: int) -> list[Step]:
    gateway = IPv4Address("169.254.0.0")
    return [
        add(Route(IPv4Network((0x0A000000 + 256 * n, 24)), gateway, "doublezero0", 254, 210))
        for n in range(count)
    ]


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]


# ---- what is written -----------------------------------------------------------------------------------------


def test_a_change_is_in_the_journal_until_the_kernel_was_looked_at_again(path: Path) -> None:
    journal = Journal(path, PLACE)
    journal.begin([*routes(2), add(LINK)])
    header, link, *rest = records(path)
    assert header == {"journal": 1, "place": PLACE}
    assert link["begun"] == "add"
    assert link["commands"]
    assert len(rest) == 2
    assert read(path, PLACE).claims.making == (LINK,)
    owner = journal.settle(OWNER, [SEEN], table=4)
    assert records(path)[1:] == [{"link": "doublezero0", "ifindex": 7, "kind": "gre"}, {"table": 4}]
    assert owner.claims == Claims((CLAIM,), table=4) == read(path, PLACE).claims
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_while_nothing_changes(path: Path) -> None:
    journal = Journal(path, PLACE)
    journal.settle(OWNER, [SEEN])
    before = path.stat().st_ino
    journal.settle(OWNER, [SEEN])
    journal.begin([])
    successor = Journal(path, PLACE)
    successor.settle(OWNER, [SEEN])
    assert path.stat().st_ino == before, "a file that is written is another one"


def test_what_a_predecessor_had_begun_is_cleared(path: Path) -> None:
    journal = Journal(path, PLACE)
    journal.settle(OWNER, [SEEN])
    journal.begin(routes(1))
    Journal(path, PLACE).settle(OWNER, [SEEN])
    assert len(records(path)) == 2


def test_a_batch_of_thousands_is_one_small_write(path: Path) -> None:
    Journal(path, PLACE).begin([*routes(20_000), add(LINK)])
    last = records(path)[-1]
    assert last == {"begun": "more", "count": 20_001 - MAX_BEGUN}
    assert path.stat().st_size < 64 * 1024
    assert read(path, PLACE).claims.making == (LINK,), "what must be read back comes first"


def test_a_journal_that_somebody_removed_is_written_again(path: Path) -> None:
    journal = Journal(path, PLACE)
    journal.settle(OWNER, [SEEN])
    path.unlink()
    journal.settle(OWNER, [SEEN])
    assert read(path, PLACE).claims.links == (CLAIM,)


def test_a_journal_that_cannot_be_written_stops_nothing_and_says_so(path: Path) -> None:
    path.parent.write_text("in the way")
    journal = Journal(path, PLACE)
    journal.begin([add(LINK)])
    owner = journal.settle(OWNER, [SEEN])
    assert owner.claims.links == (CLAIM,)
    assert str(path) in str(journal.problem)
    path.parent.unlink()
    journal.settle(OWNER, [SEEN])
    assert journal.problem is None
    assert path.exists()


def test_without_a_path_it_remembers_all_the_same(path: Path) -> None:
    journal = Journal()
    journal.begin([add(LINK)])
    assert journal.claims.making == (LINK,)
    assert journal.settle(OWNER, [SEEN]).claims.links == (CLAIM,)
    assert journal.problem is None
    assert not path.exists()


# ---- what is known -------------------------------------------------------------------------------------------


def test_a_link_without_its_alias_is_known_over_a_restart(path: Path) -> None:
    Journal(path, PLACE).settle(OWNER, [SEEN])
    bare = replace(SEEN, alias="", tunnel=replace(LINK, alias=""))
    owner = Journal(path, PLACE).settle(OWNER, [bare])
    assert owner.owns(bare)
    assert not Journal(path, "boot-2 ns-1").settle(OWNER, [bare]).owns(bare)


def test_a_half_made_link_becomes_a_known_one(path: Path) -> None:
    Journal(path, PLACE).begin([add(LINK)])
    half = replace(SEEN, alias="", up=False, tunnel=replace(LINK, alias="", up=False))
    owner = Journal(path, PLACE).settle(OWNER, [half])
    assert owner.claims == Claims((CLAIM,))


def test_a_link_that_is_gone_is_forgotten(path: Path) -> None:
    journal = Journal(path, PLACE)
    journal.settle(OWNER, [SEEN])
    assert journal.settle(OWNER, []).claims == NO_CLAIMS
    foreign = replace(SEEN, ifindex=7, alias="")
    assert journal.settle(OWNER, [foreign]).claims == NO_CLAIMS


# ---- what is believed ----------------------------------------------------------------------------------------


def line(record: object) -> bytes:
    data = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


HEAD, FIRST = line({"journal": 1, "place": PLACE}), line({"link": "a", "ifindex": 1, "kind": "gre"})
SECOND = line({"link": "b", "ifindex": 2, "kind": "gre"})


def names(data: bytes) -> list[str]:
    return [claim.name for claim in parse(data, PLACE).claims.links]


def test_a_torn_tail_is_left_out_and_reported() -> None:
    for cut in range(1, len(SECOND)):
        entries = parse(HEAD + FIRST + SECOND[:-cut], PLACE)
        assert [claim.name for claim in entries.claims.links] == ["a"]
        assert "torn" in entries.problem
    assert parse(HEAD + FIRST + SECOND, PLACE).problem == ""


@pytest.mark.parametrize(
    "bad",
    [
        SECOND.replace(b"b", b"c", 1),
        line([1]),
        line({"link": "b", "ifindex": "2", "kind": "gre"}),
        line({"link": "b", "ifindex": True, "kind": "gre"}),
        line({"link": "b", "kind": "gre"}),
        line({"table": -1}),
        line({"making": {"name": "x"}}),
        line({"making": {"name": "x", "local": "300.1.1.1", "remote": "1.1.1.1"}}),
        b"\n",
        b"\xff\xfe\n",
    ],
)
def test_after_a_bad_line_nothing_is_believed(bad: bytes) -> None:
    entries = parse(HEAD + FIRST + bad + SECOND, PLACE, "x")
    assert [claim.name for claim in entries.claims.links] == ["a"]
    assert entries.problem.startswith("x, line 3: ")


def test_a_journal_of_another_boot_namespace_or_version_is_no_news() -> None:
    for head in (line({"journal": 1, "place": "boot-2 ns-1"}), line({"journal": 2, "place": PLACE})):
        assert parse(head + FIRST, PLACE) == Entries()


def test_a_headless_journal_is_not_believed() -> None:
    assert names(FIRST + SECOND) == []


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    assert parse(data, PLACE).claims == NO_CLAIMS
    parse(HEAD + FIRST + data, PLACE)


def test_what_is_no_file_of_ours_is_reported_and_not_read(path: Path) -> None:
    path.parent.mkdir()
    assert read(path, PLACE).problem == ""
    os.mkfifo(path)
    assert "cannot be read" in read(path, PLACE).problem
    path.unlink()
    path.write_bytes(HEAD + FIRST + b"x" * (1024 * 1024))
    assert "larger than" in read(path, PLACE).problem


def test_this_boot_and_namespace_have_one_name() -> None:
    assert here() == here()
    boot, _, namespace = here().partition(" ")
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cookie, _, inode = namespace.partition(".")
    assert int(inode, 16) == Path("/proc/self/ns/net").stat().st_ino
    assert int(cookie, 16) >= 0


def test_a_batch_that_just_fits_names_every_change(path: Path) -> None:
    Journal(path, PLACE).begin(routes(MAX_BEGUN))
    assert len(records(path)) == 1 + MAX_BEGUN
    assert records(path)[-1]["begun"] == "add"


def test_only_a_link_that_is_being_made_is_remembered_as_half_made(path: Path) -> None:
    journal = Journal(path, PLACE)
    edited = Step(Action.CHANGE, ours(replace(LINK, mtu=1400)), LINK, "differs")
    journal.begin([edited, *routes(1)])
    assert not journal.claims.making
    journal.begin([add(LINK), *routes(1)])
    assert journal.claims.making == (LINK,)


def test_a_half_made_link_is_read_back_as_it_was_meant_to_be(path: Path) -> None:
    inherits = replace(LINK, ttl=0, pmtudisc=True)
    Journal(path, PLACE).begin([add(inherits)])
    assert read(path, PLACE).claims.making == (inherits,)


def test_what_cannot_be_read_is_logged_and_nothing_else_is(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Journal(path, PLACE).settle(OWNER, [SEEN])
    Journal(path, PLACE)
    assert caplog.messages == []
    path.write_bytes(b"torn")
    Journal(path, PLACE)
    assert caplog.messages == [f"{path}, line 1: it is torn; it is left out"]


def test_a_torn_end_is_named_by_its_line(path: Path) -> None:
    Journal(path, PLACE).settle(OWNER, [SEEN])
    assert parse(path.read_bytes() + b"77aa", PLACE).problem.startswith("the journal, line 3:")


def test_only_what_is_larger_than_the_limit_is_not_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * MAX_BYTES)
    assert "torn" in read(path, PLACE).problem
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert "larger" in read(path, PLACE).problem
