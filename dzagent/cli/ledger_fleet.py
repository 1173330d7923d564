"""`dzagent ledger device`, `group`, `tenant` and `exchange`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from dzagent.cli.ledger_options import (
    View,
    change,
    common,
    force_option,
    ipv4,
    look,
    network,
    print_rows,
    status,
)
from dzagent.devledger import fleet
from dzagent.devledger import show as shown
from dzagent.devledger.records import DEVICE_STATUSES, EXCHANGE_STATUSES, GROUP_STATUSES, State

_CODE = click.argument("code")
_DEVICE_STATUS = f"One of {', '.join(DEVICE_STATUSES)}, or a number."
_GROUP_STATUS = f"One of {', '.join(GROUP_STATUSES)}, or a number."
_ENDPOINTS = click.option(
    "--tunnel-endpoint",
    "tunnel_endpoints",
    multiple=True,
    callback=ipv4,
    metavar="IP",
    help="A further address of it where tunnels may end; repeat it.",
)
_U64 = click.IntRange(0, 2**64 - 1)


def _list(
    state_file: Path | None,
    items: Callable[[State], Iterable[str]],
    view: View,
    columns: Iterable[str],
    kind: str,
    *,
    as_json: bool,
) -> None:
    state, _ = look(state_file)
    rows = [view(state, account) for account in items(state)]
    print_rows(rows, columns, f"no {kind}s; add one with `dzagent ledger {kind} add`", as_json=as_json)


@click.group()
def device() -> None:
    """DoubleZero devices: where tunnels end."""


@device.command("add")
@_CODE
@click.option("--public-ip", required=True, callback=ipv4, metavar="IP", help="Where tunnels end.")
@click.option(
    "--dz-prefix",
    "dz_prefixes",
    multiple=True,
    callback=network,
    metavar="NET",
    help="A prefix its users get addresses from; repeat it.",
)
@click.option("--exchange", metavar="CODE", help="The exchange (metro) it is in.")
@_ENDPOINTS
@click.option(
    "--status", default="activated", show_default=True, callback=status(DEVICE_STATUSES), help=_DEVICE_STATUS
)
@click.option("--max-users", type=click.IntRange(0, 2**16 - 1), default=128, show_default=True)
@force_option
@common
def add_device(*, code: str, state_file: Path | None, as_json: bool, **fields: Any) -> None:
    """Add a device."""
    change(state_file, lambda s: fleet.add_device(s, code, **fields), shown.device, as_json=as_json)


@device.command("set")
@_CODE
@click.option("--public-ip", callback=ipv4, metavar="IP", help="Where tunnels end.")
@click.option(
    "--dz-prefix", "dz_prefixes", multiple=True, callback=network, metavar="NET", help="All its prefixes."
)
@click.option("--exchange", metavar="CODE", help="Its exchange; an empty text takes it away.")
@_ENDPOINTS
@click.option("--status", callback=status(DEVICE_STATUSES), help=_DEVICE_STATUS)
@force_option
@common
def set_device(*, code: str, state_file: Path | None, as_json: bool, **fields: Any) -> None:
    """Change fields of a device; its users keep their tunnels."""
    change(state_file, lambda s: fleet.set_device(s, code, **fields), shown.device, as_json=as_json)


@device.command("delete")
@_CODE
@click.option("--force", is_flag=True, help="Although users are on it: they then name no device.")
@common
def delete_device(*, code: str, force: bool, state_file: Path | None, as_json: bool) -> None:
    """Close a device's account."""
    change(state_file, lambda s: fleet.delete_device(s, code, force=force), as_json=as_json)


@device.command("list")
@common
def list_devices(*, state_file: Path | None, as_json: bool) -> None:
    """List devices."""
    columns = (
        "code",
        "public_ip",
        "dz_prefixes",
        "tunnel_endpoints",
        "exchange",
        "status",
        "users",
        "account",
    )
    _list(state_file, lambda s: s.devices, shown.device, columns, "device", as_json=as_json)


# ---- groups ----------------------------------------------------------------------------------------------


@click.group()
def group() -> None:
    """Multicast groups."""


@group.command("add")
@_CODE
@click.option(
    "--multicast-ip",
    callback=ipv4,
    metavar="IP",
    help="Its address (default: the next free one of the block).",
)
@click.option("--max-bandwidth", type=_U64, default=10**9, show_default=True, help="In bit/s.")
@click.option("--tenant", metavar="CODE", help="Its tenant.")
@click.option(
    "--status", default="activated", show_default=True, callback=status(GROUP_STATUSES), help=_GROUP_STATUS
)
@force_option
@common
def add_group(*, code: str, state_file: Path | None, as_json: bool, **fields: Any) -> None:
    """Add a multicast group."""
    change(state_file, lambda s: fleet.add_group(s, code, **fields), shown.group, as_json=as_json)


@group.command("set")
@_CODE
@click.option("--multicast-ip", callback=ipv4, metavar="IP", help="Its address.")
@click.option("--max-bandwidth", type=_U64, help="In bit/s.")
@click.option("--status", callback=status(GROUP_STATUSES), help=_GROUP_STATUS)
@force_option
@common
def set_group(*, code: str, state_file: Path | None, as_json: bool, **fields: Any) -> None:
    """Change fields of a group."""
    change(state_file, lambda s: fleet.set_group(s, code, **fields), shown.group, as_json=as_json)


@group.command("delete")
@_CODE
@click.option("--force", is_flag=True, help="Although users have it: they then name no group.")
@common
def delete_group(*, code: str, force: bool, state_file: Path | None, as_json: bool) -> None:
    """Close a group's account."""
    change(state_file, lambda s: fleet.delete_group(s, code, force=force), as_json=as_json)


@group.command("list")
@common
def list_groups(*, state_file: Path | None, as_json: bool) -> None:
    """List groups."""
    columns = (
        "code",
        "multicast_ip",
        "max_bandwidth",
        "status",
        "tenant",
        "publishers",
        "subscribers",
        "account",
    )
    _list(state_file, lambda s: s.groups, shown.group, columns, "group", as_json=as_json)


# ---- tenants ---------------------------------------------------------------------------------------------


@click.group()
def tenant() -> None:
    """Tenants."""


@tenant.command("add")
@_CODE
@click.option("--vrf-id", type=click.IntRange(0, 2**16 - 1), help="Its VRF (default: the next free number).")
@click.option("--metro-routing/--no-metro-routing", default=True, show_default=True)
@click.option("--route-liveness/--no-route-liveness", default=False, show_default=True)
@common
def add_tenant(*, code: str, state_file: Path | None, as_json: bool, **fields: Any) -> None:
    """Add a tenant."""
    change(state_file, lambda s: fleet.add_tenant(s, code, **fields), shown.tenant, as_json=as_json)


@tenant.command("delete")
@_CODE
@click.option("--force", is_flag=True, help="Although users or groups have it: they then name no tenant.")
@common
def delete_tenant(*, code: str, force: bool, state_file: Path | None, as_json: bool) -> None:
    """Close a tenant's account."""
    change(state_file, lambda s: fleet.delete_tenant(s, code, force=force), as_json=as_json)


@tenant.command("list")
@common
def list_tenants(*, state_file: Path | None, as_json: bool) -> None:
    """List tenants."""
    columns = ("code", "vrf_id", "metro_routing", "route_liveness", "users", "account")
    _list(state_file, lambda s: s.tenants, shown.tenant, columns, "tenant", as_json=as_json)


# ---- exchanges -------------------------------------------------------------------------------------------


@click.group()
def exchange() -> None:
    """Exchanges: the metros that devices are in."""


def _degrees(limit: int) -> Callable[[click.Context, click.Parameter, float], float]:
    def read(_ctx: click.Context, _parameter: click.Parameter, value: float) -> float:
        if not math.isfinite(value) or abs(value) > limit:
            raise click.BadParameter(f"{value} is not from -{limit} to {limit} degrees")
        return value

    return read


@exchange.command("add")
@_CODE
@click.option("--name", required=True, help="What people call the metro, such as Amsterdam.")
@click.option("--lat", type=float, default=0.0, callback=_degrees(90), help="Latitude in degrees.")
@click.option("--lng", type=float, default=0.0, callback=_degrees(180), help="Longitude in degrees.")
@click.option(
    "--status",
    default="activated",
    show_default=True,
    callback=status(EXCHANGE_STATUSES),
    help="Or a number.",
)
@common
def add_exchange(
    *,
    code: str,
    name: str,
    lat: float,
    lng: float,
    status: int,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Add an exchange."""
    change(
        state_file,
        lambda s: fleet.add_exchange(s, code, name, (lat, lng), status),
        shown.exchange,
        as_json=as_json,
    )


@exchange.command("delete")
@_CODE
@click.option("--force", is_flag=True, help="Although devices are in it: they then name no exchange.")
@common
def delete_exchange(*, code: str, force: bool, state_file: Path | None, as_json: bool) -> None:
    """Close an exchange's account."""
    change(state_file, lambda s: fleet.delete_exchange(s, code, force=force), as_json=as_json)


@exchange.command("list")
@common
def list_exchanges(*, state_file: Path | None, as_json: bool) -> None:
    """List exchanges."""
    columns = ("code", "name", "lat", "lng", "bgp_community", "status", "devices", "account")
    _list(state_file, lambda s: s.exchanges, shown.exchange, columns, "exchange", as_json=as_json)
