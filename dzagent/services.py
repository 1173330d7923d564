"""What the ledger grants this host: Snapshot + client IP + policy -> one decision per service. Pure.

Users are matched by client IP; the first activated one of a service counts (upstream: manager, reconcile).
Unlike upstream, a service is withdrawn only by sound evidence, and everything is validated before it is granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from dzagent.ledger.accounts import Device, User
from dzagent.ledger.snapshot import Snapshot
from dzagent.matching import Found, Matched, match, user_problems
from dzagent.model import (
    Decision,
    Keep,
    Problem,
    Protected,
    Provide,
    Service,
    ServiceName,
    UserType,
)
from dzagent.policy import Policy
from dzagent.prefixes import choose_prefixes
from dzagent.protect import with_endpoints
from dzagent.validate import (
    UNSPECIFIED,
    Refusal,
    check_asns,
    check_dz_ip,
    check_endpoint,
    check_groups,
    check_overlay,
    martian,
)

MAX_GROUPS = 256
"""Groups of one user that are followed: each is a route, and a hostile account could list any number."""

_SOURCE_IS_CLIENT_IP = frozenset({UserType.IBRL, UserType.EDGE_FILTERING})


@dataclass(frozen=True, slots=True)
class Host:
    """What decisions need to know of the host.

    tunnel_sources: tunnel destination -> source address that the kernel uses towards it; missing is unresolved.
    installed_prefixes: DoubleZero prefixes that our own rules route already. addresses: every address of the
    host except those on our own tunnels.
    """

    client_ip: IPv4Address
    tunnel_sources: Mapping[IPv4Address, IPv4Address] = field(default_factory=dict)
    protected: Protected = field(default_factory=Protected)
    installed_prefixes: frozenset[IPv4Network] = frozenset()
    addresses: frozenset[IPv4Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Decisions:
    """One decision per service; `problems` concern the whole answer or what was left out of it."""

    unicast: Decision
    multicast: Decision
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Context:
    """Everything a service is built from, besides its user."""

    snapshot: Snapshot
    host: Host
    policy: Policy
    links: Mapping[ServiceName, str]


def decide(snapshot: Snapshot, host: Host, policy: Policy, links: Mapping[ServiceName, str]) -> Decisions:
    """Decide about both services; `links` are their interface names. Never raises on what the ledger says."""
    context = _Context(snapshot, host, policy, links)
    unicast = _decide_one("unicast", context)
    multicast = _apart(unicast, _decide_one("multicast", context))
    unicast = _with_prefixes(unicast, multicast, context)
    return Decisions(unicast, multicast, user_problems(snapshot, host.client_ip))


def tunnel_destinations(snapshot: Snapshot, client_ip: IPv4Address) -> tuple[IPv4Address, ...]:
    """Return the destinations whose source address must be looked up: at most one per service, valid or not."""
    found: list[IPv4Address] = []
    for name in ("unicast", "multicast"):
        matched = match(snapshot, client_ip, name)
        if isinstance(matched, Found) and matched.kind not in _SOURCE_IS_CLIENT_IP:
            device = snapshot.devices.get(matched.user.device_pk)
            if device is not None:
                found.append(_endpoint(matched.user, device)[0])
    return tuple(dict.fromkeys(found))


def problems(snapshot: Snapshot, client_ip: IPv4Address) -> tuple[Problem, ...]:
    """Report what concerns no single service: unknown user types, and users left out as duplicates."""
    return user_problems(snapshot, client_ip)


# ---- one service -----------------------------------------------------------------------------------------


def _decide_one(name: ServiceName, context: _Context) -> Decision:
    matched: Matched = match(context.snapshot, context.host.client_ip, name)
    if not isinstance(matched, Found):
        return matched
    service = _build(matched, context)
    if isinstance(service, Refusal):
        message = f"user {matched.account}: {service.why}; the {name} service that works is kept."
        return Keep(Problem(service.code, message, name, matched.account))
    return Provide(service, _remarks(service, context.host))


def _build(found: Found, context: _Context) -> Service | Refusal:
    """Check every field; return the service without prefixes, or the first thing that is wrong."""
    user, config = found.user, context.snapshot.config
    asns = check_asns(config)
    if isinstance(asns, Refusal):
        return asns
    overlay = check_overlay(user.tunnel_net, config, context.policy, context.host.protected)
    if isinstance(overlay, Refusal):
        return overlay
    ends = _ends(found, context)
    if isinstance(ends, Refusal):
        return ends
    host = context.host
    guarded = with_endpoints(host.protected, (ends[1],))
    dz_ip = check_dz_ip(user, found.kind, host.client_ip, context.policy, guarded)
    if isinstance(dz_ip, Refusal):
        return dz_ip
    groups = _groups(found, context.snapshot)
    if isinstance(groups, Refusal):
        return groups
    return Service(
        name=found.kind.service,
        user_type=found.kind,
        link=context.links[found.kind.service],
        tunnel_src=ends[0],
        tunnel_dst=ends[1],
        overlay=overlay,
        dz_ip=dz_ip,
        local_asn=asns[0],
        remote_asn=asns[1],
        account=found.account,
        device=user.device_pk,
        publish=groups[0],
        subscribe=groups[1],
    )


def _ends(found: Found, context: _Context) -> tuple[IPv4Address, IPv4Address] | Refusal:
    """Return the outer (source, destination) of the tunnel."""
    snapshot, host = context.snapshot, context.host
    device = snapshot.devices.get(found.user.device_pk)
    if device is None:
        state = "cannot be read" if found.user.device_pk in snapshot.unreadable else "is not on the ledger"
        return Refusal(
            "UnknownDevice", f"device_pk {found.user.device_pk}: this device {state}, its address is needed"
        )
    address, field_name = _endpoint(found.user, device)
    ours = host.addresses | {host.client_ip}
    dst = check_endpoint(address, field_name, ours, context.policy, host.protected.networks)
    if isinstance(dst, Refusal):
        return dst
    if found.kind in _SOURCE_IS_CLIENT_IP:
        return host.client_ip, dst
    src = host.tunnel_sources.get(dst)
    if src is None:
        why = f"tunnel source: the kernel has no route and so no source address towards {dst} yet"
        return Refusal("TunnelSourceUnresolved", why)
    wrong = martian(IPv4Network(src), context.policy.overlay_block)
    if wrong or src == dst:
        why = f"tunnel source {src} towards {dst}: a unicast address of the uplink is needed"
        return Refusal("TunnelSourceUnresolved", f"{why}, this is {wrong or 'the destination'}")
    return src, dst


def _endpoint(user: User, device: Device) -> tuple[IPv4Address, str]:
    """Return the tunnel's destination and the field it is from: 0.0.0.0 is how older users say "the device"."""
    if user.tunnel_endpoint == UNSPECIFIED:
        return device.public_ip, f"public_ip of device {user.device_pk}"
    return user.tunnel_endpoint, "tunnel_endpoint"


_Groups: TypeAlias = tuple[tuple[IPv4Address, ...], tuple[IPv4Address, ...]]


def _groups(found: Found, snapshot: Snapshot) -> _Groups | Refusal:
    """Return (publish, subscribe). A group that is unknown keeps the old service: leaving it out would prune it."""
    if found.kind is not UserType.MULTICAST:
        return (), ()
    user = found.user
    cut = sorted({"publishers", "subscribers"} & set(user.missing))
    if cut:
        return Refusal(
            "TruncatedUser", f"{' and '.join(cut)}: the account ends before its list of groups does"
        )
    keys = dict.fromkeys([*user.publishers, *user.subscribers])
    if len(keys) > MAX_GROUPS:
        return Refusal("TooManyGroups", f"{len(keys)} multicast groups: at most {MAX_GROUPS} are possible")
    for key in keys:
        if key not in snapshot.groups:
            state = "cannot be read" if key in snapshot.unreadable else "is not on the ledger"
            return Refusal(
                "UnknownGroup", f"multicast group {key}: its account {state}, its address is needed"
            )
    publish = check_groups((key, snapshot.groups[key].multicast_ip) for key in user.publishers)
    subscribe = check_groups((key, snapshot.groups[key].multicast_ip) for key in user.subscribers)
    if isinstance(publish, Refusal):
        return publish
    return subscribe if isinstance(subscribe, Refusal) else (publish, subscribe)


def _remarks(service: Service, host: Host) -> tuple[Problem, ...]:
    """Report what works on paper only: addresses that plain IBRL needs on the host and that are not there."""
    if service.user_type is not UserType.IBRL or service.dz_ip == host.client_ip:
        return ()
    message = (
        f"user {service.account} is IBRL with dz_ip {service.dz_ip}: the client IP {host.client_ip} was expected; "
        "routes will ask for a source address that this host may not have."
    )
    return (Problem("DzIpDiffers", message, service.name, service.account),)


# ---- both services ---------------------------------------------------------------------------------------


def _apart(unicast: Decision, multicast: Decision) -> Decision:
    """Keep the multicast service as it is where the kernel could not hold it beside the unicast one."""
    if not (isinstance(unicast, Provide) and isinstance(multicast, Provide)):
        return multicast
    clash = _clash(unicast.service, multicast.service)
    if clash is None:
        return multicast
    account = multicast.service.account
    message = f"user {account}: {clash.why}; the multicast service that works is kept."
    return Keep(Problem(clash.code, message, "multicast", account))


def _clash(unicast: Service, multicast: Service) -> Refusal | None:
    pair = f"GRE from {multicast.tunnel_src} to {multicast.tunnel_dst}"
    if (unicast.tunnel_src, unicast.tunnel_dst) == (multicast.tunnel_src, multicast.tunnel_dst):
        why = f"{pair}: the unicast tunnel has these addresses and two tunnels cannot share them"
        return Refusal("TunnelEndpointInUse", why)
    if unicast.overlay == multicast.overlay:
        return Refusal("OverlayInUse", f"tunnel_net {multicast.overlay}: the unicast tunnel has this /31")
    if multicast.tunnel_dst == unicast.dz_ip:
        return Refusal(
            "InvalidEndpoint", f"{pair}: the destination is the unicast service's dz_ip, our own address"
        )
    if multicast.dz_ip == unicast.tunnel_dst:
        return Refusal("InvalidDzIp", f"dz_ip {multicast.dz_ip}: it is the unicast tunnel's destination")
    return None


def _with_prefixes(unicast: Decision, multicast: Decision, context: _Context) -> Decision:
    """Add the prefixes that an EdgeFiltering service may route."""
    if not isinstance(unicast, Provide) or unicast.service.user_type is not UserType.EDGE_FILTERING:
        return unicast
    host, service = context.host, unicast.service
    tunnels = [service, *([multicast.service] if isinstance(multicast, Provide) else [])]
    ends = {end for tunnel in tunnels for end in (tunnel.tunnel_src, tunnel.tunnel_dst)}
    chosen = choose_prefixes(
        context.snapshot.devices,
        context.policy,
        with_endpoints(host.protected, sorted(ends)),
        # A client IP that is the dz_ip as well is still the source of the tunnel's own packets.
        dz_ip=None if service.dz_ip in ends else service.dz_ip,
        installed=host.installed_prefixes,
        doubtful=_devices_doubtful(context.snapshot),
    )
    return Provide(replace(service, prefixes=chosen.prefixes), (*unicast.problems, *chosen.problems))


def _devices_doubtful(snapshot: Snapshot) -> bool:
    """Whether an account that may be a device could not be read, so that its prefixes are not known."""
    return any(_may_be_device(snapshot.raw.get(address)) for address in snapshot.unreadable)


def _may_be_device(data: bytes | None) -> bool:
    return data is None or data[:1] in {b"", b"\x05"}
