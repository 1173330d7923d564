"""Which service an object of ours belongs to. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dzagent.ipvalues import mark
from dzagent.model import MAIN_TABLE, KernelObject, Link, Route, Rule, ServiceName, Step
from dzagent.nftmodel import NftTable


def service_of(obj: KernelObject, links: Mapping[ServiceName, str]) -> ServiceName | None:
    """Return the service of an object, None if it is none of ours; `links` are our links by service."""
    if isinstance(obj, Rule):
        return "unicast"  # only EdgeFiltering has rules
    if isinstance(obj, NftTable):
        return None  # the services share it
    if isinstance(obj, Link) and obj.name not in links.values():  # one of ours that somebody renamed
        return next((name for name in links if obj.alias == mark(name)), None)
    dev = obj.name if isinstance(obj, Link) else obj.dev
    return next((name for name, link in links.items() if link == dev), None)


def learnable(obj: KernelObject) -> bool:
    """Tell whether an object of ours is a route as BGP teaches it: in the main table, and not of a group."""
    return isinstance(obj, Route) and obj.table == MAIN_TABLE and not obj.dst.is_multicast


def service_of_step(step: Step, links: Mapping[ServiceName, str]) -> ServiceName | None:
    """Return the service whose text a step is from, or, where it is from none, that of its object."""
    return step.origin.service if step.origin is not None else service_of(step.target, links)
