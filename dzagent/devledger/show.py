"""Records -> what people and programs are shown: codes and names in the place of addresses and numbers. Pure."""

from __future__ import annotations

import base64
from typing import Any

from dzagent.devledger import bank, records
from dzagent.devledger.choose import end_of
from dzagent.devledger.document import to_json
from dzagent.devledger.find import code_of
from dzagent.devledger.records import NO_KEY, UNSET, State, name_of
from dzagent.devledger.world import describe_node

Shown = dict[str, Any]

ACCOUNT_TYPES = {
    2: "GlobalConfig",
    4: "Exchange",
    5: "Device",
    7: "User",
    8: "MulticastGroup",
    9: "ProgramConfig",
    11: "AccessPass",
    13: "Tenant",
}


def user(state: State, account: str) -> Shown:
    """Show a user."""
    item = state.users[account]
    return {
        "account": account,
        "client_ip": str(item.client_ip),
        "type": name_of(records.USER_TYPES, item.user_type),
        "status": name_of(records.USER_STATUSES, item.status),
        "device": code_of(state.devices, item.device),
        "tunnel_to": str(end_of(item, state.devices)),
        "tunnel_endpoint": None if item.tunnel_endpoint == UNSET else str(item.tunnel_endpoint),
        "tunnel_net": str(item.tunnel_net),
        "tunnel_id": item.tunnel_id,
        "dz_ip": None if item.dz_ip == UNSET else str(item.dz_ip),
        "publish": [code_of(state.groups, key) for key in item.publishers],
        "subscribe": [code_of(state.groups, key) for key in item.subscribers],
        "tenant": None if item.tenant == NO_KEY else code_of(state.tenants, item.tenant),
        "payer": item.payer,
        "index": item.index,
    }


def device(state: State, account: str) -> Shown:
    """Show a device."""
    item = state.devices[account]
    return {
        "account": account,
        "code": item.code,
        "public_ip": str(item.public_ip),
        "dz_prefixes": [str(prefix) for prefix in item.dz_prefixes],
        "tunnel_endpoints": [str(address) for address in item.tunnel_endpoints],
        "exchange": None if item.exchange == NO_KEY else code_of(state.exchanges, item.exchange),
        "status": name_of(records.DEVICE_STATUSES, item.status),
        "users": sum(user.device == account for user in state.users.values()),
        "max_users": item.max_users,
        "index": item.index,
    }


def exchange(state: State, account: str) -> Shown:
    """Show an exchange."""
    item = state.exchanges[account]
    return {
        "account": account,
        "code": item.code,
        "name": item.name,
        "lat": item.lat,
        "lng": item.lng,
        "bgp_community": item.bgp_community,
        "status": name_of(records.EXCHANGE_STATUSES, item.status),
        "devices": [device.code for device in state.devices.values() if device.exchange == account],
    }


def group(state: State, account: str) -> Shown:
    """Show a multicast group; max_bandwidth in bit/s."""
    item = state.groups[account]
    users = state.users.values()
    return {
        "account": account,
        "code": item.code,
        "multicast_ip": str(item.multicast_ip),
        "max_bandwidth": item.max_bandwidth,
        "status": name_of(records.GROUP_STATUSES, item.status),
        "tenant": None if item.tenant == NO_KEY else code_of(state.tenants, item.tenant),
        "publishers": sum(account in user.publishers for user in users),
        "subscribers": sum(account in user.subscribers for user in users),
    }


def tenant(state: State, account: str) -> Shown:
    """Show a tenant."""
    item = state.tenants[account]
    users = sum(user.tenant == account for user in state.users.values())
    return {"account": account, **to_json(item), "users": users}


def access_pass(state: State, account: str) -> Shown:
    """Show an access pass; last_access_epoch null is "for ever"."""
    item = state.passes[account]
    for_ever = item.last_access_epoch == 2**64 - 1
    return {
        "account": account,
        "client_ip": str(item.client_ip),
        "payer": item.payer,
        "type": name_of(records.PASS_KINDS, item.kind),
        "key": None if item.key == NO_KEY else item.key,
        "status": name_of(records.PASS_STATUSES, item.status),
        "publish": [code_of(state.groups, key) for key in item.publish],
        "subscribe": [code_of(state.groups, key) for key in item.subscribe],
        "tenants": [code_of(state.tenants, key) for key in item.tenants],
        "last_access_epoch": None if for_ever else item.last_access_epoch,
        "max_unicast_users": item.max_unicast_users,
        "max_multicast_users": item.max_multicast_users,
    }


def config(state: State) -> Shown:
    """Show GlobalConfig and ProgramConfig."""
    found = {"account": state.config.account, **to_json(state.config)}
    versions = {"version": state.program.version, "min_compatible": state.program.min_compatible}
    return {**{key: value for key, value in found.items() if key != "bump"}, **versions}


def node(state: State) -> Shown:
    """Show how the node presents itself."""
    return {**to_json(state.node), "text": describe_node(state.node)}


def accounts(state: State) -> list[Shown]:
    """List every account with its bytes, as `dzagent render --accounts` reads them."""
    return [
        {
            "pubkey": account,
            "type": ACCOUNT_TYPES.get(data[0], str(data[0])) if data else "",
            "space": len(data),
            "data": base64.b64encode(data).decode(),
        }
        for account, data in bank.accounts(state).items()
    ]


def everything(state: State, slot: int) -> Shown:
    """Show the whole ledger."""
    return {
        "program_id": state.program_id,
        "genesis_hash": state.genesis_hash,
        "slot": slot,
        "payer": state.payer,
        "config": config(state),
        "node": node(state),
        "exchanges": [exchange(state, account) for account in state.exchanges],
        "devices": [device(state, account) for account in state.devices],
        "groups": [group(state, account) for account in state.groups],
        "tenants": [tenant(state, account) for account in state.tenants],
        "users": [user(state, account) for account in state.users],
        "passes": [access_pass(state, account) for account in state.passes],
        "put": list(state.raw),
    }
