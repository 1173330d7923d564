"""`dzagent ledger user` and `dzagent ledger pass`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import click

from dzagent.cli.ledger_options import (
    change,
    common,
    force_option,
    ipv4,
    key,
    look,
    network,
    print_record,
    print_rows,
    status,
)
from dzagent.cli.output import print_json
from dzagent.devledger import find, people
from dzagent.devledger import show as shown
from dzagent.devledger.records import PASS_KINDS, PASS_STATUSES, USER_STATUSES, USER_TYPES
from dzagent.model import UserType

_COLUMNS = (
    "account", "client_ip", "type", "status", "device", "tunnel_to", "tunnel_net", "dz_ip", "publish",
    "subscribe",
)  # fmt: skip
_PASS_COLUMNS = ("account", "client_ip", "type", "status", "payer", "publish", "subscribe", "tenants")
_STATUS_HELP = f"One of {', '.join(USER_STATUSES)}, or a number."

_ACCOUNT = click.argument("account")
_PUBLISH = click.option("--publish", multiple=True, metavar="CODE", help="A group it publishes; repeat it.")
_SUBSCRIBE = click.option(
    "--subscribe", multiple=True, metavar="CODE", help="A group it subscribes; repeat it."
)
_ENDPOINT = click.option(
    "--tunnel-endpoint",
    callback=ipv4,
    metavar="IP",
    help="Where the tunnel ends, if not at the device's public_ip (0.0.0.0 stands for that).",
)
_TUNNEL_NET = click.option(
    "--tunnel-net", callback=network, metavar="NET", help="Its /31 (default: the next free one)."
)


def _kind(_ctx: click.Context, _parameter: click.Parameter, value: str) -> UserType:
    for label, number in USER_TYPES.items():
        if label.lower() == value.lower():
            return UserType(number)
    raise click.BadParameter(f"{value!r} is not one of {', '.join(USER_TYPES)}")


@click.group()
def user() -> None:
    """Connections that are granted to hosts. ACCOUNT may be CLIENT_IP or CLIENT_IP:TYPE as well."""


@user.command("add")
@click.option(
    "--client-ip", required=True, callback=ipv4, metavar="IP", help="The host, as the network sees it."
)
@click.option(
    "--type",
    "kind",
    required=True,
    callback=_kind,
    metavar="TYPE",
    help=f"What it gets: {', '.join(USER_TYPES)}.",
)
@click.option("--device", required=True, metavar="CODE", help="Where its tunnel ends.")
@_ENDPOINT
@_PUBLISH
@_SUBSCRIBE
@click.option("--tenant", metavar="CODE", help="Its tenant.")
@click.option(
    "--dz-ip", callback=ipv4, metavar="IP", help="Its DoubleZero address (default: as the type has it)."
)
@_TUNNEL_NET
@click.option(
    "--status", default="activated", show_default=True, callback=status(USER_STATUSES), help=_STATUS_HELP
)
@click.option("--payer", callback=key, metavar="KEY", help="Who pays (default: the ledger's own key).")
@click.option(
    "--index",
    type=click.IntRange(1, 2**128 - 1),
    help="Put it at an address of the old kind, made of this number: such users exist beside those of today.",
)
@force_option
@common
def add(
    *,
    client_ip: IPv4Address,
    kind: UserType,
    device: str,
    tunnel_endpoint: IPv4Address | None,
    publish: tuple[str, ...],
    subscribe: tuple[str, ...],
    tenant: str | None,
    dz_ip: IPv4Address | None,
    tunnel_net: IPv4Network | None,
    status: int,
    payer: str | None,
    index: int | None,
    force: bool,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Grant a connection to a host: an activated user, unless you say otherwise."""
    new = people.NewUser(
        client_ip=client_ip,
        kind=kind,
        device=device,
        payer=payer,
        tenant=tenant,
        publish=publish,
        subscribe=subscribe,
        tunnel_endpoint=tunnel_endpoint,
        tunnel_net=tunnel_net,
        dz_ip=dz_ip,
        status=status,
        index=index,
    )
    change(state_file, lambda s: people.add_user(s, new, force=force), shown.user, as_json=as_json)


@user.command("ban")
@_ACCOUNT
@common
def ban(*, account: str, state_file: Path | None, as_json: bool) -> None:
    """Ban a user: its account stays, with status banned."""
    change(state_file, lambda s: people.ban(s, account), shown.user, as_json=as_json)


@user.command("delete")
@_ACCOUNT
@common
def delete(*, account: str, state_file: Path | None, as_json: bool) -> None:
    """Close a user's account: it vanishes from every answer."""
    change(state_file, lambda s: people.delete_user(s, account), as_json=as_json)


@user.command("move")
@_ACCOUNT
@click.option("--device", required=True, metavar="CODE", help="Its new device.")
@_ENDPOINT
@force_option
@common
def move(
    *,
    account: str,
    device: str,
    tunnel_endpoint: IPv4Address | None,
    force: bool,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Give a user another device. It keeps its /31, and an address that is not of the old device."""
    change(
        state_file,
        lambda s: people.move(s, account, device, tunnel_endpoint, force=force),
        shown.user,
        as_json=as_json,
    )


@user.command("groups")
@_ACCOUNT
@_PUBLISH
@_SUBSCRIBE
@common
def groups(
    *,
    account: str,
    publish: tuple[str, ...],
    subscribe: tuple[str, ...],
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Set all groups of a multicast user; without options it has none."""
    change(
        state_file, lambda s: people.set_groups(s, account, publish, subscribe), shown.user, as_json=as_json
    )


@user.command("set")
@_ACCOUNT
@click.option("--status", callback=status(USER_STATUSES), help=_STATUS_HELP)
@click.option("--dz-ip", callback=ipv4, metavar="IP", help="Its DoubleZero address.")
@_ENDPOINT
@_TUNNEL_NET
@click.option("--tenant", metavar="CODE", help="Its tenant; an empty text takes it away.")
@force_option
@common
def set_(
    *,
    account: str,
    status: int | None,
    dz_ip: IPv4Address | None,
    tunnel_endpoint: IPv4Address | None,
    tunnel_net: IPv4Network | None,
    tenant: str | None,
    force: bool,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Change single fields of a user."""
    change(
        state_file,
        lambda s: people.set_user(
            s,
            account,
            status=status,
            dz_ip=dz_ip,
            tunnel_endpoint=tunnel_endpoint,
            tunnel_net=tunnel_net,
            tenant=tenant,
            force=force,
        ),
        shown.user,
        as_json=as_json,
    )


@user.command("list")
@click.option("--client-ip", callback=ipv4, metavar="IP", help="Only the users of this host.")
@common
def list_(*, client_ip: IPv4Address | None, state_file: Path | None, as_json: bool) -> None:
    """List users."""
    state, _ = look(state_file)
    accounts = state.users if client_ip is None else find.users_of(state, client_ip)
    rows = [shown.user(state, account) for account in accounts]
    print_rows(rows, _COLUMNS, "no users; add one with `dzagent ledger user add`", as_json=as_json)


@user.command("show")
@_ACCOUNT
@common
def show(*, account: str, state_file: Path | None, as_json: bool) -> None:
    """Show one user."""
    state, _ = look(state_file)
    record = shown.user(state, find.user(state, account)[0])
    if as_json:
        print_json(record)
    else:
        print_record(record)


# ---- passes ----------------------------------------------------------------------------------------------


@click.group("pass")
def access_pass() -> None:
    """What payers may do for client IPs. ACCOUNT may be CLIENT_IP as well."""


@access_pass.command("add")
@click.option(
    "--client-ip", required=True, callback=ipv4, metavar="IP", help="The host; 0.0.0.0 stands for any."
)
@click.option("--payer", callback=key, metavar="KEY", help="Who pays (default: the ledger's own key).")
@click.option("--type", "kind", type=click.Choice(list(PASS_KINDS)), default="prepaid", show_default=True)
@click.option("--key", "key_", callback=key, metavar="KEY", help="The validator's or RPC node's key.")
@click.option(
    "--status",
    default="requested",
    show_default=True,
    callback=status(PASS_STATUSES),
    help="Until a user is there.",
)
@click.option("--publish", multiple=True, metavar="CODE", help="A group that may be published; repeat it.")
@click.option("--subscribe", multiple=True, metavar="CODE", help="A group that may be subscribed; repeat it.")
@click.option(
    "--tenant", "tenants", multiple=True, metavar="CODE", help="A tenant that may be used; repeat it."
)
@click.option(
    "--last-access-epoch",
    type=click.IntRange(0, 2**64 - 1),
    default=2**64 - 1,
    help="Until which epoch it holds (default: for ever).",
)
@click.option("--max-unicast-users", type=click.IntRange(0, 2**16 - 1), default=1, show_default=True)
@click.option("--max-multicast-users", type=click.IntRange(0, 2**16 - 1), default=1, show_default=True)
@force_option
@common
def add_pass(
    *,
    client_ip: IPv4Address,
    payer: str | None,
    kind: str,
    key_: str | None,
    status: int,
    publish: tuple[str, ...],
    subscribe: tuple[str, ...],
    tenants: tuple[str, ...],
    last_access_epoch: int,
    max_unicast_users: int,
    max_multicast_users: int,
    force: bool,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Add an access pass; the one of this client IP and payer is replaced."""
    new = people.NewPass(
        client_ip=client_ip,
        payer=payer,
        kind=kind,
        key=key_,
        status=status,
        publish=publish,
        subscribe=subscribe,
        tenants=tenants,
        last_access_epoch=last_access_epoch,
        max_unicast_users=max_unicast_users,
        max_multicast_users=max_multicast_users,
    )
    change(state_file, lambda s: people.add_pass(s, new, force=force), shown.access_pass, as_json=as_json)


@access_pass.command("delete")
@_ACCOUNT
@common
def delete_pass(*, account: str, state_file: Path | None, as_json: bool) -> None:
    """Close a pass's account."""
    change(state_file, lambda s: people.delete_pass(s, account), as_json=as_json)


@access_pass.command("list")
@common
def list_passes(*, state_file: Path | None, as_json: bool) -> None:
    """List access passes."""
    state, _ = look(state_file)
    rows = [shown.access_pass(state, account) for account in state.passes]
    print_rows(rows, _PASS_COLUMNS, "no passes; add one with `dzagent ledger pass add`", as_json=as_json)
