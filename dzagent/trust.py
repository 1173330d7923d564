"""What each service was made by: templates, policy, version, configuration. A change of these proves nothing.

Kept on disk, since all but the templates change only while the agent does not run. Where nothing is known (the first
start, a lost file) what is there now counts as known: then nothing was made by anything else.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dzagent.config import Config
from dzagent.errors import StateError
from dzagent.files import read_json, write_json
from dzagent.held import Held
from dzagent.intent import IntentView
from dzagent.model import SERVICE_NAMES, Action, Plan, ServiceName
from dzagent.policy import Policy
from dzagent.wishes import Text, Wishes

log = logging.getLogger(__name__)

_TEMPLATES = re.compile(r"^# templates: (\S+)$", re.MULTILINE)
_DIGEST = re.compile(r"[\w.+-]{0,64}")


@dataclass(frozen=True, slots=True)
class Makers:
    """What makes a service what it is, beside the ledger: each a short hash or a version, "" if not known."""

    templates: str = ""
    policy: str = ""
    version: str = ""
    configuration: str = ""

    def changed(self, since: Makers) -> str:
        """Say what has changed, "" if nothing."""
        names = {
            "the templates": (self.templates, since.templates),
            "the policy": (self.policy, since.policy),
            "the version of dzagent": (self.version, since.version),
            "the configuration": (self.configuration, since.configuration),
        }
        found = [name for name, (now, before) in names.items() if now != before]
        plural = len(found) > 1 or found == ["the templates"]
        return f"{' and '.join(found)} {'have' if plural else 'has'} changed" if found else ""


def makers(config: Config, policy: Policy, version: str) -> Makers:
    """Return what a process brings along; templates are those of each text.

    Of the configuration that is what chooses services: whose they are, and on which ledger.
    """
    chosen = (config.client_ip, config.network, config.program_id, config.links)
    return Makers("", _hash(repr(policy)), version, _hash(repr(chosen)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def templates_of(text: Text) -> str:
    """Return the digest of the templates that a text was rendered from, as its header says."""
    for body in text.values():
        found = _TEMPLATES.search(body[:2048])
        if found is not None:
            return found[1]
    return ""


class Trust:
    """Remembers by what each service was made when it last was as its files said. One thread uses it."""

    def __init__(self, path: Path, here: Makers) -> None:
        self._path = path
        self._here = here
        self._known: dict[ServiceName, Makers] | None = None

    def unproven(self, wishes: Wishes, intent: IntentView) -> Mapping[ServiceName, str]:
        """Return the services whose removals nothing but a change of our own files explains, and what changed.

        What a person disables, and what is kept on doubt, is not among them. A service that is withdrawn is if the
        configuration now asks about somebody else.
        """
        if intent.enabled is not True:
            return {}
        found: dict[ServiceName, str] = {}
        for name, before in self._load().items():
            if name in wishes.granted:
                changed = self._now(name, wishes).changed(before)
            elif name in wishes.withdrawn and before.configuration != self._here.configuration:
                changed = "the configuration has changed"
            else:
                changed = ""
            if changed:
                found[name] = changed
        return found

    def settle(self, wishes: Wishes, plan: Plan, held: tuple[Held, ...]) -> None:
        """Take in the end of a pass: what is now as its files say was made by what is here now."""
        waits = any(item.kind == "volume" for item in held)
        if waits or any(step.action is Action.DELETE for step in plan.steps):
            return
        known = dict(self._load())
        for name in SERVICE_NAMES:
            if name in wishes.granted:
                known[name] = self._now(name, wishes)
            elif name in wishes.withdrawn:
                known.pop(name, None)
        if known != self._known:
            self._known = known
            self._save(known)

    def _now(self, name: ServiceName, wishes: Wishes) -> Makers:
        here = self._here
        return Makers(templates_of(wishes.texts.get(name, {})), here.policy, here.version, here.configuration)

    def _load(self) -> dict[ServiceName, Makers]:
        if self._known is None:
            try:
                self._known = _read(read_json(self._path))
            except StateError as error:
                log.warning("%s: what made the services is not known", error)
                self._known = {}
        return self._known

    def _save(self, known: Mapping[ServiceName, Makers]) -> None:
        document = {
            name: {
                "templates": m.templates,
                "policy": m.policy,
                "version": m.version,
                "configuration": m.configuration,
            }
            for name, m in known.items()
        }
        try:
            write_json(self._path, {"version": 1, "services": document}, durable=True)
        except StateError as error:
            log.warning("%s", error)


def _read(document: Any) -> dict[ServiceName, Makers]:
    services = document.get("services") if isinstance(document, dict) else None
    found: dict[ServiceName, Makers] = {}
    for name in SERVICE_NAMES:
        entry = services.get(name) if isinstance(services, dict) else None
        if isinstance(entry, dict):
            parts = [str(entry.get(part, "")) for part in ("templates", "policy", "version", "configuration")]
            if all(map(_DIGEST.fullmatch, parts)):
                found[name] = Makers(*parts)
    return found
