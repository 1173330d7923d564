"""The kernel of this host: what `ip` and `nft` hold and change, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.nft import Nft
from dzagent.kernel.watchlines import Touched
from dzagent.model import Interest, Observed, Outcome, Step
from dzagent.nftmodel import NftTable


class HostKernel:
    """Implements `Kernel`: two processes observe everything, one for each tool carries out a phase."""

    def __init__(self, ip: IpRoute | None = None, nft: Nft | None = None) -> None:
        self._ip = ip or IpRoute()
        self._nft = nft or Nft()

    def observe(self, interest: Interest) -> Observed:
        """Read everything; raises what `IpRoute.observe` raises: what is wrong with nft is in the answer."""
        return replace(self._ip.observe(interest), nft=self._nft.observe())

    def reread(self, interest: Interest, touched: Touched, before: Observed) -> Observed:
        """Return what was seen `before`, with what was touched read again; raises what `IpRoute.reread` raises."""
        observed = self._ip.reread(interest, touched, before)
        return replace(observed, nft=self._nft.observe()) if touched.tables else observed

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        """Run the steps of one phase, each with its tool; one outcome a step, in their order."""
        of_ip = [step for step in steps if not isinstance(step.target, NftTable)]
        outcomes = iter(self._ip.apply(of_ip) if of_ip else ())
        return tuple(
            self._nft.apply(step) if isinstance(step.target, NftTable) else next(outcomes) for step in steps
        )

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        """As `IpRoute.source_for`."""
        return self._ip.source_for(dst)
