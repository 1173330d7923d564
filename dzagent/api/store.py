"""Where the API writes what a person wants: files and a datagram."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dzagent import state
from dzagent.state import ApprovalRequest, Intent


class IntentStore(Protocol):
    """Where wishes are written. Every method may raise StateError; then nothing has changed."""

    def write(self, path: Path, intent: Intent) -> None:
        """Write the intent durably."""

    def request_apply(self, path: Path, plan_id: str, confirm: int | None = None) -> None:
        """Ask for a plan to be applied, and rolled back if nobody confirms it within `confirm` seconds."""

    def request_confirm(self, path: Path, plan_id: str) -> None:
        """Confirm a plan that would else be rolled back."""

    def request_approval(self, path: Path, request: ApprovalRequest) -> None:
        """Ask for something withheld to be let through."""

    def request_forget(self, path: Path, now: float) -> None:
        """Ask for the ledger to be forgotten."""

    def wake(self, path: Path, reason: str) -> bool:
        """Tell the reconciler to look now; False if it is not there, which is no error."""


class FileStore:
    """The real store: files and a datagram."""

    def write(self, path: Path, intent: Intent) -> None:
        """Write the intent durably."""
        state.write_intent(path, intent)

    def request_apply(self, path: Path, plan_id: str, confirm: int | None = None) -> None:
        """Ask for a plan to be applied, and rolled back if nobody confirms it within `confirm` seconds."""
        state.request_apply(path, plan_id, confirm)

    def request_confirm(self, path: Path, plan_id: str) -> None:
        """Confirm a plan that would else be rolled back."""
        state.request_confirm(path, plan_id)

    def request_approval(self, path: Path, request: ApprovalRequest) -> None:
        """Ask for something withheld to be let through."""
        state.request_approval(path, request)

    def request_forget(self, path: Path, now: float) -> None:
        """Ask for the ledger to be forgotten."""
        state.request_forget(path, now)

    def wake(self, path: Path, reason: str) -> bool:
        """Tell the reconciler to look now; False if it is not there, which is no error."""
        return state.send_wake(path, reason)
