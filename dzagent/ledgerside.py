"""Puts the ledger side together: endpoints, poller, stored snapshot, poll thread, websocket."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from dzagent.bootclock import boot_seconds
from dzagent.config import Config
from dzagent.errors import ConfigError, LedgerError, StateError, Unreachable
from dzagent.feed import Extras, LedgerFeed, LedgerView, Timing, restored_view, rpc_hosts
from dzagent.files import write_json
from dzagent.identity import RpcAddresses
from dzagent.ledger.poller import DirectPoller, Pace
from dzagent.ledger.push import Push
from dzagent.ledger.rpc import Rpc
from dzagent.ledger.snapshot import Snapshot
from dzagent.ledger.store import SnapshotStore, Stored
from dzagent.ledger.transport import RpcClient, Traffic
from dzagent.policy import Policy
from dzagent.state import ForgetRequests

log = logging.getLogger(__name__)

JITTER = 0.2
"""Polls of many hosts are spread by this share of the interval, either way."""


class NoRpc:
    """Stands in for an endpoint that is not configured yet: the agent runs, and says what is missing."""

    endpoint = ""
    traffic = Traffic()

    def __init__(self, config: Config) -> None:
        self._config = config

    def call(self, _method: str, _params: Sequence[Any] = (), *, max_body: int | None = None) -> Any:
        """Say what to configure."""
        del max_body
        try:
            self._config.require_rpc()
        except ConfigError as error:
            raise Unreachable(str(error)) from error

    def blame(self, error: LedgerError) -> None:
        """There is nobody to blame."""


class LedgerSide:
    """Everything that asks the ledger. `on_news` is called from the poll thread after each poll."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        *,
        candidates: Callable[[], Sequence[IPv4Address]],
        on_news: Callable[[], None],
    ) -> None:
        chance = random.SystemRandom()
        self._rpc = (
            Rpc(config.rpc, timeout=config.intervals.rpc_timeout, budget=config.rpc_budget)
            if config.rpc
            else None
        )
        client: RpcClient = self._rpc or NoRpc(config)
        store = SnapshotStore(config.paths.snapshot, config.program_id, now=time.time, clock=boot_seconds)
        stored, view = _earlier(store, policy)

        def jitter() -> float:
            return chance.uniform(1 - JITTER, 1 + JITTER)

        self.feed = LedgerFeed(
            DirectPoller(
                client,
                config.program_id,
                absent_polls=policy.absent_polls,
                previous=stored.snapshot if stored else None,
                commitment=config.commitment,
                pace=Pace(config.intervals.search, config.intervals.devices, jitter),
                full_fetch=config.full_fetch,
            ),
            candidates=candidates,
            on_news=on_news,
            publish=lambda report: write_json(config.paths.ledger, report),
            resolve=RpcAddresses(rpc_hosts(config.rpc), clock=time.monotonic).addresses,
            endpoint=lambda: client.endpoint,
            interval=config.intervals.poll,
            timing=Timing(time.time, boot_seconds, jitter, chance.random),
            view=view,
            extras=Extras(
                store=store,
                forget_asked=ForgetRequests(config.paths.forget, time.time).asked,
                accept_change=policy.ledger.changed == "accept",
                clock_offset=lambda: self._rpc.clock_offset if self._rpc else None,
                health=self._health,
                followed=self._follow,
                rest=lambda: self._push.watch((), ()),
            ),
        )
        self._push = Push(
            config.websocket,
            config.program_id,
            on_hint=self.feed.hint,
            commitment=config.commitment,
            chance=chance.random,
        )

    def start(self) -> None:
        """Start the threads."""
        self.feed.start()
        self._push.start()

    def stop(self) -> None:
        """Stop the threads."""
        self._push.stop()
        if self.feed.stop() and self._rpc is not None:
            self._rpc.close()

    def _health(self) -> Mapping[str, Any]:
        return {
            "endpoints": self._rpc.health() if self._rpc else [],
            "push": self._push.state.as_json(),
        }

    def _follow(self, snapshot: Snapshot, ips: Sequence[IPv4Address]) -> None:
        """Listen to own users only: devices and groups change with everybody's users, and would wake everybody."""
        self._push.watch(ips, snapshot.users)


def _earlier(store: SnapshotStore, policy: Policy) -> tuple[Stored | None, LedgerView]:
    """Return what an earlier process stored, and the view to start from."""
    try:
        stored = store.load()
    except StateError as error:
        log.warning("ledger: %s", error)
        return None, LedgerView(not_restored=str(error))
    view = restored_view(stored, time.time(), boot_seconds(), policy.ledger.restore_max_age)
    if view.restored and stored is not None:
        log.info("ledger: stored data of slot %d counts until the first answer", stored.snapshot.slot)
    elif stored is not None:
        log.warning("ledger: %s", view.not_restored)
    return stored, view
