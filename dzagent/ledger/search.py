"""What a search for the users of a client IP shows: entries that may be ours, and what spoils it as evidence. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from dzagent.ledger.answers import Listing, Present, Seen, data_of
from dzagent.model import Problem

MAX_FOUND_USERS = 64

SHORTER_BY = 3
SHORT_LISTS = 10
"""Accounts that may vanish between two lists of everything, and lists in a row that make a shorter one true."""

USER_TYPE = 7
CLIENT_IP = slice(116, 120)
_CONFIG_TYPE = 2


@dataclass(frozen=True, slots=True)
class Search:
    """What the searches of one poll found; `sound` says that what they do not list is absent from them."""

    found: Mapping[str, Seen] = field(default_factory=dict)
    sound: bool = False
    problems: tuple[Problem, ...] = ()


class ListLength:
    """Notices a list of everything that was cut: programs close accounts one by one, not by the twentieth part."""

    def __init__(self) -> None:
        self._longest = 0
        self._short = 0

    def sound(self, length: int) -> bool:
        """Take the length of a list in; a list that is much shorter is believed when ten in a row are."""
        if length >= self._longest - max(SHORTER_BY, self._longest // 20) or self._short >= SHORT_LISTS:
            self._longest, self._short = length, 0
            return True
        self._short += 1
        return False


def user_filter(ip: IPv4Address) -> dict[int, bytes]:
    """Return the bytes by offset that every user account of a client IP has."""
    return {0: bytes([USER_TYPE]), CLIENT_IP.start: ip.packed}


def read_search(
    listings: Collection[tuple[IPv4Address, Listing]], expected: Collection[str], newest: int
) -> Search:
    """Put the searches of several client IPs together; `newest` is the slot that they must be newer than.

    An address that two searches list is taken from the later one.
    """
    found: dict[str, Seen] = {}
    problems: list[Problem] = []
    sound = True
    for ip, listing in listings:
        kept, stray = _sort_out(listing, ip, expected)
        sound = sound and listing.slot > newest and not (listing.broken or stray)
        if listing.broken or stray:
            problems.append(broken_entries(f"user search for {ip}", listing.broken + stray))
        found.update(kept)
    return Search(found, sound, tuple(problems))


def broken_entries(what: str, count: int) -> Problem:
    """Report entries that name no account, or none that was asked for."""
    message = f"The {what} has {count} entries that cannot be read; it proves no absence."
    return Problem("BrokenEntries", message)


def _sort_out(listing: Listing, ip: IPv4Address, expected: Collection[str]) -> tuple[dict[str, Seen], int]:
    """Split a search's entries into those that may be users of `ip` and a count of strays.

    A node that honours the filter lists no stray, so one is a garbled account, perhaps ours. A list that holds
    the GlobalConfig was not filtered at all: then strays are other people's accounts.
    """
    kept: dict[str, Seen] = {}
    strays = 0
    unfiltered = any(data_of(seen)[:1] == bytes([_CONFIG_TYPE]) for seen in listing.found.values())
    for address, seen in sorted(listing.found.items(), key=lambda item: (item[0] not in expected, item[0])):
        if address in expected or _may_be_user_of(seen, ip, unfiltered=unfiltered):
            kept[address] = seen
        else:
            strays += not unfiltered
    return dict(list(kept.items())[:MAX_FOUND_USERS]), strays + max(0, len(kept) - MAX_FOUND_USERS)


def _may_be_user_of(seen: Seen, ip: IPv4Address, *, unfiltered: bool) -> bool:
    if not isinstance(seen, Present) or len(seen.data) < CLIENT_IP.stop:
        return not unfiltered
    return seen.data[0] == USER_TYPE and seen.data[CLIENT_IP] == ip.packed
