"""The move itself and the way back: steps that can each be done again, and a record of how far they are.

Only one writes to the kernel at any time: while this runs it holds the lock that every pass of dzagentd shares, and
until the record says that it is finished dzagentd writes nothing, even if this process is killed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dzagent.config import Config
from dzagent.errors import MigrationError
from dzagent.foreign.record import Record, boot_id, read_record, write_record
from dzagent.foreign.turns import alone
from dzagent.journal import here, read
from dzagent.kernel.protocol import Kernel
from dzagent.kernel.run import Runner
from dzagent.marks import ownership
from dzagent.migration.adoption import Adoption, adopt, hand_back
from dzagent.migration.ending import Ending
from dzagent.migration.scene import Scene, read_desired
from dzagent.migration.swap import Failed, survey, swap
from dzagent.migration.units import Units
from dzagent.policy import Policy
from dzagent.state import send_wake

_NOT_AGREED: Final = "it was not there when the plan was shown: run `dzagent migrate` again"


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves a host from doublezerod to dzagent, and back. `say` tells a person about each step."""

    config: Config
    policy: Policy
    kernel: Kernel
    runner: Runner
    units: Units
    ending: Ending
    say: Callable[[str], None]
    now: Callable[[], float] = time.time
    boot: Callable[[], str] = boot_id
    sleep: Callable[[float], None] = time.sleep

    def migrate(self, scene: Scene, *, enabled: bool | None) -> tuple[str, ...]:
        """Do what the scene's plan says; returns what could not be taken over (it stays doublezerod's).

        enabled: dzagent's own intent before, for the way back. Raises MigrationError, StateError, KernelError; then
        running it again goes on from there.
        """
        with alone(self.config.paths.turn, sleep=self.sleep):
            record = self._begun(scene, enabled)
            record = self._hold(scene, record)
            if self.ending.end(record.unit, has_unit=scene.unit is not None and scene.unit.there):
                self.say("ended doublezerod by SIGKILL: its clean stop would take the tunnels down")
            failed = self._adopt(scene.adoption)
            self._write(record.now("migrated"))
        send_wake(self.config.paths.wake, "migrated")
        return tuple(f"{item.change.what}: {item.message}" for item in failed)

    def undo(self, disable: Callable[[], None]) -> tuple[str, ...]:
        """Go back; returns what could not be handed back (it stays dzagent's).

        disable: says `dzagent disable`, and returns once dzagentd has let its sessions go. Raises as `migrate` does.
        """
        record = self.last()
        with alone(self.config.paths.turn, sleep=self.sleep):
            self._write(replace(record.now("undoing"), boot=self.boot()))
            owner = ownership(self.config, self.policy)
            owner = replace(owner, claims=read(self.config.paths.journal, here()).claims)
            observed = survey(self.kernel, owner.protocol, tuple(owner.links))
            changes = hand_back(observed, owner, self.policy.edge)
            # a link's mark goes last: by it the rest is found if this is broken off
            failed = swap(self.runner, [change for change in changes if change.remove])
            failed += swap(self.runner, [change for change in changes if not change.remove])
            self.say(
                f"handed back {len(changes) - len(failed)} objects: links, rules and routes have its marks again"
            )
        # dzagentd may look again, but not write: until the record says "undone"
        disable()
        self._release(record)
        self._write(replace(record.now("undone"), boot=self.boot()))
        # the journal knows links of ours without their mark; dzagentd, if it runs, forgets them too
        with contextlib.suppress(OSError):
            self.config.paths.journal.unlink(missing_ok=True)
        send_wake(self.config.paths.wake, "undone")
        return tuple(f"{item.change.what}: {item.message}" for item in failed)

    def last(self) -> Record:
        """Return the migration that could be undone. Raises MigrationError if there is none, StateError."""
        record = read_record(self.config.paths.migration)
        if record is None or record.phase == "undone":
            raise MigrationError("there is no migration to undo: nothing was taken over from doublezerod")
        return record

    # ---- steps -----------------------------------------------------------------------------------------------

    def _begun(self, scene: Scene, enabled: bool | None) -> Record:
        """Write down what the way back needs, before anything is done; what an earlier try wrote down stays true."""
        fresh = Record(
            "migrating",
            self.boot(),
            self.now(),
            self.config.doublezerod.unit,
            enabled=scene.unit.enabled if scene.unit else "",
            active=scene.unit is not None and scene.unit.active,
            intent_before=enabled,
        )
        before = scene.record
        if before is not None and before.phase != "undone":
            fresh = replace(
                before.now("migrating"),
                boot=fresh.boot,
                active=before.active or fresh.active,
                unit=fresh.unit,
            )
        record = replace(fresh, objects=tuple(dict.fromkeys((*fresh.objects, *scene.adoption.named))))
        self._write(record)
        return record

    def _hold(self, scene: Scene, record: Record) -> Record:
        """Keep the unit from starting. If that cannot be done, nothing is."""
        if not scene.holdable:
            return record
        try:
            how = self.units.hold(record.unit)
        except MigrationError:
            self._write(scene.record or record.now("undone"))
            raise
        self.say(f"{record.unit} cannot start any more ({how})")
        record = replace(record, stopped=how)
        self._write(record)
        return record

    def _adopt(self, agreed: Adoption) -> tuple[Failed, ...]:
        """Take over what was agreed to, as it is now that nobody changes it any more.

        Learned routes were agreed to as a kind: they came and went while doublezerod ran.
        """
        owner = ownership(self.config, self.policy)
        observed = survey(self.kernel, owner.protocol, tuple(owner.links))
        now = adopt(observed, read_desired(self.config, owner), owner)
        named = frozenset(agreed.named)
        changes = [change for change in now.changes if change.learned or change.what in named]
        new = [Failed(c, _NOT_AGREED) for c in now.changes if not c.learned and c.what not in named]
        failed = swap(self.runner, changes)
        self.say(f"took over {len(changes) - len(failed)} objects, {now.learned} of them learned routes")
        return (*failed, *new)

    def _release(self, record: Record) -> None:
        if not record.stopped:
            self.say(f"start doublezerod as you did before{self._stale_socket()}")
            return
        self.units.release(record.unit, record.stopped)
        self.say(f"{record.unit} can start again")
        if record.active:
            self.units.start(record.unit)
            self.say(f"started {record.unit}")

    def _stale_socket(self) -> str:
        """It does not start where its old socket is; a file of its own is not ours to remove."""
        socket = self.config.doublezerod.socket
        return f"; first remove its old socket: rm {socket}" if socket.is_socket() else ""

    def _write(self, record: Record) -> None:
        write_record(self.config.paths.migration, record)
