"""What the loop needs from a kernel. Implemented by `iproute.IpRoute`, and by a fake in the tests."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Protocol

from dzagent.model import Interest, Observed, Outcome, Step


class Kernel(Protocol):
    """The routing state of one network namespace."""

    def observe(self, interest: Interest) -> Observed:
        """Read everything that `interest` covers.

        Raises ObservationError if any part of it could not be read, and KernelError if the tool cannot run.
        """

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        """Run the steps of one phase, in order, each whether or not another failed; one outcome a step.

        Raises KernelTimeout if the tool had to be killed, and KernelError if it cannot be started: a failed step
        is an outcome.
        """

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        """Return the source address that the kernel would use towards `dst`; None if it has no route."""
