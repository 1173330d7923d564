"""One poll: a few requests, weighed against what earlier polls saw, make one Snapshot.

A steady poll is one getMultipleAccounts of everything this host depends on. The search for own users
(getProgramAccounts, memcmp on type and client IP) is made once a minute, and at once when a user is missed. A
server that refuses these is asked for the whole program instead, and asked again for less from time to time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Protocol

from dzagent.errors import (
    LaggingNode,
    LedgerError,
    MethodRefused,
    SlotLeap,
    Unusable,
    WrongProgram,
)
from dzagent.ledger.accounts import Account, Device, GlobalConfig, ProgramConfig, User
from dzagent.ledger.answers import Absent, Listing, Present, Seen, data_of
from dzagent.ledger.asker import Asker, Genesis
from dzagent.ledger.decoding import DecodeCache, present, read_as
from dzagent.ledger.devicelist import DEVICE_FILTER, DeviceList, only_devices
from dzagent.ledger.evidence import Known, Verdict, Views, forget_other_ips, judge
from dzagent.ledger.named import Named, choose, doubt, named_by_devices, named_by_users
from dzagent.ledger.pda import config_address, program_config_address, user_address
from dzagent.ledger.search import ListLength, Search, read_search, user_filter
from dzagent.ledger.slots import Slots
from dzagent.ledger.snapshot import Snapshot, build_snapshot, undecodable
from dzagent.ledger.transport import RpcClient
from dzagent.model import Problem, UserType, unique

MAX_CLIENT_IPS = 8
MAX_KNOWN_USERS = 256
FULL_SECONDS = 300.0
"""How long a server that refused the cheap requests is asked for everything before it is asked for less again."""

ACTIVATED = 1
_Lookup = Callable[[Iterable[str]], Mapping[str, Seen]]


class Poller(Protocol):
    """Where snapshots come from."""

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        """Return what the ledger grants to these client IPs; raise Unreachable or Unusable."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between searches for own users and between lists of all devices; `jitter` is a factor around 1."""

    search: float = 60.0
    devices: float = 120.0
    jitter: Callable[[], float] = lambda: 1.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one poll took: requests, and bytes of bodies on the wire. `mode` is direct or full."""

    mode: str = "direct"
    requests: int = 0
    sent: int = 0
    received: int = 0
    searched: bool = False


@dataclass(frozen=True, slots=True)
class _Reading:
    """The views of one poll: the search, None if it was not made, what the addresses hold, and a way to see more."""

    search: Search | None
    held: dict[str, Seen]
    users: Collection[str]
    lookup: _Lookup
    devices: Callable[[], Listing]
    one_source: bool = False


class DirectPoller:
    """Polls one ledger through one client; keeps between polls what absence must be proven against.

    `previous` is a snapshot of an earlier process: its users stay until their absence is proven, its slot and
    genesis hash hold. `clock` gives monotonic seconds. `full_fetch` asks for everything always. A poll that
    raises leaves everything as it was.
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
        pace: Pace | None = None,
        full_fetch: bool = False,
    ) -> None:
        self._rpc = rpc
        self._program_id = program_id
        self._absent_polls = max(1, absent_polls)
        self._commitment = commitment
        self._clock = clock
        self._pace = pace or Pace()
        self._config = config_address(program_id)
        self._program = program_config_address(program_id)
        self._decoder = DecodeCache()
        self._full_until = float("inf") if full_fetch else float("-inf")
        self._refusal = ""
        self._cost = Cost()
        self._start(previous)

    def _start(self, previous: Snapshot | None) -> None:
        raw: Mapping[str, bytes] = previous.raw if previous else {}
        users, devices = (previous.users, previous.devices) if previous else ({}, {})
        self._genesis = Genesis(self._rpc, previous.genesis_hash if previous else "")
        self._slots = Slots(previous.slot if previous else -1, self._clock())
        self._raw = raw
        self._known = Known({key: raw[key] for key in users if key in raw})
        self._devices = DeviceList({key: raw[key] for key in devices if key in raw})
        self._last: Snapshot | None = None
        self._search_at = float("-inf")
        self._length = ListLength()
        # The clock of an earlier process says nothing about how far slots may have gone.
        self._leap_ok = previous is not None

    @property
    def cost(self) -> Cost:
        """What the last poll took, whether it succeeded or not."""
        return self._cost

    @property
    def refusal(self) -> str:
        """Why everything is fetched, "" if it is not or if the configuration says so."""
        return self._refusal

    def forget(self) -> None:
        """Forget this ledger: its hash, its slots, its users. The next answer is the first one."""
        self._start(None)
        self._decoder.keep(())

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        """Return the newest sound picture.

        Raises LaggingNode for an answer older than one seen before, LedgerChanged for another ledger, and
        Unreachable or Unusable for anything else that leaves no picture.
        """
        before = self._rpc.traffic
        self._cost = Cost()
        try:
            return self._poll_some_way(unique(client_ips))
        except LaggingNode as error:
            # Perhaps it is not late but another ledger: the next poll asks who it is.
            self._genesis.doubt()
            self._rpc.blame(error)
            raise
        except SlotLeap as error:
            self._slots = self._slots.leapt(error.slot, self._clock())
            self._rpc.blame(error)
            raise
        finally:
            now = self._rpc.traffic
            self._cost = replace(
                self._cost,
                requests=now.requests - before.requests,
                sent=now.sent - before.sent,
                received=now.received - before.received,
            )

    # ---- the two ways ----------------------------------------------------------------------------------

    def _poll_some_way(self, ips: Sequence[IPv4Address]) -> Snapshot:
        """Ask for little; where that is refused ask for everything, and for little again after a while."""
        if self._clock() < self._full_until:
            return self._poll(ips, self._read_everything)
        try:
            snapshot = self._poll(ips, self._read_little)
        except MethodRefused as error:
            snapshot = self._poll(ips, self._read_everything)
            self._full_until, self._refusal = self._clock() + FULL_SECONDS, str(error)
        else:
            self._refusal = ""
        return snapshot

    def _read_little(self, asker: Asker, ips: Sequence[IPv4Address], known: Known) -> _Reading:
        search = None
        expected = {*self._derived(ips), *known.users}
        if self._search_due(ips, known):
            search = self._search(asker, ips, expected)
        users = {*expected, *(search.found if search else ())}
        guesses = self._guesses({**known.users, **present(search.found if search else {})})
        held = asker.accounts([self._config, self._program, *sorted(users), *guesses])
        if search is None and any(isinstance(held[key], Absent) for key in known.users):
            search = self._search(asker, ips, expected)
            held.update(asker.accounts(key for key in search.found if key not in held))
            users |= search.found.keys()
        self._cost = Cost("direct", searched=search is not None)
        return _Reading(search, held, users, asker.accounts, lambda: asker.listing(DEVICE_FILTER))

    def _search(self, asker: Asker, ips: Iterable[IPv4Address], expected: Collection[str]) -> Search:
        listings = [(ip, asker.listing(user_filter(ip))) for ip in ips]
        return read_search(listings, expected, self._slots.slot)

    def _search_due(self, ips: Sequence[IPv4Address], known: Known) -> bool:
        """The search is due once a minute, and as long as presence or absence of a client IP is not proven."""
        unproven = any(known.asked.get(ip, 0) < self._absent_polls for ip in ips)
        return bool(ips) and (unproven or bool(known.missed) or self._clock() >= self._search_at)

    def _read_everything(self, asker: Asker, ips: Sequence[IPv4Address], known: Known) -> _Reading:
        """Both views come from one list: what it does not hold is absent from the addresses as well."""
        listing = asker.everything()
        expected = {*self._derived(ips), *known.users}
        search = read_search([(ip, listing) for ip in ips], expected, self._slots.slot)

        def lookup(addresses: Iterable[str]) -> Mapping[str, Seen]:
            return {key: listing.found.get(key, Absent(listing.slot)) for key in addresses}

        users = expected | search.found.keys()
        held = dict(lookup([self._config, self._program, *users]))
        self._cost = Cost("full", searched=True)
        if not self._length.sound(len(listing.found)):
            search = replace(search, sound=False)
        return _Reading(search, held, users, lookup, lambda: only_devices(listing), one_source=True)

    # ---- one poll ----------------------------------------------------------------------------------------

    def _poll(
        self,
        asked_ips: Sequence[IPv4Address],
        read: Callable[[Asker, Sequence[IPv4Address], Known], _Reading],
    ) -> Snapshot:
        ips = asked_ips[:MAX_CLIENT_IPS]
        limit = None if self._leap_ok else self._slots.limit(self._clock())
        asker = Asker(self._rpc, self._program_id, self._commitment, self._slots.slot, limit)
        self._genesis.greet()
        reading = read(asker, ips, forget_other_ips(self._known, ips, self._decoder))
        held = reading.held
        self._require_config(held[self._config], held[self._program])
        verdict = self._judge(ips, reading)
        named = self._named(reading.lookup, held, verdict.known.users)
        devices = self._all_devices(reading.devices, verdict.known.users)
        for endpoint in asker.endpoints:
            self._genesis.check(endpoint)
        program, program_problems = self._program_config(held[self._program])
        raw = {
            self._config: data_of(held[self._config]),
            **program,
            **verdict.known.users,
            **devices.good,
            **named.good,
        }
        snapshot = self._build(raw, asker.slot)
        self._take_in(snapshot, verdict.known, devices, searched=reading.search is not None)
        search_problems = reading.search.problems if reading.search else ()
        return replace(
            snapshot,
            problems=(
                *_too_many(asked_ips),
                *search_problems,
                *snapshot.problems,
                *verdict.problems,
                *named.problems,
                *devices.problems,
                *program_problems,
            ),
            unreadable=snapshot.unreadable | verdict.unreadable | named.unreadable,
            complete=verdict.complete,
        )

    def _judge(self, ips: Sequence[IPv4Address], reading: _Reading) -> Verdict:
        search, held = reading.search or Search(), reading.held
        newer = held[self._config].slot > self._slots.slot
        known = forget_other_ips(self._known, ips, self._decoder)
        direct = {key: held[key] for key in reading.users}
        sound = search.sound and newer and not self._garbled(held)
        views = Views(ips, search.found, direct, sound, self._derived(ips), reading.one_source)
        verdict = judge(known, views, self._absent_polls, self._decoder)
        if len(verdict.known.users) > MAX_KNOWN_USERS:
            raise Unusable("The answer is not usable: it names more users for this host than there can be.")
        return verdict

    def _garbled(self, held: Mapping[str, Seen]) -> bool:
        """Tell whether an account that is no user stands in another one's place: then others may as well."""
        kinds: dict[str, type[Account]] = {self._program: ProgramConfig}
        kinds.update((key, type(one)) for key, one in self._named_before())
        return any(
            isinstance(held.get(key), Present)
            and doubt(key, held[key], kind, self._raw.get(key), self._decoder) is not None
            for key, kind in kinds.items()
        )

    def _named_before(self) -> Iterable[tuple[str, Account]]:
        last = self._last
        if last is None:
            return ()
        return (*last.groups.items(), *last.tenants.items(), *last.exchanges.items(), *last.devices.items())

    def _build(self, raw: Mapping[str, bytes], slot: int) -> Snapshot:
        """Decode the picture; where no byte changed, the last one is good for the new slot too."""
        if self._last is not None and raw == self._raw:
            return replace(self._last, slot=slot)
        return build_snapshot(raw.items(), slot=slot, genesis_hash=self._genesis.hash, decoder=self._decoder)

    def _take_in(self, snapshot: Snapshot, known: Known, devices: DeviceList, *, searched: bool) -> None:
        now = self._clock()
        self._raw, self._known, self._devices, self._last = snapshot.raw, known, devices, snapshot
        self._slots = self._slots.believe(snapshot.slot, now)
        self._leap_ok = False
        if searched:
            self._search_at = now + self._pace.search * self._pace.jitter()
        self._decoder.keep(snapshot.raw)

    def _derived(self, ips: Iterable[IPv4Address]) -> dict[str, int]:
        """Return where the users of these client IPs are today, each with its type."""
        return {user_address(self._program_id, ip, kind): kind for ip in ips for kind in UserType}

    def _guesses(self, users: Mapping[str, bytes]) -> list[str]:
        """Return what these users name and what their devices named last time, so that one request may do."""
        kinds = named_by_users(read_as(users, User, self._decoder).values())
        devices = {key: self._raw[key] for key, kind in kinds.items() if kind is Device and key in self._raw}
        return [*kinds, *named_by_devices(read_as(devices, Device, self._decoder).values())]

    def _named(self, lookup: _Lookup, held: dict[str, Seen], users: Mapping[str, bytes]) -> Named:
        """Choose what users name, then what the chosen devices name; asks at once for what is not held yet."""
        kinds = named_by_users(read_as(users, User, self._decoder).values())
        held.update(lookup(key for key in kinds if key not in held))
        first = choose(self._raw, held, kinds, self._decoder)
        devices = read_as(first.good, Device, self._decoder).values()
        exchanges = {key: kind for key, kind in named_by_devices(devices).items() if key not in kinds}
        held.update(lookup(key for key in exchanges if key not in held))
        second = choose(self._raw, held, exchanges, self._decoder)
        return Named(
            good={**first.good, **second.good},
            problems=(*first.problems, *second.problems),
            unreadable=first.unreadable | second.unreadable,
        )

    def _all_devices(self, ask: Callable[[], Listing], users: Mapping[str, bytes]) -> DeviceList:
        """Keep the list of all devices fresh while an activated EdgeFiltering user needs their prefixes."""
        now, last = self._clock(), self._devices
        if not any(_needs_devices(user) for user in read_as(users, User, self._decoder).values()):
            return DeviceList()
        if not last.due(now):
            return last
        try:
            listing = ask()
        except (LaggingNode, MethodRefused):
            raise
        except LedgerError as error:
            if last.due_at is None:
                raise
            return last.failed(error, now)
        due_at = now + self._pace.devices * self._pace.jitter()
        return last.weigh(listing, self._decoder, self._absent_polls, due_at)

    def _require_config(self, seen: Seen, program: Seen) -> None:
        """Refuse an answer without a readable GlobalConfig: then nothing else in it can be trusted either."""
        why = doubt(self._config, seen, GlobalConfig, self._raw.get(self._config), self._decoder)
        if why is None:
            return
        if isinstance(seen, Absent) and isinstance(program, Absent) and not self._raw:
            raise WrongProgram(
                f"RPC endpoint {self._rpc.endpoint} has no GlobalConfig of program {self._program_id}: this is another "
                "network's RPC, or program_id is wrong."
            )
        raise Unusable(f"The answer is not usable: its GlobalConfig account cannot be read ({why}).")

    def _program_config(self, seen: Seen) -> tuple[dict[str, bytes], tuple[Problem, ...]]:
        """Keep the ProgramConfig if it can be read; it is only shown to people."""
        if isinstance(seen, Absent):
            return {}, ()
        why = doubt(self._program, seen, ProgramConfig, None, self._decoder)
        if why is not None:
            return {}, (undecodable(self._program, why),)
        return {self._program: data_of(seen)}, ()


def _needs_devices(user: User) -> bool:
    return user.user_type == UserType.EDGE_FILTERING and user.status == ACTIVATED


def _too_many(ips: Sequence[IPv4Address]) -> tuple[Problem, ...]:
    if len(ips) <= MAX_CLIENT_IPS:
        return ()
    message = f"{len(ips)} client IPs came into question; only the first {MAX_CLIENT_IPS} are looked up."
    return (Problem("TooManyClientIps", message),)
