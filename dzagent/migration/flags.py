"""What doublezerod was started with, and what of it this agent has to be told too. Pure, but for the reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dzagent.config import PROGRAM_IDS, Config, redact_url
from dzagent.policy import Policy

DEFAULT_ENV: Final = "testnet"
"""doublezerod's own default of -env; its mainnet package passes another one."""

_SWITCHES: Final = frozenset(
    {
        "v", "version", "metrics-enable", "latency-probing", "latency-probe-tunnel-endpoints", "latency-single-socket",
        "enable-latency-metrics", "route-liveness-enable-passive", "route-liveness-enable-active",
        "route-liveness-peer-metrics", "route-liveness-debug",
    }
)  # fmt: skip
"""Flags that take no word after them (Go's boolean flags)."""
_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Findings:
    """blockers: it reads another ledger than we do. notes: what differs and may matter."""

    blockers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_words(proc: Path, pid: int, name: str) -> tuple[str, ...]:
    """Return the NUL-separated words of /proc/PID/`name` (cmdline, environ), () where they may not be read."""
    try:
        with (proc / str(pid) / name).open("rb") as file:
            data = file.read(_MAX)
    except OSError:
        return ()
    return tuple(word for word in data.decode(errors="replace").split("\0") if word)


def parse_flags(words: Sequence[str]) -> Mapping[str, str]:
    """Read flags as Go's flag package does: -name value, -name=value, --name..., until the first other word."""
    found: dict[str, str] = {}
    left = list(words[1:])
    while left and left[0].startswith("-") and left[0] not in {"-", "--"}:
        name, equals, value = left.pop(0).lstrip("-").partition("=")
        if not equals and name not in _SWITCHES:
            value = left.pop(0) if left else ""
        found[name] = value
    return found


def compare(
    flags: Mapping[str, str], environment: Mapping[str, str], config: Config, policy: Policy
) -> Findings:
    """Say what doublezerod was told otherwise than this agent. URLs may hold tokens: only their hosts are shown."""
    env = {"mainnet": "mainnet-beta"}.get(flags.get("env", DEFAULT_ENV), flags.get("env", DEFAULT_ENV))
    program = flags.get("program-id") or PROGRAM_IDS.get(env, "")
    blockers: list[str] = []
    notes: list[str] = []
    if program and program != config.program_id:
        told = (
            f"doublezerod reads network {env or 'custom'} (program {program:.44}), dzagent reads {config.network} "
            f"(program {config.program_id}): set network in {config.file}"
        )
        # without a flag it is a guess: a wrapper may hide them
        (blockers if flags.keys() & {"env", "program-id"} else notes).append(told)
    pinned = flags.get("client-ip", "")
    if pinned and pinned != str(config.client_ip):
        notes.append(
            f"doublezerod runs with -client-ip {pinned:.40}: set client_ip in {config.file} if it is needed"
        )
    state = flags.get("state-dir", "")
    if state and Path(state) != config.doublezerod.state:
        notes.append(f"doublezerod keeps its state in {state:.200}: set doublezerod.state in {config.file}")
    routes = flags.get("route-config", "")
    if routes and Path(routes) != policy.bgp.route_config:
        notes.append(f"doublezerod excludes routes by {routes:.200}: set bgp.route_config in the policy")
    asked = flags.get("solana-rpc-endpoint") or environment.get("DZ_LEDGER_RPC_URL", "")
    note = _endpoint(asked, config)
    return Findings(tuple(blockers), (*notes, *note))


def _endpoint(url: str, config: Config) -> tuple[str, ...]:
    if not url or url in config.rpc:
        return ()
    try:
        shown = redact_url(url)
    except ValueError:
        shown = "something that is no URL"
    ours = ", ".join(redact_url(rpc) for rpc in config.rpc) or "none"
    return (f"doublezerod asks the ledger at {shown:.200}; the configuration's rpc: {ours}",)
