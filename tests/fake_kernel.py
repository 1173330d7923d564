"""A kernel in memory, with the habits of the real one that matter to a plan.

Measured on Linux 6.1 and 6.18: an exclusive add fails for any holder of the key; `replace` takes over
whoever holds it; route and rule deletes honour the protocol; a rule with another protocol is a second rule;
a link that goes down or away takes its routes along; an address that goes takes the routes with it as
source along; two GRE links cannot have one pair of endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from dzagent.errors import KernelError
from dzagent.kernel.observe import reads
from dzagent.model import (
    Action,
    Address,
    Interest,
    Link,
    Observed,
    Outcome,
    Result,
    Route,
    Rule,
    SeenLink,
    Step,
    key,
)

Answer = tuple[Result, str]
DONE: Answer = (Result.DONE, "")


@dataclass
class Fault:
    """Makes the next step that fits fail, once. `error` raises instead, as if the tool could not start."""

    fits: Callable[[Step], bool]
    result: Result = Result.TRANSIENT
    error: KernelError | None = None


@dataclass
class FakeKernel:
    """Implements `Kernel`. `applied` records every step that was tried, in order."""

    links: dict[str, SeenLink] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    sources: dict[IPv4Address, IPv4Address] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    applied: list[Step] = field(default_factory=list)
    observe_error: KernelError | None = None
    observations: int = 0
    next_index: int = 100

    # ---- Kernel --------------------------------------------------------------------------------------------

    def observe(self, interest: Interest) -> Observed:
        self.observations += 1
        if self.observe_error is not None:
            raise self.observe_error
        keys = set(reads(interest))
        routes = [r for r in self.routes if r.protocol == interest.protocol or (r.table, r.dst) in keys]
        return Observed(
            tuple(self.links.values()), tuple(self.addresses), tuple(dict.fromkeys(routes)), tuple(self.rules)
        )

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        outcomes = []
        for step in steps:
            self.applied.append(step)
            result, message = self._fault(step) or self._do(step)
            outcomes.append(Outcome(step, result, message))
        return tuple(outcomes)

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        return self.sources.get(dst)

    # ---- what somebody else does ---------------------------------------------------------------------------

    def add_link(self, link: Link, kind: str = "gre") -> SeenLink:
        """Put a link there, whoever owns it."""
        self.next_index += 1
        tunnel = link if kind == "gre" else None
        seen = SeenLink(link.name, self.next_index, kind, link.up, link.mtu, link.alias, tunnel)
        self.links[link.name] = seen
        return seen

    def delete_link(self, name: str) -> None:
        del self.links[name]
        self.addresses = [a for a in self.addresses if a.dev != name]
        self.routes = [r for r in self.routes if r.dev != name]

    def set_link(self, link: Link) -> None:
        """Change a GRE link in place; one that goes down loses its routes."""
        seen = self.links[link.name]
        self.links[link.name] = replace(seen, up=link.up, mtu=link.mtu, alias=link.alias, tunnel=link)
        if not link.up:
            self.routes = [r for r in self.routes if r.dev != link.name]

    def remove_address(self, address: Address) -> None:
        self.addresses.remove(address)
        if not self._is_local(address.interface.ip):
            self.routes = [r for r in self.routes if r.src != address.interface.ip]

    # ---- steps ---------------------------------------------------------------------------------------------

    def _fault(self, step: Step) -> Answer | None:
        for fault in self.faults:
            if fault.fits(step):
                self.faults.remove(fault)
                if fault.error is not None:
                    raise fault.error
                return fault.result, "injected"
        return None

    def _do(self, step: Step) -> Answer:
        obj = step.target
        if isinstance(obj, Link):
            return self._link(step, obj)
        if isinstance(obj, Address):
            return self._address(step, obj)
        if isinstance(obj, Route):
            return self._route(step, obj)
        assert isinstance(obj, Rule)
        return self._rule(step, obj)

    def _link(self, step: Step, link: Link) -> Answer:
        there = link.name in self.links
        if step.action is Action.DELETE:
            if there:
                self.delete_link(link.name)
            return DONE if there else (Result.GONE, "Cannot find device")
        if there != (step.action is Action.CHANGE):
            return Result.RACED, "File exists" if there else "Cannot find device"
        pairs = [
            (s.tunnel.local, s.tunnel.remote)
            for s in self.links.values()
            if s.tunnel and s.name != link.name and not any("key " in token for token in s.tunnel.extra)
        ]
        if (link.local, link.remote) in pairs:
            return Result.RACED, "File exists"
        if there:
            self.set_link(link)
        else:
            self.add_link(link)
        return DONE

    def _address(self, step: Step, address: Address) -> Answer:
        if address.dev not in self.links:
            gone = step.action is Action.DELETE
            return (Result.GONE if gone else Result.TRANSIENT), "Cannot find device"
        if step.action is not Action.ADD:
            held = [a for a in self.addresses if _slot(a) == _slot(step.before)]
            if not held:
                return (Result.GONE if step.action is Action.DELETE else Result.RACED), "Address not found"
            self.remove_address(held[0])
        if step.action is Action.DELETE:
            return DONE
        if any(_slot(a) == _slot(address) for a in self.addresses):
            return Result.RACED, "Address already assigned"
        self.addresses.append(address)
        return DONE

    def _route(self, step: Step, route: Route) -> Answer:
        if step.action is Action.DELETE:
            found = next((r for r in self.routes if _deletes(route, r)), None)
            if found is None:
                return Result.GONE, "No such process"
            self.routes.remove(found)
            return DONE
        problem = self._unusable(route)
        if problem:
            return Result.TRANSIENT, problem
        holder = next((n for n, r in enumerate(self.routes) if key(r) == key(route)), None)
        if holder is None:
            self.routes.append(route)
        elif step.action is Action.ADD:
            return Result.RACED, "File exists"
        else:
            self.routes[holder] = route
        return DONE

    def _unusable(self, route: Route) -> str:
        link = self.links.get(route.dev or "")
        if link is None:
            return "Cannot find device"
        near = any(a.dev == route.dev and route.via in a.interface.network for a in self.addresses)
        if not link.up or not near:
            return "Nexthop has invalid gateway"
        if route.src is not None and not self._is_local(route.src):
            return "Invalid prefsrc address"
        return ""

    def _rule(self, step: Step, rule: Rule) -> Answer:
        if step.action is Action.DELETE:
            if rule not in self.rules:
                return Result.GONE, "No such file or directory"
            self.rules.remove(rule)
            return DONE
        if rule in self.rules:
            return Result.RACED, "File exists"
        self.rules.append(rule)
        return DONE

    def _is_local(self, ip: IPv4Address) -> bool:
        return any(a.interface.ip == ip for a in self.addresses)


def _slot(obj: object) -> object:
    if not isinstance(obj, Address):
        return None
    return obj.dev, obj.interface, tuple(t for t in obj.extra if t.startswith("peer "))


def _deletes(named: Route, held: Route) -> bool:
    """A delete names protocol, prefix and table; an absent metric, gateway, device or source fits all."""
    wants: tuple[tuple[object, object], ...] = (
        (named.metric or held.metric, held.metric),
        (named.via or held.via, held.via),
        (named.dev or held.dev, held.dev),
        (named.src or held.src, held.src),
    )
    same: tuple[IPv4Network, int, int] = (named.dst, named.table, named.protocol)
    return same == (held.dst, held.table, held.protocol) and all(a == b for a, b in wants)
