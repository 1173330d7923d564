"""Peers -> the engine's services file, by templates/bird_services.j2. Pure but for reading the template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from dzagent.bgp.engine import Peer
from dzagent.errors import TemplateError
from dzagent.model import Service, UserType

TEMPLATE: Final = "bird_services.j2"

EDGE_TABLE: Final = 100
MAIN: Final = 254


def peer_of(service: Service, *, main: int, edge: int) -> Peer:
    """Return the session of a service (upstream: services, the options of AddPeer of each type).

    main, edge: tables for what is learned. A multicast service has a session and learns nothing; a subscriber
    announces nothing. Routes of IBRLWithAllocatedIP outlive their session.
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
        table=edge if service.user_type is UserType.EDGE_FILTERING else main,
        install=unicast and service.dz_ip is not None,
        keep=service.user_type is UserType.IBRL_WITH_ALLOCATED_IP,
    )


def render_services(peers: Iterable[Peer], *, port: int, limit: int, search: Sequence[Path]) -> str:
    """Return the text of the services file. port: the engine's own; limit: routes accepted from one peer.

    search: directories of templates, the operator's first. Raises TemplateError.
    """
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader([str(path) for path in search]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML: addresses, numbers and a checked link name
    )
    try:
        return environment.get_template(TEMPLATE).render(peers=list(peers), port=port, limit=limit)
    except jinja2.TemplateError as error:
        line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
        raise TemplateError(f"the template cannot be rendered: {error}", file=TEMPLATE, line=line) from error
