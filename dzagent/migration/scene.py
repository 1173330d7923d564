"""Everything `dzagent migrate` looks at before it does anything, and whether it can be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dzagent.config import Config
from dzagent.desired import DesiredStore
from dzagent.errors import StateError
from dzagent.foreign.oldstate import OldState, read_old_state
from dzagent.foreign.record import Record, read_record
from dzagent.foreign.sight import Eyes, Sighting
from dzagent.kernel.protocol import Kernel
from dzagent.marks import ownership
from dzagent.migration.adoption import Adoption, adopt
from dzagent.migration.flags import Findings, compare, parse_flags, read_words
from dzagent.migration.swap import survey
from dzagent.migration.units import DROP_IN, Unit, Units
from dzagent.model import Desired
from dzagent.ownership import Ownership
from dzagent.policy import Policy
from dzagent.render import parse_texts


@dataclass(frozen=True, slots=True)
class Scene:
    """The host before a migration.

    seen: doublezerod, if it runs. unit: None without systemd. old: its last wish, None if it left none or a text why
    it cannot be read. record: an earlier migration.
    """

    seen: Sighting | None
    unit: Unit | None
    old: OldState | str | None
    adoption: Adoption
    findings: Findings
    record: Record | None

    @property
    def holdable(self) -> bool:
        """Whether there is a unit that could start doublezerod again."""
        return self.unit is not None and self.unit.there and self.unit.load != "masked" and not self.held

    @property
    def held(self) -> bool:
        """Whether a drop-in of an earlier migration keeps the unit from starting: then it does not run."""
        if self.record is None or self.record.phase == "undone" or self.seen is not None:
            return False
        return self.record.stopped == DROP_IN

    @property
    def unfinished(self) -> bool:
        """Whether an earlier migration was broken off."""
        return self.record is not None and self.record.phase == "migrating"

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.seen or self.adoption.changes or self.holdable or self.unfinished)

    @property
    def blockers(self) -> tuple[str, ...]:
        """Why it cannot be done, as far as this host's own facts tell."""
        undoing = (
            ("the way back of an earlier migration was broken off: run `dzagent migrate --undo` again first",)
            if self.record is not None and self.record.phase == "undoing"
            else ()
        )
        return (*undoing, *self.findings.blockers, *self.adoption.blockers)


def read_desired(config: Config, owner: Ownership) -> Desired:
    """Return what dzagentd has rendered last. Raises StateError, GrammarError."""
    return parse_texts(DesiredStore(config.paths).read(), owner)


def look(config: Config, policy: Policy, kernel: Kernel, units: Units, eyes: Eyes) -> Scene:
    """Look at everything. Raises ObservationError, StateError, GrammarError."""
    owner = ownership(config, policy)
    observed = survey(kernel, owner.protocol, tuple(owner.links))
    seen, unit = eyes.look(), units.show(config.doublezerod.unit)
    return Scene(
        seen,
        unit,
        _old_state(config),
        adopt(observed, read_desired(config, owner), owner),
        _findings(eyes, seen, unit, config, policy),
        read_record(config.paths.migration),
    )


def _old_state(config: Config) -> OldState | str | None:
    try:
        return read_old_state(config.doublezerod.state)
    except StateError as error:
        return str(error)


def _findings(
    eyes: Eyes, seen: Sighting | None, unit: Unit | None, config: Config, policy: Policy
) -> Findings:
    """Compare with the process where there is one, else with the unit; nothing is known of neither."""
    pid = next(iter(eyes.processes()), None) if seen is not None else None
    words: Sequence[str] = () if pid is None else _without_interpreter(read_words(eyes.proc, pid, "cmdline"))
    words = words or (unit.command if unit is not None and unit.load == "loaded" else ())
    if not words:
        return Findings()
    pairs = (word.partition("=") for word in read_words(eyes.proc, pid, "environ")) if pid is not None else ()
    environment: Mapping[str, str] = {name: value for name, _, value in pairs}
    return compare(parse_flags(words), environment, config, policy)


def _without_interpreter(words: Sequence[str]) -> Sequence[str]:
    """A wrapper script has its interpreter first."""
    start = next((n for n, word in enumerate(words) if word.rsplit("/", 1)[-1] == "doublezerod"), 0)
    return words[start:]
