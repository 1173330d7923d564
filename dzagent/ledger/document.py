"""An account as a person reads it: the JSON document of `dzagent ledger decode`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Address
from typing import Any, TypeAlias

from dzagent.ledger.accounts import (
    TYPE_NAMES,
    Account,
    FeedSeat,
    Interface,
    Net,
    Other,
    Segment,
    read,
    refusal,
)

Names: TypeAlias = Mapping[int, str]
"""What the numbers of an enum mean; one that is not here has no name."""

_CYOA: Names = {
    0: "none",
    1: "gre_over_dia",
    2: "gre_over_fabric",
    3: "gre_over_private_peering",
    4: "gre_over_public_peering",
    5: "gre_over_cable",
}

# Numbers as in the program (smartcontract/.../src/state), words as in upstream's
# sdk/serviceability/testdata/enum_strings.json, whose numbers for DeviceStatus are not the program's.
_ENUMS: Mapping[str, Mapping[str, Names]] = {
    "User": {
        "user_type": {0: "ibrl", 1: "ibrl_with_allocated_ip", 2: "edge_filtering", 3: "multicast"},
        "cyoa_type": _CYOA,
        "status": {
            0: "pending (deprecated)",
            1: "activated",
            2: "suspended (deprecated)",
            3: "deleting",
            4: "rejected (deprecated)",
            5: "pending_ban (deprecated)",
            6: "banned",
            7: "updating (deprecated)",
            8: "out_of_credits",
        },
        "bgp_status": {0: "unknown", 1: "up", 2: "down"},
    },
    "Device": {
        "device_type": {0: "hybrid", 1: "transit", 2: "edge"},
        "status": {
            0: "pending (deprecated)",
            1: "activated",
            2: "suspended",
            3: "deleting",
            4: "rejected (deprecated)",
            5: "drained",
            6: "device-provisioning",
            7: "link-provisioning",
        },
        "device_health": {
            0: "unknown",
            1: "pending",
            2: "ready_for_links",
            3: "ready_for_users",
            4: "impaired",
        },
        "desired_status": {0: "pending", 1: "activated", 6: "drained"},
    },
    "Interface": {
        "status": {
            0: "invalid",
            1: "unmanaged",
            2: "pending",
            3: "activated",
            4: "deleting",
            5: "rejected",
            6: "unlinked",
        },
        "type": {0: "invalid", 1: "loopback", 2: "physical"},
        "cyoa": _CYOA,
        "dia": {0: "none", 1: "dia"},
        "loopback": {0: "none", 1: "vpnv4", 2: "ipv4", 3: "pim_rp_addr"},
        "routing_mode": {0: "static", 1: "bgp"},
    },
    "Exchange": {"status": {0: "pending (deprecated)", 1: "activated", 2: "suspended"}},
    "MulticastGroup": {
        "status": {
            0: "pending (deprecated)",
            1: "activated",
            2: "suspended",
            3: "deleting",
            4: "rejected (deprecated)",
        },
    },
    "Tenant": {
        "payment_status": {0: "delinquent", 1: "paid"},
        "billing": {0: "flat_per_epoch"},
    },
    "AccessPass": {
        "tag": {0: "prepaid", 1: "solana_validator", 2: "solana_rpc", 3: "others", 4: "edge_seat"},
        "status": {0: "requested", 1: "connected", 2: "disconnected", 3: "expired (deprecated)"},
    },
}

_NOT_FIELDS = frozenset(field.name for field in fields(Account))


def document(data: bytes) -> dict[str, Any]:
    """Return what the bytes of an account say, as JSON values; raise DecodeError if there are none.

    An account that is too short to be used is shown as far as it goes. Fields that it does not hold are listed in
    "missing" and have their defaults.
    """
    account = read(data)
    return {
        "type": TYPE_NAMES.get(data[0]),
        "type_number": data[0],
        "fields": _fields(account, data[0]),
        "missing": list(account.missing),
        "trailing_bytes": account.trailing,
        "problems": [*account.problems, *_remarks(account)],
    }


def _fields(account: Account, number: int) -> dict[str, Any]:
    if isinstance(account, Other):
        return {}
    return {"account_type": number, **_members(account, _NOT_FIELDS)}


def _remarks(account: Account) -> list[str]:
    if isinstance(account, Other):
        name = TYPE_NAMES.get(account.type_number)
        if name is None:
            return [f"account type {account.type_number} is not known: its fields cannot be read"]
        return [f"{name} accounts are not used for provisioning: their fields are not read"]
    why = refusal(account)
    return [] if why is None else [f"provisioning would refuse this account: {why}"]


def _members(value: Account | Interface | Segment | FeedSeat, without: frozenset[str] = frozenset()) -> Any:
    enums = _ENUMS.get(type(value).__name__, {})
    names = [field.name for field in fields(value) if field.name not in without]
    return {name: _json(getattr(value, name), enums.get(name)) for name in names}


def _json(value: Any, enum: Names | None = None) -> Any:
    if enum is not None:
        return {"value": value, "name": enum.get(value)}
    if isinstance(value, (IPv4Address, Net)):
        return str(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, (Interface, Segment, FeedSeat)):
        return _members(value)
    return value
