"""What a service may have in the table, whatever a template renders: only rules about its own tunnel. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from dzagent.model import ServiceName
from dzagent.nftmodel import NftChain, NftMatch, NftRule, NftTable, NftVerdict
from dzagent.nftvalues import canonical

LOOPBACK: Final = "lo"
PREFIXES: Final = "prefixes"
"""Name, after the service's, of the set of prefixes that the leak guard holds back."""

MULTIPLE: Final = 2
"""Expressions of the first rule of a chain: one match and a verdict."""


def refusal(part: NftTable, service: ServiceName, link: str, links: Collection[str]) -> str | None:
    """Say why a part of the table is not one that a service may have; None if it may.

    Everything must bear the service's name. The first rule of every chain must let the traffic of other interfaces go:
    `iifname != LINK accept` or the same with oifname; or, for the leak guard, `oifname { lo, our tunnels } accept`,
    after which every rule must be about sources in the set SERVICE_prefixes.
    """
    other = next((name for name in sorted(part.names) if not name.startswith(f"{service}_")), None)
    if other is not None:
        return f"{other}: chains, sets and counters of this file are named {service}_..."
    for chain in part.chains:
        why = _chain_refusal(chain, service, link, links)
        if why is not None:
            return f"chain {chain.name}: {why}"
    return None


def _chain_refusal(chain: NftChain, service: ServiceName, link: str, links: Collection[str]) -> str | None:
    if chain.hook is None or not chain.rules:
        return "a chain needs a hook and at least one rule"
    own = [NftMatch(word, "!=", canonical("name", [link])) for word in ("iifname", "oifname")]
    inside = [NftMatch("oifname", "==", tunnels(some)) for some in ((link,), links)]
    first = chain.rules[0].expressions
    if len(first) == MULTIPLE and first[1] == NftVerdict("accept"):
        if first[0] in own:
            return None
        if first[0] in inside:
            return _leak_refusal(chain.rules[1:], f"@{service}_{PREFIXES}")
    return (
        f"its first rule must leave other interfaces alone: `iifname {own[0].op} {own[0].right} accept`, "
        f"the same with oifname, or `oifname {inside[-1].right} accept`"
    )


def _leak_refusal(rules: Collection[NftRule], prefixes: str) -> str | None:
    needed = NftMatch("ip saddr", "==", prefixes)
    if all(needed in rule.expressions for rule in rules):
        return None
    return f"every rule after the first must have `ip saddr {prefixes}`"


def tunnels(links: Collection[str]) -> str:
    """Return the interfaces by which DoubleZero traffic may leave, as a set of nft."""
    return canonical("name", {LOOPBACK, *links})
