"""The RPC methods: a view of the ledger and parameters -> the result, as Agave gives it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from dzagent.devledger import base58
from dzagent.devledger.node import Source, View
from dzagent.devledger.params import (
    INVALID_REQUEST,
    KEY_EXCLUDED,
    METHOD_NOT_FOUND,
    MIN_CONTEXT_SLOT_NOT_REACHED,
    NODE_UNHEALTHY,
    Options,
    RpcError,
    Slice,
    arguments,
    invalid,
    key,
    options,
    unsigned,
)
from dzagent.devledger.zstd import frame

MAX_KEYS = 100
MAX_BASE58_BYTES = 128
API_VERSION = "2.3.6"
"""The release of Agave whose answers these are."""

_FEATURE_SET = 3294202862
_SLOTS_PER_EPOCH = 432000
_RENT_EPOCH = 2**64 - 1
_LAMPORTS_PER_BYTE = 6960
_ACCOUNT_OVERHEAD = 128
"""Rent exemption: two years at 3,480 lamports a byte and year, with 128 bytes for the account itself."""


def call(source: Source, method: str, params: Any) -> Any:
    """Return the result of a call. Raises RpcError."""
    answer = METHODS.get(method)
    if answer is None:
        raise RpcError(METHOD_NOT_FOUND, "Method not found")
    return answer(source, params)


def _get_account_info(source: Source, params: Any) -> Any:
    address, config = arguments(params, 1, 2)
    address, asked = key(address), options(config)
    view = _view(source, asked)
    return _with_context(view, _account(view, address, asked, asked.encoding or "binary"))


def _get_multiple_accounts(source: Source, params: Any) -> Any:
    addresses, config = arguments(params, 1, 2)
    if not isinstance(addresses, list):
        raise invalid("Invalid params: invalid type: expected a sequence of addresses.")
    if len(addresses) > MAX_KEYS:
        raise invalid(f"Too many inputs provided; max {MAX_KEYS}")
    keys, asked = [key(address) for address in addresses], options(config)
    view = _view(source, asked)
    encoding = asked.encoding or "base64"
    return _with_context(view, [_account(view, address, asked, encoding) for address in keys])


def _get_program_accounts(source: Source, params: Any) -> Any:
    program, config = arguments(params, 1, 2)
    program, asked = key(program), options(config)
    view = _view(source, asked)
    if program in view.node.excluded:
        message = f"{program} excluded from account secondary indexes; this RPC method unavailable for key"
        raise RpcError(KEY_EXCLUDED, message)
    owned: Mapping[str, bytes] = view.accounts if program == view.program_id else {}
    # Sorted by address always: without sortResults Agave promises no order.
    found = [
        {"account": encode(view, data, asked.data_slice, asked.encoding or "binary"), "pubkey": address}
        for address, data in owned.items()
        if all(item.allows(data) for item in asked.filters)
    ]
    return _with_context(view, found) if asked.with_context else found


def _get_slot(source: Source, params: Any) -> Any:
    (config,) = arguments(params, 0, 1)
    return _view(source, options(config)).slot


def _get_epoch_info(source: Source, params: Any) -> Any:
    (config,) = arguments(params, 0, 1)
    slot = _view(source, options(config)).slot
    epoch, index = divmod(slot, _SLOTS_PER_EPOCH)
    return {
        "absoluteSlot": slot,
        "blockHeight": slot,
        "epoch": epoch,
        "slotIndex": index,
        "slotsInEpoch": _SLOTS_PER_EPOCH,
        "transactionCount": slot,
    }


def _get_health(source: Source, params: Any) -> Any:
    arguments(params, 0, 0)
    node = source.view("processed").node
    if node.healthy:
        return "ok"
    behind = node.slots_behind
    message = "Node is unhealthy" if behind is None else f"Node is behind by {behind} slots"
    raise RpcError(NODE_UNHEALTHY, message, {"numSlotsBehind": behind})


def _get_version(_source: Source, params: Any) -> Any:
    arguments(params, 0, 0)
    return {"feature-set": _FEATURE_SET, "solana-core": API_VERSION}


def _get_genesis_hash(source: Source, params: Any) -> Any:
    arguments(params, 0, 0)
    return source.view("finalized").genesis_hash


def _get_rent_exemption(_source: Source, params: Any) -> Any:
    size, _config = arguments(params, 1, 2)
    return lamports(unsigned(size))


METHODS: Mapping[str, Callable[[Source, Any], Any]] = {
    "getAccountInfo": _get_account_info,
    "getBlockHeight": _get_slot,
    "getEpochInfo": _get_epoch_info,
    "getGenesisHash": _get_genesis_hash,
    "getHealth": _get_health,
    "getMinimumBalanceForRentExemption": _get_rent_exemption,
    "getMultipleAccounts": _get_multiple_accounts,
    "getProgramAccounts": _get_program_accounts,
    "getSlot": _get_slot,
    "getVersion": _get_version,
}


def _view(source: Source, asked: Options) -> View:
    view = source.view(asked.commitment)
    if asked.min_context_slot is not None and view.slot < asked.min_context_slot:
        message = "Minimum context slot has not been reached"
        raise RpcError(MIN_CONTEXT_SLOT_NOT_REACHED, message, {"contextSlot": view.slot})
    return view


def _with_context(view: View, value: Any) -> Any:
    return {"context": {"apiVersion": API_VERSION, "slot": view.slot}, "value": value}


def _account(view: View, address: str, asked: Options, encoding: str) -> Any:
    data = view.accounts.get(address)
    return None if data is None else encode(view, data, asked.data_slice, encoding)


def encode(view: View, data: bytes, part: Slice | None, encoding: str) -> Any:
    """Write one account as an answer has it. Raises RpcError."""
    shown = data if part is None else part.of(data)
    return {
        "data": _data(shown, encoding),
        "executable": False,
        "lamports": lamports(len(data)),
        "owner": view.program_id,
        "rentEpoch": _RENT_EPOCH,
        "space": len(data),
    }


def _data(data: bytes, encoding: str) -> Any:
    """Write the data field; "jsonParsed" is base64 for a program that no node can parse."""
    if encoding in {"binary", "base58"}:
        if len(data) > MAX_BASE58_BYTES:
            message = (
                f"Encoded binary (base 58) data should be less than {MAX_BASE58_BYTES} bytes, "
                "please use Base64 encoding."
            )
            raise RpcError(INVALID_REQUEST, message)
        text = base58.encode(data)
        return text if encoding == "binary" else [text, encoding]
    if encoding == "base64+zstd":
        return [base64.b64encode(frame(data)).decode(), encoding]
    return [base64.b64encode(data).decode(), "base64"]


def lamports(size: int) -> int:
    """Return what an account of this many bytes must hold to be exempt from rent."""
    return (_ACCOUNT_OVERHEAD + size) * _LAMPORTS_PER_BYTE
