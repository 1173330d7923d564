"""Which DoubleZero prefixes an EdgeFiltering host may route. Pure.

Their rules match by destination and by source, so a prefix that holds the wrong address would take the host's
own uplink away. A refused one is reported and left out; the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dzagent.ledger.accounts import Device
from dzagent.model import Problem, Protected
from dzagent.policy import Policy
from dzagent.protect import SSH_LOCAL, SSH_PEER, Shield, without
from dzagent.validate import martian, to_network

MAX_PREFIXES = 4096
"""Prefixes looked at and used; each costs two rules, and a fleet of 300 devices has about 400."""

MAX_REPORTED = 32
"""Refusals reported one by one; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The prefixes to route, sorted, and what a person should know about the others."""

    prefixes: tuple[IPv4Network, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Offer:
    """The prefixes of all devices, each with one device that names it, and fields that cannot be read."""

    named: Mapping[IPv4Network, str]
    broken: tuple[Problem, ...]


def choose_prefixes(
    devices: Mapping[str, Device],
    policy: Policy,
    protected: Protected,
    *,
    dz_ip: IPv4Address | None,
    installed: frozenset[IPv4Network] = frozenset(),
    doubtful: bool = False,
) -> Chosen:
    """Choose among the prefixes of all devices, whatever their status (upstream: manager, prefixes of a request).

    protected: with the endpoints of both tunnels. installed: prefixes that our own rules route already; an SSH
    session does not remove them, and if the devices are not all readable (`doubtful`) they stay although no
    readable device names them.
    """
    offer = _offered(devices)
    keep_installed = doubtful or bool(offer.broken)
    wanted = {*offer.named, *(installed if keep_installed else ())}
    # What works comes first, so that a flood of prefixes cannot push it out.
    ordered = sorted(wanted, key=lambda prefix: (prefix not in installed, *_order(prefix)))
    ignore = () if dz_ip is None else (dz_ip,)
    strict, softly = Shield(protected, ignore), Shield(without(protected, SSH_PEER, SSH_LOCAL), ignore)
    used: list[IPv4Network] = []
    refused: list[Problem] = []
    for prefix in ordered[:MAX_PREFIXES]:
        why = _refusal(prefix, policy, softly if prefix in installed else strict)
        if why is None:
            used.append(prefix)
        else:
            refused.append(_problem(why, offer.named.get(prefix)))
    return Chosen(
        tuple(sorted(used, key=_order)), (*_reported([*offer.broken, *refused]), *_flood(len(ordered)))
    )


def _offered(devices: Mapping[str, Device]) -> _Offer:
    named: dict[IPv4Network, str] = {}
    broken: list[Problem] = []
    for account, device in devices.items():
        for net in device.dz_prefixes:
            if net is None:
                broken.append(_problem("an entry of dz_prefixes has a length over 32", account))
            else:
                named.setdefault(to_network(net), account)
    return _Offer(named, tuple(broken))


def _order(prefix: IPv4Network) -> tuple[int, int]:
    """Return what prefixes are sorted by: as they themselves would be, at a tenth of the cost."""
    return int(prefix.network_address), prefix.prefixlen


def _refusal(prefix: IPv4Network, policy: Policy, shield: Shield) -> str | None:
    why = shield.captured(prefix)
    if prefix.prefixlen < policy.prefix_min_length:
        also = f"; it would capture more than it may: {why.rstrip('.')}" if why else ""
        return f"{prefix} is shorter than /{policy.prefix_min_length}, the policy's prefix_min_length{also}"
    wrong = martian(prefix, policy.overlay_block)
    if wrong:
        return f"{prefix} touches {wrong}"
    return why.rstrip(".") if why else None


def _problem(why: str, account: str | None) -> Problem:
    source = f"device {account} names a dz_prefix" if account else "a routed dz_prefix is no longer safe,"
    message = f"{source} that is not routed: {why}; the other prefixes are."
    return Problem("PrefixRefused", message, "unicast", account)


def _reported(problems: list[Problem]) -> tuple[Problem, ...]:
    rest = len(problems) - MAX_REPORTED
    if rest <= 0:
        return tuple(problems)
    more = Problem("PrefixRefused", f"{rest} more dz_prefixes are not routed for such reasons.", "unicast")
    return (*problems[:MAX_REPORTED], more)


def _flood(count: int) -> tuple[Problem, ...]:
    if count <= MAX_PREFIXES:
        return ()
    message = (
        f"the devices name {count} dz_prefixes: only {MAX_PREFIXES} are looked at, the others are not routed."
    )
    return (Problem("TooManyPrefixes", message, "unicast"),)
