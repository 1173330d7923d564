"""When a user counts as gone. Pure.

A user is removed only by proven absence: both views of the ledger (the search by client IP and the look-up by
address) miss it in `absent_polls` sound polls in a row. A poll is sound if it made the search, its GlobalConfig
could be read, no listed entry was broken beyond recognition, and its slot is newer than the last poll's. A poll
without a search proves no absence; it only sees what is there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from dzagent.errors import DecodeError, Unusable
from dzagent.ledger.accounts import User
from dzagent.ledger.answers import Absent, Present, Seen, Unreadable
from dzagent.ledger.named import shrunk
from dzagent.ledger.snapshot import Decoder, undecodable
from dzagent.model import Problem


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier polls left behind: good bytes of users, how often each was missed, how often each IP asked."""

    users: Mapping[str, bytes] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    asked: Mapping[IPv4Address, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Views:
    """One poll: what the search listed and what the addresses held. An address not listed is absent there.

    `sound` is False for a poll without a search: then nothing is counted as missed.
    """

    ips: Collection[IPv4Address]
    search: Mapping[str, Seen]
    direct: Mapping[str, Seen]
    sound: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a poll leaves behind, and what it says: `unreadable` users were never readable before."""

    known: Known
    problems: tuple[Problem, ...] = ()
    unreadable: frozenset[str] = frozenset()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class _Opinion:
    """One address after both views are heard: bytes if it holds a user of ours, else why it cannot be read."""

    data: bytes | None = None
    why: str = ""
    problem: Problem | None = None


def judge(known: Known, views: Views, absent_polls: int, decoder: Decoder) -> Verdict:
    """Weigh one poll against what is known; raise Unusable if its two views contradict each other."""
    users: dict[str, bytes] = {}
    missed: dict[str, int] = {}
    problems: list[Problem] = []
    unreadable: set[str] = set()
    for address in sorted({*views.search, *views.direct, *known.users}):
        before = known.users.get(address)
        opinion = _opinion(address, views, before, decoder)
        if opinion.problem:
            problems.append(opinion.problem)
        if opinion.data is not None:
            users[address] = opinion.data
        elif opinion.why:
            problems.append(undecodable(address, opinion.why))
            if before is None:
                unreadable.add(address)
            else:
                users[address] = before
        elif before is not None:
            # Missed without a search is doubt as well: the next sound poll counts on from where this one was.
            count = known.missed.get(address, 0) + views.sound
            if count < absent_polls:
                users[address], missed[address] = before, count
                problems.append(_missing(address, count, absent_polls))
    asked = {ip: known.asked.get(ip, 0) + views.sound for ip in views.ips}
    proven = bool(asked) and min(asked.values()) >= absent_polls
    complete = proven and not missed and not unreadable
    return Verdict(Known(users, missed, asked), tuple(problems), frozenset(unreadable), complete)


def forget_other_ips(known: Known, ips: Collection[IPv4Address], decoder: Decoder) -> Known:
    """Drop the users of client IPs that are not asked about any more: no view could prove anything of them."""
    users = {k: data for k, data in known.users.items() if _user_ip(k, data, decoder) in ips}
    missed = {k: count for k, count in known.missed.items() if k in users}
    return Known(users, missed, {ip: count for ip, count in known.asked.items() if ip in ips})


def _user_ip(address: str, data: bytes, decoder: Decoder) -> IPv4Address | None:
    try:
        account = decoder(address, data)
    except DecodeError:
        return None
    return account.client_ip if isinstance(account, User) else None


def _opinion(address: str, views: Views, before: bytes | None, decoder: Decoder) -> _Opinion:
    """Hear the look-up first; a user in either view is present, a doubt in either is no absence."""
    sights = [seen for view in (views.direct, views.search) if (seen := view.get(address))]
    sights.sort(key=lambda seen: -seen.slot)
    _refuse_contradiction(address, sights)
    opinions = [_of_one(address, seen, views.ips, before, decoder) for seen in sights]
    for opinion in opinions:
        if opinion.data is not None:
            return opinion
    doubts = [opinion for opinion in opinions if opinion.why]
    odd = [opinion for opinion in opinions if opinion.problem]
    return next(iter([*doubts, *odd]), _Opinion())


def _of_one(
    address: str, seen: Seen, ips: Collection[IPv4Address], before: bytes | None, decoder: Decoder
) -> _Opinion:
    if isinstance(seen, Unreadable):
        return _Opinion(why=seen.why)
    if isinstance(seen, Absent):
        return _Opinion()
    try:
        account = decoder(address, seen.data)
        cut = before not in {None, seen.data} and shrunk(account, decoder(address, before or b""))
    except DecodeError as error:
        return _Opinion(why=str(error))
    if not isinstance(account, User):
        return _Opinion(why="it is not a user account")
    if account.client_ip not in ips:
        message = f"User {address} is for client IP {account.client_ip}, which is not one of this host's."
        return _Opinion(problem=Problem("MisplacedAccount", message, account=address))
    return _Opinion(why="it was cut short") if cut else _Opinion(data=seen.data)


def _refuse_contradiction(address: str, sights: list[Seen]) -> None:
    present = [seen for seen in sights if isinstance(seen, Present)]
    if len(present) == 2 and present[0].slot == present[1].slot and present[0].data != present[1].data:
        raise Unusable(
            f"The answers are not usable: they give account {address} two contents at slot {present[0].slot}."
        )


def _missing(address: str, count: int, absent_polls: int) -> Problem:
    message = (
        f"User {address} is missing from the ledger's answers ({count} of {absent_polls} sound ones in a row); "
        "its service stays until its absence is proven."
    )
    return Problem("AbsenceUnproven", message, account=address)
