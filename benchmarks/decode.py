"""What decoding costs, as ratios to reading one user: `python -m benchmarks.decode` or `make bench`."""

from __future__ import annotations

import struct
import timeit
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dzagent.ledger.accounts import decode
from dzagent.ledger.document import document

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures" / "accounts"
RUNS, REPEATS = 300, 5


def device_with(count: int) -> bytes:
    """Return a device with as many interfaces in both of its lists as real ones have."""
    data = (FIXTURES / "device.bin").read_bytes()
    head, one = data[:208], b"\1\3" + struct.pack("<I", 12) + b"Ethernet1/12" + bytes(33)
    sized = struct.pack("<HB", len(one) + 6, 4) + one[1:] + bytes(4)
    counters = data[-146 - 24 : -146]
    number = struct.pack("<I", count)
    return head + number + one * count + counters + number + sized * count


def cases() -> Mapping[str, Callable[[], object]]:
    """Return what is measured, the base of the ratios first."""
    user = (FIXTURES / "user.bin").read_bytes()
    others = {
        name: (FIXTURES / f"{name}.bin").read_bytes() for name in ("global_config", "tenant", "exchange")
    }
    huge = user[:132] + b"\xff" * 4 + user[136:]
    devices = {count: device_with(count) for count in (0, 12, 48)}
    return {
        "user": partial(decode, user),
        **{name: partial(decode, data) for name, data in others.items()},
        **{f"device, {n} interfaces": partial(decode, data) for n, data in devices.items()},
        "user that announces 4 billion groups": partial(decode, huge),
        "not decoded (10 kB)": partial(decode, b"\x0c" + bytes(10_000)),
        "user, as a JSON document": partial(document, user),
    }


def main() -> None:
    best = {
        name: min(timeit.repeat(run, number=RUNS, repeat=REPEATS)) / RUNS for name, run in cases().items()
    }
    base = best["user"]
    print(f"{'account':<40} {'us':>8} {'ratio':>7}")
    for name, seconds in best.items():
        print(f"{name:<40} {seconds * 1e6:>8.1f} {seconds / base:>7.2f}")


if __name__ == "__main__":
    main()
