"""The state of a session in doublezerod's words, but steady. No clock: every look brings its time.

Source of the words and of the 30 s: malbeclabs/doublezero client/doublezerod/internal/bgp/plugin.go. There a wrong
AS shows "Pending BGP Session" for ever, because each TCP connect starts the wait anew; here it is "BGP Session
Failed" for as long as it is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from dzagent.bgp.engine import PeerState

PENDING: Final = "Pending BGP Session"
INITIALIZING: Final = "Initializing BGP Session"
UP: Final = "BGP Session Up"
DOWN: Final = "BGP Session Down"
UNREACHABLE: Final = "Network Unreachable"
FAILED: Final = "BGP Session Failed"

PATIENCE: Final = 30.0
"""Seconds without a session after which it has failed, or the network is unreachable (doublezerod's timer)."""

DOWN_SHOWN: Final = 5.0
"""Seconds for which a lost session is "down" before it is "pending": doublezerod's next connect."""

MEMORY: Final = 60.0
"""Seconds for which a TCP connection proves that the device can be reached, and a telling reason outranks others."""

SURE: Final = 2
"""Refusals of the same kind in a row after which nobody needs to wait for the patience to end."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a session is not up.

    connected: whether TCP had been connected. telling: outranks what is not. lasting: will not pass by itself.
    """

    code: str
    message: str
    connected: bool = False
    telling: bool = False
    lasting: bool = False


_REASONS: Final = (
    ("Bad peer AS", Reason("BadPeerAS", "the device has another AS than the ledger says", True, True, True)),
    ("Connection refused", Reason("Refused", "the device refuses the connection")),
    ("Hold timer expired", Reason("HoldTimer", "nothing came from the device within the hold time", True, True)),
    ("Number of prefixes", Reason("PrefixLimit", "the device says that we announce too many prefixes", True, True)),
    ("Maximum number", Reason("PrefixLimit", "the device says that we announce too many prefixes", True, True)),
    ("No listening socket", Reason("ListenerPort", "the engine cannot listen: its port on the overlay address is taken")),
    ("Link down", Reason("LinkDown", "the tunnel is down")),
    ("Neighbor lost", Reason("LinkDown", "the tunnel is down")),
    ("Connection closed", Reason("ClosedByPeer", "the device closes the connection", True)),
    ("Connection reset", Reason("ClosedByPeer", "the device closes the connection", True)),
    ("No route to host", Reason("Unreachable", "the device cannot be reached")),
    ("Network is unreachable", Reason("Unreachable", "the device cannot be reached")),
    ("Host is unreachable", Reason("Unreachable", "the device cannot be reached")),
    ("timed out", Reason("Unreachable", "the device does not answer")),
    ("Administrative", Reason("ShutByPeer", "the device has shut the session down", True, True)),
    ("Received:", Reason("RefusedByPeer", "the device ends the session", True, True)),
    ("BGP Error:", Reason("ProtocolError", "the device does not speak BGP as it should", True, True)),
)  # fmt: skip


def reason_of(error: str) -> Reason | None:
    """Return what the engine's words for a failure mean; None if there are none."""
    if not error:
        return None
    for words, reason in _REASONS:
        if words in error:
            return replace(reason, message=f"{reason.message} ({_clean(error)})")
    return Reason("Failed", f"the session fails ({_clean(error)})")


def _clean(error: str) -> str:
    """Cut what a device can say (its shutdown message) to one short line."""
    return "".join(c if c.isprintable() else "?" for c in error[:120])


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session for people. Times are unix seconds; `failures` counts attempts since it was last up."""

    status: str = PENDING
    last_update: float = 0.0
    reason: str = ""
    message: str = ""
    failures: int = 0
    failed_at: float = 0.0
    up_since: float = 0.0
    waited: float | None = None
    """Seconds from the wish to the first "up"; None until then."""


class Session:
    """Follows one session from the moment it is wanted."""

    def __init__(self, now: float) -> None:
        self._began = self._down_since = now
        self._before: PeerState | None = None
        self._connected_at: float | None = None
        self._reason: Reason | None = None
        self._reason_at = 0.0
        self._same = 0
        self.view = SessionView(last_update=now)

    def see(self, state: PeerState, now: float) -> SessionView:
        """Take in one look at the session, at unix time `now`."""
        before, self._before = self._before, state
        if state.established:
            if self.view.status != UP or (before is not None and before.since != state.since):
                self._up(now)
            return self.view
        if self.view.status == UP:
            self._down(state, now)
        self._failure(before, state, now)
        self._show(self._word(state, now), now)
        return self.view

    def _up(self, now: float) -> None:
        waited = self.view.waited if self.view.waited is not None else now - self._began
        self.view = SessionView(UP, now, failures=0, up_since=now, waited=waited)
        self._connected_at, self._reason, self._same = now, None, 0

    def _down(self, state: PeerState, now: float) -> None:
        self._down_since, self._connected_at = now, None
        self._reason, self._same = None, 0
        self._show(DOWN, now)
        self._take(reason_of(state.error), now)

    def _failure(self, before: PeerState | None, state: PeerState, now: float) -> None:
        """Count an attempt that ended: the words for it are new, or the engine waits anew."""
        if state.state in {"OpenSent", "OpenConfirm"}:
            self._connected_at = now
        if before is None or before.established or not state.error:
            if before is None:
                self._take(reason_of(state.error), now)
            return
        longer = state.retry is not None and before.retry is not None and state.retry > before.retry
        if state.error != before.error or longer:
            self._take(reason_of(state.error), now)

    def _take(self, reason: Reason | None, now: float) -> None:
        if reason is None:
            return
        self.view = replace(self.view, failures=self.view.failures + 1, failed_at=now)
        if reason.connected:
            self._connected_at = now
        outranked = self._reason is not None and self._reason.telling and not reason.telling
        if outranked and now - self._reason_at < MEMORY:
            return
        self._same = self._same + 1 if self._reason is not None and self._reason.code == reason.code else 1
        self._reason, self._reason_at = reason, now
        self.view = replace(self.view, reason=reason.code, message=reason.message)

    def _word(self, state: PeerState, now: float) -> str:
        connected = self._connected_at is not None and now - self._connected_at < MEMORY
        if now - self._down_since >= PATIENCE:
            return FAILED if connected else UNREACHABLE
        if self._reason is not None and self._reason.lasting and self._same >= SURE:
            return FAILED
        if state.state == "OpenConfirm":
            return INITIALIZING
        if self.view.status == DOWN and now - self._down_since < DOWN_SHOWN:
            return DOWN
        return self.view.status if self.view.status == FAILED and connected else PENDING

    def _show(self, status: str, now: float) -> None:
        if status != self.view.status:
            self.view = replace(self.view, status=status, last_update=now, up_since=0.0)
