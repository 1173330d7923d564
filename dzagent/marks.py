"""The marks by which our objects are told, and their record of the last start.

A configuration can be broken, or changed since, when everything has to be taken down: then the record says which
links, and which protocol number, the running agent has used.
"""

from __future__ import annotations

from typing import Any

from dzagent.config import Config
from dzagent.errors import StateError
from dzagent.files import read_json, write_json
from dzagent.ownership import Ownership
from dzagent.policy import Policy

NAME = "marks.json"
"""File below the directory of the reconciler: like the kernel's state it does not outlive a boot."""

_ALIAS = "dzagent:"


def ownership(config: Config, policy: Policy) -> Ownership:
    """Return the marks that a configuration asks for."""
    links = config.links
    return Ownership(
        protocol=policy.protocol,
        links={links.unicast: f"{_ALIAS}unicast", links.multicast: f"{_ALIAS}multicast"},
    )


def write_marks(config: Config, owner: Ownership) -> None:
    """Record the marks that this start uses. Raises StateError."""
    document = {"protocol": owner.protocol, "links": dict(owner.links)}
    write_json(config.paths.agent / NAME, document)


def read_marks(config: Config) -> Ownership | None:
    """Return what the last start recorded, None if nothing usable: a file that anybody damaged proves nothing."""
    try:
        document = read_json(config.paths.agent / NAME)
    except StateError:
        return None
    return _decode(document)


def _decode(document: Any) -> Ownership | None:
    if not isinstance(document, dict):
        return None
    protocol, links = document.get("protocol"), document.get("links")
    if type(protocol) is not int or not 4 < protocol < 256 or not isinstance(links, dict):
        return None
    if not all(isinstance(alias, str) and alias.startswith(_ALIAS) for alias in links.values()):
        return None
    return Ownership(protocol, links)
