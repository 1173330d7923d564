"""One poll: a few requests, weighed against what earlier polls saw, make one Snapshot.

Per poll: the search for own users (getProgramAccounts, memcmp on type and client IP), then one look-up by
address of everything this host depends on (getMultipleAccounts), then at once what turned out to be named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

from dzagent.errors import DecodeError, LaggingNode, LedgerError, Unusable
from dzagent.ledger.accounts import Account, Device, GlobalConfig, ProgramConfig, User, decode
from dzagent.ledger.answers import Listing, Seen, Sight
from dzagent.ledger.asker import Asker, Genesis
from dzagent.ledger.evidence import Known, Views, forget_other_ips, judge
from dzagent.ledger.named import Named, choose, doubt, named_by_devices, named_by_users
from dzagent.ledger.pda import config_address, program_config_address, user_address
from dzagent.ledger.rpc import RpcClient
from dzagent.ledger.snapshot import Snapshot, build_snapshot, undecodable
from dzagent.model import Problem, UserType, unique

MAX_CLIENT_IPS = 8
MAX_FOUND_USERS = 64
MAX_KNOWN_USERS = 256
DEVICE_LIST_SECONDS = 60.0

ACTIVATED = 1
_A = TypeVar("_A", User, Device, ProgramConfig)
_CONFIG_TYPE, _DEVICE_TYPE, _USER_TYPE = 2, 5, 7
_CLIENT_IP = slice(116, 120)


class Poller(Protocol):
    """Where snapshots come from."""

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        """Return what the ledger grants to these client IPs; raise Unreachable or Unusable."""


class DirectPoller:
    """Polls one ledger through one client; keeps between polls what absence must be proven against.

    `previous` is a snapshot of an earlier process: its users stay until their absence is proven, its slot and
    genesis hash hold. `clock` gives monotonic seconds. A poll that raises leaves everything as it was.
    """

    def __init__(
        self,
        rpc: RpcClient,
        program_id: str,
        absent_polls: int = 2,
        *,
        previous: Snapshot | None = None,
        commitment: str = "finalized",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._program_id = program_id
        self._absent_polls = max(1, absent_polls)
        self._commitment = commitment
        self._clock = clock
        self._config = config_address(program_id)
        self._program = program_config_address(program_id)
        self._decoder = _Cache()
        self._genesis = Genesis(rpc, previous.genesis_hash if previous else "")
        self._slot = previous.slot if previous else -1
        raw = previous.raw if previous else {}
        self._raw: Mapping[str, bytes] = raw
        self._known = Known({key: raw[key] for key in (previous.users if previous else ()) if key in raw})
        self._devices = _Devices(
            {key: raw[key] for key in (previous.devices if previous else ()) if key in raw}
        )

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        """Return the newest sound picture.

        Raises LaggingNode for an answer older than one seen before, LedgerChanged for another ledger, and
        Unreachable or Unusable for anything else that leaves no picture.
        """
        try:
            return self._poll(unique(client_ips))
        except LaggingNode:
            # Perhaps it is not late but another ledger: the next poll asks who it is.
            self._genesis.doubt()
            raise

    def _poll(self, asked_ips: Sequence[IPv4Address]) -> Snapshot:
        ips = asked_ips[:MAX_CLIENT_IPS]
        asker = Asker(self._rpc, self._program_id, self._commitment, self._slot)
        self._genesis.greet()
        known = forget_other_ips(self._known, ips, self._decoder)
        addresses = self._user_addresses(ips)
        search = self._search(asker, ips, {*addresses, *known.users})
        users = {*addresses, *search.found, *known.users}
        guesses = self._guesses({**known.users, **_present(search.found)})
        held = asker.accounts([self._config, self._program, *sorted(users), *guesses])
        self._require_config(held[self._config])
        views = Views(ips, search.found, {key: held[key] for key in users}, search.sound)
        verdict = judge(known, views, self._absent_polls, self._decoder)
        if len(verdict.known.users) > MAX_KNOWN_USERS:
            raise Unusable("The answer is not usable: it names more users for this host than there can be.")
        named = self._named(asker, held, verdict.known.users)
        devices = self._all_devices(asker, verdict.known.users)
        for endpoint in asker.endpoints:
            self._genesis.check(endpoint)
        program, program_problems = self._program_config(held[self._program])
        raw = {
            self._config: held[self._config].data,
            **program,
            **verdict.known.users,
            **devices.good,
            **named.good,
        }
        snapshot = build_snapshot(
            raw.items(), slot=asker.slot, genesis_hash=self._genesis.hash, decoder=self._decoder
        )
        self._raw, self._known, self._devices, self._slot = raw, verdict.known, devices, asker.slot
        self._decoder.keep(raw)
        return replace(
            snapshot,
            problems=(
                *_too_many(asked_ips),
                *search.problems,
                *snapshot.problems,
                *verdict.problems,
                *named.problems,
                *devices.problems,
                *program_problems,
            ),
            unreadable=snapshot.unreadable | verdict.unreadable | named.unreadable,
            complete=verdict.complete,
        )

    def _user_addresses(self, ips: Iterable[IPv4Address]) -> list[str]:
        return [user_address(self._program_id, ip, kind) for ip in ips for kind in UserType]

    def _search(self, asker: Asker, ips: Iterable[IPv4Address], expected: Collection[str]) -> _Search:
        """Search the users of each IP; an address that two searches list is taken from the newer answer."""
        found: dict[str, Seen] = {}
        problems: list[Problem] = []
        sound = True
        for ip in ips:
            listing = asker.listing({0: bytes([_USER_TYPE]), _CLIENT_IP.start: ip.packed})
            kept, stray = _sort_out(listing, ip, expected)
            sound = sound and listing.slot > self._slot and not (listing.broken or stray)
            if listing.broken or stray:
                problems.append(_broken(f"user search for {ip}", listing.broken + stray))
            found.update(kept)
        return _Search(found, sound, tuple(problems))

    def _guesses(self, users: Mapping[str, bytes]) -> list[str]:
        """Return what these users name and what their devices named last time, so that one request may do."""
        kinds = named_by_users(_read(users, User, self._decoder).values())
        devices = {key: self._raw[key] for key, kind in kinds.items() if kind is Device and key in self._raw}
        return [*kinds, *named_by_devices(_read(devices, Device, self._decoder).values())]

    def _named(self, asker: Asker, held: dict[str, Seen], users: Mapping[str, bytes]) -> Named:
        """Choose what users name, then what the chosen devices name; asks at once for what is not held yet."""
        kinds = named_by_users(_read(users, User, self._decoder).values())
        held.update(asker.accounts(key for key in kinds if key not in held))
        first = choose(self._raw, held, kinds, self._decoder)
        devices = _read(first.good, Device, self._decoder).values()
        exchanges = {key: kind for key, kind in named_by_devices(devices).items() if key not in kinds}
        held.update(asker.accounts(key for key in exchanges if key not in held))
        second = choose(self._raw, held, exchanges, self._decoder)
        return Named(
            good={**first.good, **second.good},
            problems=(*first.problems, *second.problems),
            unreadable=first.unreadable | second.unreadable,
        )

    def _all_devices(self, asker: Asker, users: Mapping[str, bytes]) -> _Devices:
        """Keep the list of all devices fresh while an activated EdgeFiltering user needs their prefixes."""
        now = self._clock()
        if not any(_needs_devices(user) for user in _read(users, User, self._decoder).values()):
            return _Devices()
        last = self._devices
        if last.listed_at is not None and now - last.listed_at < DEVICE_LIST_SECONDS:
            return last
        try:
            listing = asker.listing({0: bytes([_DEVICE_TYPE])})
        except LedgerError as error:
            if last.listed_at is None:
                raise
            message = f"The list of all devices could not be refreshed, the last one stays in use: {error}"
            return replace(last, problems=(Problem("StaleDeviceList", message),))
        return self._weigh_devices(last, listing, now)

    def _weigh_devices(self, last: _Devices, listing: Listing, now: float) -> _Devices:
        """Take a list in; a device that it misses stays until `absent_polls` sound lists in a row miss it."""
        seen = {k: v for k, v in listing.found.items() if k in last.good or v.data[:1] in {b"", b"\x05"}}
        chosen = choose(last.good, seen, dict.fromkeys(seen, Device), self._decoder)
        sound = listing.slot > last.slot and not listing.broken
        missed = {key: last.missed.get(key, 0) + sound for key in last.good if key not in seen}
        kept = {key: last.good[key] for key, count in missed.items() if count < self._absent_polls}
        broken = (_broken("device list", listing.broken),) if listing.broken else ()
        return _Devices(
            good={**kept, **chosen.good},
            missed={key: missed[key] for key in kept},
            problems=(*broken, *chosen.problems),
            listed_at=now,
            slot=listing.slot,
        )

    def _require_config(self, seen: Seen) -> None:
        """Refuse an answer without a readable GlobalConfig: then nothing else in it can be trusted either."""
        why = doubt(self._config, seen, GlobalConfig, self._raw.get(self._config), self._decoder)
        if why is not None:
            raise Unusable(f"The answer is not usable: its GlobalConfig account cannot be read ({why}).")

    def _program_config(self, seen: Seen) -> tuple[dict[str, bytes], tuple[Problem, ...]]:
        """Keep the ProgramConfig if it can be read; it is only shown to people."""
        if seen.sight is Sight.ABSENT:
            return {}, ()
        why = doubt(self._program, seen, ProgramConfig, None, self._decoder)
        if why is not None:
            return {}, (undecodable(self._program, why),)
        return {self._program: seen.data}, ()


@dataclass(frozen=True, slots=True)
class _Search:
    found: Mapping[str, Seen]
    sound: bool
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Devices:
    """The last list of all devices; `listed_at` in monotonic seconds, None for never."""

    good: Mapping[str, bytes] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    listed_at: float | None = None
    slot: int = -1


class _Cache:
    """Decodes an account only if its bytes changed: a device costs 0.2 ms, and there are hundreds."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[bytes, Account]] = {}

    def __call__(self, address: str, data: bytes) -> Account:
        cached = self._seen.get(address)
        if cached is not None and cached[0] == data:
            return cached[1]
        account = decode(data)
        self._seen[address] = (data, account)
        return account

    def keep(self, addresses: Collection[str]) -> None:
        """Forget all other addresses."""
        self._seen = {key: value for key, value in self._seen.items() if key in addresses}


def _sort_out(listing: Listing, ip: IPv4Address, expected: Collection[str]) -> tuple[dict[str, Seen], int]:
    """Split a search's entries into those that may be users of `ip` and a count of strays.

    A node that honours the filter lists no stray, so one is a garbled account, perhaps ours. A list that holds
    the GlobalConfig was not filtered at all: then strays are other people's accounts.
    """
    kept: dict[str, Seen] = {}
    strays = 0
    unfiltered = any(seen.data[:1] == bytes([_CONFIG_TYPE]) for seen in listing.found.values())
    for address, seen in sorted(listing.found.items(), key=lambda item: (item[0] not in expected, item[0])):
        if address in expected or _may_be_user_of(seen, ip, unfiltered=unfiltered):
            kept[address] = seen
        else:
            strays += not unfiltered
    return dict(list(kept.items())[:MAX_FOUND_USERS]), strays + max(0, len(kept) - MAX_FOUND_USERS)


def _may_be_user_of(seen: Seen, ip: IPv4Address, *, unfiltered: bool) -> bool:
    if seen.sight is Sight.UNREADABLE or len(seen.data) < _CLIENT_IP.stop:
        return not unfiltered
    return seen.data[0] == _USER_TYPE and seen.data[_CLIENT_IP] == ip.packed


def _needs_devices(user: User) -> bool:
    return user.user_type == UserType.EDGE_FILTERING and user.status == ACTIVATED


def _present(seen: Mapping[str, Seen]) -> dict[str, bytes]:
    return {key: one.data for key, one in seen.items() if one.sight is Sight.PRESENT}


def _read(
    raw: Mapping[str, bytes], kind: type[_A], decoder: Callable[[str, bytes], Account]
) -> dict[str, _A]:
    """Decode those accounts that are of one type; the others are reported elsewhere."""
    found: dict[str, _A] = {}
    for address, data in raw.items():
        try:
            account = decoder(address, data)
        except DecodeError:
            continue
        if isinstance(account, kind):
            found[address] = account
    return found


def _broken(what: str, count: int) -> Problem:
    message = f"The {what} has {count} entries that cannot be read; it proves no absence."
    return Problem("BrokenEntries", message)


def _too_many(ips: Sequence[IPv4Address]) -> tuple[Problem, ...]:
    if len(ips) <= MAX_CLIENT_IPS:
        return ()
    message = f"{len(ips)} client IPs came into question; only the first {MAX_CLIENT_IPS} are looked up."
    return (Problem("TooManyClientIps", message),)
