"""Services -> peers -> the text of the engine's services file, by templates/bird_services.j2. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dzagent.bgp.engine import Peer
from dzagent.model import MAIN_TABLE, Service, UserType
from dzagent.render import Templates

TEMPLATE: Final = "bird_services.j2"


def peer_of(service: Service, edge_table: int) -> Peer:
    """Return the session of a service (upstream: services, the options of AddPeer of each type).

    edge_table: where an EdgeFiltering user's routes go. A multicast service has a session and learns nothing; a
    subscriber announces nothing. Routes of IBRLWithAllocatedIP outlive their session.
    """
    unicast = service.name == "unicast"
    return Peer(
        service=service.name,
        link=service.link,
        local=service.local_overlay,
        remote=service.remote_overlay,
        local_asn=service.local_asn,
        remote_asn=service.remote_asn,
        router_id=service.dz_ip or service.tunnel_src,
        advertise=service.dz_ip if unicast or service.publish else None,
        table=edge_table if service.user_type is UserType.EDGE_FILTERING else MAIN_TABLE,
        install=unicast and service.dz_ip is not None,
        keep=service.user_type is UserType.IBRL_WITH_ALLOCATED_IP,
    )


def render_services(peers: Iterable[Peer], templates: Templates, *, port: int, limit: int) -> str:
    """Return the text of the services file. port: the engine's own; limit: routes accepted from one peer.

    Raises TemplateError.
    """
    return templates.render(TEMPLATE, {"peers": tuple(peers), "port": port, "limit": limit})
