"""Changes to users and access passes: State -> (State, what was done). Pure; raises InputError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from dzagent.devledger import addresses, checks, choose, find
from dzagent.devledger.records import (
    ACTIVATED,
    BANNED,
    NO_KEY,
    PASS_KINDS,
    UNSET,
    USER_STATUSES,
    Device,
    Pass,
    State,
    User,
    name_of,
)
from dzagent.errors import InputError
from dzagent.model import UserType


@dataclass(frozen=True, slots=True)
class Done:
    """What a change did: the account, one sentence, and what a person should know beside it."""

    account: str
    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewUser:
    """What a person says of a new user; None is for the ledger to choose. Groups, device and tenant are codes."""

    client_ip: IPv4Address
    kind: UserType
    device: str
    payer: str | None = None
    tenant: str | None = None
    publish: Sequence[str] = ()
    subscribe: Sequence[str] = ()
    tunnel_endpoint: IPv4Address | None = None
    tunnel_net: IPv4Network | None = None
    dz_ip: IPv4Address | None = None
    status: int = ACTIVATED
    index: int | None = None


def add_user(state: State, new: NewUser, *, force: bool = False) -> tuple[State, Done]:
    """Add a user. One of each type can exist for a client IP, unless `index` asks for an address of the old kind."""
    checks.unicast(new.client_ip, "client_ip", force=force)
    device_account, device = find.named(state.devices, "device", new.device)
    publish, subscribe = _groups(state, new.kind, new.publish, new.subscribe)
    place = (
        addresses.user(state.program_id, new.client_ip, new.kind)
        if new.index is None
        else addresses.indexed(state.program_id, "user", new.index)
    )
    if place.account in state.users:
        there = state.users[place.account]
        raise InputError(
            f"there is a user {find.label(there)} already, {place.account}, status "
            f"{name_of(USER_STATUSES, there.status)}: delete it first with `dzagent ledger user delete {place.account}`"
        )
    users = state.users.values()
    endpoint, notes = _endpoint(state, new.client_ip, device, new.tunnel_endpoint, None, force=force)
    user = User(
        index=new.index or 0,
        bump=place.bump,
        payer=new.payer or state.payer,
        user_type=int(new.kind),
        device=device_account,
        client_ip=new.client_ip,
        dz_ip=_dz_ip(new.dz_ip, force=force)
        or choose.dz_ip(state, new.kind, new.client_ip, device, users, publishes=bool(publish)),
        tunnel_id=choose.tunnel_id(device_account, device.code, users),
        tunnel_net=_tunnel_net(state, new.tunnel_net, force=force) or choose.tunnel_net(state, users),
        status=new.status,
        tenant=find.named(state.tenants, "tenant", new.tenant)[0] if new.tenant else NO_KEY,
        tunnel_endpoint=endpoint,
        publishers=publish,
        subscribers=subscribe,
        created_as_publisher=bool(publish),
    )
    after = replace(state, users={**state.users, place.account: user})
    text = f"user {place.account} added: {find.label(user)} on {device.code}, tunnel {user.tunnel_net}"
    return after, Done(place.account, text, notes)


def set_status(state: State, text: str, status: int) -> tuple[State, Done]:
    """Give a user another status: ban is `banned`."""
    account, user = find.user(state, text)
    word = name_of(USER_STATUSES, status)
    if user.status == status:
        return state, Done(
            account, f"user {account} ({find.label(user)}) is {word} already; nothing is changed"
        )
    done = Done(account, f"user {account} ({find.label(user)}) is {word} now")
    return _with(state, account, replace(user, status=status)), done


def ban(state: State, text: str) -> tuple[State, Done]:
    """Ban a user."""
    return set_status(state, text, BANNED)


def delete_user(state: State, text: str) -> tuple[State, Done]:
    """Close the account of a user: it vanishes from every answer."""
    account, user = find.user(state, text)
    users = {key: item for key, item in state.users.items() if key != account}
    return replace(state, users=users), Done(account, f"user {account} ({find.label(user)}) is deleted")


def move(
    state: State, text: str, code: str, endpoint: IPv4Address | None = None, *, force: bool = False
) -> tuple[State, Done]:
    """Give a user another device. It keeps what need not change: its /31, its tunnel id, an address of its own."""
    account, user = find.user(state, text)
    device_account, device = find.named(state.devices, "device", code)
    if device_account == user.device and endpoint is None:
        return state, Done(
            account, f"user {account} ({find.label(user)}) is on {code} already; nothing is changed"
        )
    others = [item for key, item in state.users.items() if key != account]
    end, notes = _endpoint(state, user.client_ip, device, endpoint, account, force=force)
    moved = replace(
        user,
        device=device_account,
        tunnel_endpoint=end,
        tunnel_id=_kept_tunnel_id(user, device_account, device, others),
        tunnel_net=_kept_tunnel_net(state, user, others),
        dz_ip=_kept_dz_ip(state, user, device, others),
    )
    end = choose.end_of(moved, state.devices)
    done = Done(
        account, f"user {account} ({find.label(user)}) is on {device.code} now, tunnel to {end}", notes
    )
    return _with(state, account, moved), done


def set_groups(
    state: State, text: str, publish: Sequence[str], subscribe: Sequence[str]
) -> tuple[State, Done]:
    """Set which groups a multicast user publishes and subscribes; none at all is allowed."""
    account, user = find.user(state, text)
    kind = UserType(user.user_type)
    if kind is not UserType.MULTICAST:
        raise InputError(f"user {account} is {find.label(user)}: only Multicast users have groups")
    publishers, subscribers = _groups(state, kind, publish, subscribe)
    others = [item for key, item in state.users.items() if key != account]
    dz_ip = user.dz_ip
    if bool(publishers) != bool(user.publishers):
        keeps = publishers and dz_ip != UNSET
        dz_ip = dz_ip if keeps else _publisher_ip(state, user, others, publishes=bool(publishers))
    changed = replace(user, publishers=publishers, subscribers=subscribers, dz_ip=dz_ip)
    if changed == user:
        return state, Done(account, f"user {account} has these groups already; nothing is changed")
    said = f"publishes {find.listed(publish) or 'nothing'}, subscribes {find.listed(subscribe) or 'nothing'}"
    return _with(state, account, changed), Done(account, f"user {account} ({find.label(user)}) {said}")


def set_user(
    state: State,
    text: str,
    *,
    status: int | None = None,
    dz_ip: IPv4Address | None = None,
    tunnel_endpoint: IPv4Address | None = None,
    tunnel_net: IPv4Network | None = None,
    tenant: str | None = None,
    force: bool = False,
) -> tuple[State, Done]:
    """Change single fields of a user; None leaves a field as it is, an empty tenant takes it away."""
    account, user = find.user(state, text)
    if tunnel_endpoint not in {None, UNSET}:
        checks.unicast(tunnel_endpoint or UNSET, "tunnel_endpoint", force=force)
    changed = replace(
        user,
        status=user.status if status is None else status,
        dz_ip=_dz_ip(dz_ip, force=force) or user.dz_ip,
        tunnel_endpoint=user.tunnel_endpoint if tunnel_endpoint is None else tunnel_endpoint,
        tunnel_net=_tunnel_net(state, tunnel_net, force=force) or user.tunnel_net,
        tenant=user.tenant if tenant is None else _tenant(state, tenant),
    )
    if changed == user:
        return state, Done(account, f"user {account} is so already; nothing is changed")
    return _with(state, account, changed), Done(account, f"user {account} ({find.label(user)}) is changed")


# ---- passes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewPass:
    """What a person says of a new access pass; groups and tenants are codes."""

    client_ip: IPv4Address
    payer: str | None = None
    kind: str = "prepaid"
    key: str | None = None
    status: int = 0
    publish: Sequence[str] = ()
    subscribe: Sequence[str] = ()
    tenants: Sequence[str] = ()
    last_access_epoch: int = 2**64 - 1
    max_unicast_users: int = 1
    max_multicast_users: int = 1


def add_pass(state: State, new: NewPass, *, force: bool = False) -> tuple[State, Done]:
    """Add an access pass, or replace the one of this client IP and payer."""
    if new.client_ip != UNSET:  # 0.0.0.0 is a pass for any client IP
        checks.unicast(new.client_ip, "client_ip", force=force)
    payer = new.payer or state.payer
    place = addresses.access_pass(state.program_id, new.client_ip, payer)
    tag = PASS_KINDS[new.kind]
    if bool(tag) != bool(new.key):
        raise InputError(f"a {new.kind} pass {'needs --key' if tag else 'has no key: leave --key out'}")
    item = Pass(
        bump=place.bump,
        client_ip=new.client_ip,
        payer=payer,
        kind=tag,
        key=new.key or NO_KEY,
        status=new.status,
        last_access_epoch=new.last_access_epoch,
        publish=tuple(find.named(state.groups, "group", code)[0] for code in new.publish),
        subscribe=tuple(find.named(state.groups, "group", code)[0] for code in new.subscribe),
        tenants=tuple(find.named(state.tenants, "tenant", code)[0] for code in new.tenants),
        max_unicast_users=new.max_unicast_users,
        max_multicast_users=new.max_multicast_users,
    )
    word = "replaced" if place.account in state.passes else "added"
    after = replace(state, passes={**state.passes, place.account: item})
    return after, Done(place.account, f"pass {place.account} {word}: {new.kind} for {new.client_ip}")


def delete_pass(state: State, text: str) -> tuple[State, Done]:
    """Close the account of a pass."""
    account, item = find.access_pass(state, text)
    passes = {key: other for key, other in state.passes.items() if key != account}
    return replace(state, passes=passes), Done(account, f"pass {account} for {item.client_ip} is deleted")


# ---- parts of the above ----------------------------------------------------------------------------------


def _with(state: State, account: str, user: User) -> State:
    return replace(state, users={**state.users, account: user})


def _groups(
    state: State, kind: UserType, publish: Sequence[str], subscribe: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if (publish or subscribe) and kind is not UserType.MULTICAST:
        raise InputError(
            f"a user of type {kind.label} has no groups: --publish and --subscribe are for Multicast"
        )
    first, second = (
        tuple(dict.fromkeys(find.named(state.groups, "group", code)[0] for code in codes))
        for codes in (publish, subscribe)
    )
    return first, second


def _tenant(state: State, code: str) -> str:
    return find.named(state.tenants, "tenant", code)[0] if code else NO_KEY


def _dz_ip(address: IPv4Address | None, *, force: bool) -> IPv4Address | None:
    return None if address is None else checks.unicast(address, "dz_ip", force=force)


def _tunnel_net(state: State, network: IPv4Network | None, *, force: bool) -> IPv4Network | None:
    if network is None:
        return None
    return checks.tunnel_net(network, state.config.user_tunnel_block, force=force)


def _endpoint(
    state: State,
    client_ip: IPv4Address,
    device: Device,
    wanted: IPv4Address | None,
    account: str | None,
    *,
    force: bool,
) -> tuple[IPv4Address, tuple[str, ...]]:
    """Return the tunnel_endpoint of a user on a device, and a note where two tunnels would end at one address."""
    others = [item for key, item in find.users_of(state, client_ip).items() if key != account]
    devices: Mapping[str, Device] = state.devices
    if wanted is None:
        free = choose.tunnel_endpoint(device, others, devices)
        if free is not None:
            return free, ()
        wanted = UNSET
    elif wanted != UNSET:
        checks.unicast(wanted, "tunnel_endpoint", force=force)
    end = device.public_ip if wanted == UNSET else wanted
    rival = next((item for item in others if choose.end_of(item, devices) == end), None)
    if rival is None:
        return wanted, ()
    note = (
        f"the tunnels of {find.label(rival)} and of this user both end at {end}: a host cannot have two GRE "
        "tunnels between the same addresses; give one of them another --tunnel-endpoint"
    )
    return wanted, (note,)


def _kept_tunnel_id(user: User, device_account: str, device: Device, others: Sequence[User]) -> int:
    taken = any(item.device == device_account and item.tunnel_id == user.tunnel_id for item in others)
    return choose.tunnel_id(device_account, device.code, others) if taken else user.tunnel_id


def _kept_tunnel_net(state: State, user: User, others: Sequence[User]) -> IPv4Network:
    good = user.tunnel_net.subnet_of(state.config.user_tunnel_block)
    if good and not any(item.tunnel_net.overlaps(user.tunnel_net) for item in others):
        return user.tunnel_net
    return choose.tunnel_net(state, others)


def _kept_dz_ip(state: State, user: User, device: Device, others: Sequence[User]) -> IPv4Address:
    """Keep an address that does not come from the old device, or comes from the new one too."""
    before = state.devices.get(user.device)
    from_old = before is not None and any(user.dz_ip in prefix for prefix in before.dz_prefixes)
    from_new = any(user.dz_ip in prefix for prefix in device.dz_prefixes)
    kind = UserType(user.user_type)
    if not from_old or from_new or kind in {UserType.IBRL, UserType.MULTICAST}:
        return user.dz_ip
    return choose.dz_ip(state, kind, user.client_ip, device, others, publishes=False)


def _publisher_ip(state: State, user: User, others: Sequence[User], *, publishes: bool) -> IPv4Address:
    nowhere = Device(0, 0, "", UNSET, ())
    return choose.dz_ip(state, UserType.MULTICAST, user.client_ip, nowhere, others, publishes=publishes)
