"""When a user counts as gone. Pure.

A user is removed only by proven absence: both views of the ledger (the search by client IP and the look-up by
address) miss it in `absent_polls` sound polls in a row. A poll is sound if it made the search, its GlobalConfig
could be read, no entry was broken beyond recognition or in another's place, and its slot is newer than the last
poll's. A poll without a search proves no absence; it only sees what is there.

A user at an address that nothing derives is believed only when two answers show it: what is believed once is kept
through everything that cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from dzagent.errors import DecodeError, Unusable
from dzagent.ledger.accounts import Account, User
from dzagent.ledger.answers import Present, Seen, Unreadable
from dzagent.ledger.named import shrunk
from dzagent.ledger.snapshot import Decoder, undecodable
from dzagent.model import Problem


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier polls left behind: good bytes of users, how often each was missed, how often each IP asked.

    `pending` are addresses that one answer showed as users and that a second one must show.
    """

    users: Mapping[str, bytes] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    asked: Mapping[IPv4Address, int] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Views:
    """One poll: what the search listed and what the addresses held. An address not listed is absent there.

    `sound` is False for a poll without a search: then nothing is counted as missed. `derived` are addresses that
    are made of a client IP and a user type, with the type: content of any other user cannot be there. `one_source`
    says that both views are of one answer, so that they confirm nothing of each other.
    """

    ips: Collection[IPv4Address]
    search: Mapping[str, Seen]
    direct: Mapping[str, Seen]
    sound: bool
    derived: Mapping[str, int] = field(default_factory=dict)
    one_source: bool = False


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
    misplaced: bool = False


def judge(known: Known, views: Views, absent_polls: int, decoder: Decoder) -> Verdict:
    """Weigh one poll against what is known; raise Unusable if its two views contradict each other."""
    users: dict[str, bytes] = {}
    missed: dict[str, int] = {}
    problems: list[Problem] = []
    unreadable: set[str] = set()
    pending: set[str] = set()
    addresses = sorted({*views.search, *views.direct, *known.users})
    opinions = {key: _opinion(key, views, known.users.get(key), decoder) for key in addresses}
    sound = views.sound and not any(opinion.misplaced for opinion in opinions.values())
    for address, opinion in opinions.items():
        before = known.users.get(address)
        if opinion.problem:
            problems.append(opinion.problem)
        if opinion.data is not None and before is None and not _confirmed(address, views, known, decoder):
            pending.add(address)
        elif opinion.data is not None:
            users[address] = opinion.data
        elif opinion.why:
            problems.append(undecodable(address, opinion.why))
            if before is None:
                unreadable.add(address)
            else:
                users[address] = before
        elif before is not None:
            # Missed without a search is doubt as well: the next sound poll counts on from where this one was.
            count = known.missed.get(address, 0) + sound
            if count < absent_polls:
                users[address], missed[address] = before, count
                problems.append(_missing(address, count, absent_polls))
    asked = {ip: known.asked.get(ip, 0) + sound for ip in views.ips}
    proven = bool(asked) and min(asked.values()) >= absent_polls
    complete = proven and not missed and not unreadable and not pending
    left = Known(users, missed, asked, frozenset(pending))
    return Verdict(left, tuple(problems), frozenset(unreadable), complete)


def _confirmed(address: str, views: Views, known: Known, decoder: Decoder) -> bool:
    """Tell whether a user that is new may be believed: by its address, by both views, or by a second answer."""
    if address in views.derived or address in known.pending:
        return True
    if views.one_source:
        return False
    sights = [view[address] for view in (views.direct, views.search) if address in view]
    return len(sights) == 2 and all(
        _of_one(address, s, views, None, decoder).data is not None for s in sights
    )


def forget_other_ips(known: Known, ips: Collection[IPv4Address], decoder: Decoder) -> Known:
    """Drop the users of client IPs that are not asked about any more: no view could prove anything of them."""
    users = {k: data for k, data in known.users.items() if _user_ip(k, data, decoder) in ips}
    missed = {k: count for k, count in known.missed.items() if k in users}
    return Known(users, missed, {ip: count for ip, count in known.asked.items() if ip in ips}, known.pending)


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
    opinions = [_of_one(address, seen, views, before, decoder) for seen in sights]
    for opinion in opinions:
        if opinion.data is not None:
            return opinion
    doubts = [opinion for opinion in opinions if opinion.why]
    odd = [opinion for opinion in opinions if opinion.problem]
    return next(iter([*doubts, *odd]), _Opinion())


def _of_one(address: str, seen: Seen, views: Views, before: bytes | None, decoder: Decoder) -> _Opinion:
    if not isinstance(seen, Present):
        return _Opinion(why=seen.why if isinstance(seen, Unreadable) else "")
    try:
        account = decoder(address, seen.data)
        last = None if before is None or before == seen.data else decoder(address, before)
    except DecodeError as error:
        return _Opinion(why=str(error))
    if not isinstance(account, User):
        return _Opinion(why="it is not a user account")
    misplaced = _misplaced(address, account, views, last, known=before is not None)
    if misplaced is not None:
        return misplaced
    if last is not None and shrunk(account, last):
        return _Opinion(why="it was cut short")
    return _Opinion(data=seen.data)


def _misplaced(
    address: str, user: User, views: Views, last: Account | None, *, known: bool
) -> _Opinion | None:
    """Tell what follows if this user cannot be at this address, or is not this host's; None if all is well.

    `last` is what was there before, if that was something else: an account's index never changes.
    """
    kind = views.derived.get(address)
    other = isinstance(last, User) and last.index != user.index
    if other or (kind is not None and user.user_type != kind):
        return _Opinion(why="another user's content is in its place", misplaced=True)
    if user.client_ip in views.ips:
        return None
    if kind is not None and known:
        return _Opinion(why="the content of another client IP's user is in its place", misplaced=True)
    message = f"User {address} is for client IP {user.client_ip}, which is not one of this host's."
    return _Opinion(problem=Problem("MisplacedAccount", message, account=address))


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
