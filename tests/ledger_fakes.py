"""Account bytes and a ledger that answers polls, for tests. Layouts: little endian borsh, no padding."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from solders.pubkey import Pubkey

from dzagent.errors import LaggingNode, LedgerError, MethodRefused
from dzagent.ledger.pda import config_address, program_config_address, user_address
from dzagent.ledger.transport import Traffic

PROGRAM = str(Pubkey(bytes([200] * 32)))
OTHER_PROGRAM = str(Pubkey(bytes([201] * 32)))
GENESIS = str(Pubkey(bytes([99] * 32)))
IP = IPv4Address("198.51.100.7")
OTHER_IP = IPv4Address("198.51.100.8")

CONFIG = config_address(PROGRAM)
PROGRAM_CONFIG = program_config_address(PROGRAM)


def key(number: int) -> str:
    """Return the address number N of the test ledger."""
    return str(Pubkey(number.to_bytes(32, "big")))


DEVICE, DEVICE2, EXCHANGE, TENANT, GROUP, GROUP2, OLD_USER = (key(2**200 + n) for n in range(7))
UNICAST = user_address(PROGRAM, IP, 0)
EDGE = user_address(PROGRAM, IP, 2)
MULTICAST = user_address(PROGRAM, IP, 3)
ZERO = bytes(32)


def pk(address: str) -> bytes:
    """Return the bytes of an address."""
    return bytes(Pubkey.from_string(address))


def text(value: str) -> bytes:
    """Write a borsh string."""
    return struct.pack("<I", len(value.encode())) + value.encode()


def keys(addresses: Sequence[str]) -> bytes:
    """Write a borsh vector of addresses."""
    return struct.pack("<I", len(addresses)) + b"".join(map(pk, addresses))


def config_bytes() -> bytes:
    """Return a GlobalConfig of 64 bytes."""
    blocks = [bytes([172, 16, 0, 0, 16]), bytes([169, 254, 0, 0, 16]), bytes([233, 84, 178, 0, 24])]
    asns = struct.pack("<II", 65000, 65342)
    return (
        b"\2"
        + ZERO
        + b"\xfe"
        + asns
        + b"".join(blocks)
        + struct.pack("<H", 10000)
        + bytes([148, 51, 120, 0, 21])
    )


def program_bytes() -> bytes:
    """Return a ProgramConfig."""
    return b"\x09\xff" + struct.pack("<6I", 0, 34, 0, 0, 30, 0)


def user_bytes(
    ip: IPv4Address = IP,
    kind: int = 0,
    *,
    device: str = DEVICE,
    tenant: str | None = None,
    status: int = 1,
    publishers: Sequence[str] = (),
    index: int = 0,
) -> bytes:
    """Return a User of 206 bytes and more."""
    head = b"\7" + ZERO + index.to_bytes(16, "little") + b"\xfd" + bytes([kind])
    links = (pk(tenant) if tenant else ZERO) + pk(device) + b"\1" + ip.packed + ip.packed
    tunnel = struct.pack("<H", 500) + bytes([169, 254, 0, 4, 31]) + bytes([status])
    rest = keys(publishers) + keys(()) + ZERO + bytes([192, 0, 2, 1]) + b"\0\1" + struct.pack("<3Q", 1, 2, 3)
    return head + links + tunnel + rest + keys(())


def device_bytes(code: str = "fra-dz001", *, index: int = 1, exchange: str = EXCHANGE) -> bytes:
    """Return a Device that ends after its reference count and users."""
    head = b"\5" + ZERO + index.to_bytes(16, "little") + b"\xfc" + ZERO + pk(exchange) + b"\0"
    body = bytes([192, 0, 2, 1]) + b"\1" + text(code) + struct.pack("<I", 1) + bytes([203, 0, 113, 0, 24])
    return head + body + ZERO + ZERO + text("") + struct.pack("<I", 0) + struct.pack("<IHH", 1, 1, 128)


def group_bytes(code: str = "mg01", *, index: int = 5) -> bytes:
    """Return a MulticastGroup."""
    head = b"\x08" + ZERO + index.to_bytes(16, "little") + b"\xfb" + ZERO + bytes([233, 84, 178, 1])
    return head + struct.pack("<Q", 10**9) + b"\1" + text(code) + struct.pack("<II", 1, 1)


def exchange_bytes() -> bytes:
    """Return an Exchange."""
    head = b"\4" + ZERO + (7).to_bytes(16, "little") + b"\xfa" + struct.pack("<dd", 50.1, 8.6)
    return (
        head
        + struct.pack("<HHB", 10001, 0, 1)
        + text("xfra")
        + text("Frankfurt")
        + struct.pack("<I", 1)
        + ZERO * 2
    )


def tenant_bytes() -> bytes:
    """Return a Tenant."""
    head = b"\x0d" + ZERO + b"\xf9" + text("solana") + struct.pack("<HI", 7, 1) + keys(())
    return head + b"\1" + ZERO + b"\1\1" + b"\0" + struct.pack("<QQ", 1, 1) + keys(())


def standard_accounts() -> dict[str, bytes]:
    """Return a small ledger with one unicast user of IP."""
    return {
        CONFIG: config_bytes(),
        PROGRAM_CONFIG: program_bytes(),
        UNICAST: user_bytes(tenant=TENANT),
        DEVICE: device_bytes(),
        EXCHANGE: exchange_bytes(),
        TENANT: tenant_bytes(),
        GROUP: group_bytes(),
    }


def account_json(data: bytes, owner: str = PROGRAM) -> dict[str, Any]:
    """Write an account as Agave does."""
    return {
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
        "lamports": 2324640,
        "owner": owner,
        "rentEpoch": 18446744073709551615,
        "space": len(data),
    }


@dataclass
class FakeLedger:
    """Answers like a node; `mangle(method, params, result)` may return another result or raise."""

    accounts: dict[str, bytes] = field(default_factory=standard_accounts)
    slot: int = 1000
    genesis: Any = GENESIS
    endpoint: str = "node-a"
    step: int = 10
    obeys_min_slot: bool = True
    mangle: Callable[[str, list[Any], Any], Any] | None = None
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)
    blamed: list[LedgerError] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    count: int = 0

    @property
    def traffic(self) -> Traffic:
        """Count a request as 100 bytes out and 1000 in."""
        return Traffic(self.count, 100 * self.count, 1000 * self.count)

    def blame(self, error: LedgerError) -> None:
        """Remember it."""
        self.blamed.append(error)

    def call(self, method: str, params: Sequence[Any] = (), *, max_body: int | None = None) -> Any:
        """Answer one call; each one finds the ledger `step` slots later.

        `refuses` holds methods, and "filters" for getProgramAccounts with filters.
        """
        self.calls.append((method, list(params)))
        self.count += 1
        filtered = method == "getProgramAccounts" and "filters" in params[1]
        if method in self.refuses or (filtered and "filters" in self.refuses):
            raise MethodRefused(f"RPC endpoint {self.endpoint} refused the request with error -32602.")
        assert (max_body is not None) == (method == "getProgramAccounts" and not filtered)
        if method != "getGenesisHash":
            self.slot += self.step
        result = getattr(self, f"_{method}")(*params)
        return self.mangle(method, list(params), result) if self.mangle else result

    def methods(self) -> list[str]:
        """Return the methods called, and forget them."""
        names = [method for method, _ in self.calls]
        self.calls.clear()
        return names

    def _getGenesisHash(self) -> Any:  # noqa: N802 - the method's name on the wire
        return self.genesis

    def _getMultipleAccounts(self, addresses: list[str], options: dict[str, Any]) -> Any:  # noqa: N802 - as above
        assert len(addresses) <= 100
        self._reached(options)
        value = [account_json(self.accounts[a]) if a in self.accounts else None for a in addresses]
        return {"context": {"slot": self.slot}, "value": value}

    def _getProgramAccounts(self, program: str, options: dict[str, Any]) -> Any:  # noqa: N802 - as above
        assert program == PROGRAM
        assert options["withContext"] is True
        self._reached(options)
        filters = options.get("filters", ())
        wanted = [(f["memcmp"]["offset"], unbase58(f["memcmp"]["bytes"])) for f in filters]
        value = [
            {"pubkey": address, "account": account_json(data)}
            for address, data in sorted(self.accounts.items())
            if all(data[offset : offset + len(part)] == part for offset, part in wanted)
        ]
        return {"context": {"slot": self.slot}, "value": value}

    def _reached(self, options: dict[str, Any]) -> None:
        if self.obeys_min_slot and options.get("minContextSlot", 0) > self.slot:
            raise LaggingNode("RPC endpoint node-a has not reached the wanted slot.")


def unbase58(value: str) -> bytes:
    """Read base58 (the inverse of what the poller writes, by another way)."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = 0
    for char in value:
        number = number * 58 + alphabet.index(char)
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes(len(value) - len(value.lstrip("1"))) + body
