"""`dzagent migrate` as text and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dzagent.cli.output import Paper
from dzagent.foreign.oldstate import OldState
from dzagent.migration.scene import Scene

NOTHING = "nothing to migrate: no doublezerod runs here, and nothing of it is in the kernel"
GO_BACK = "to go back: dzagent migrate --undo"


def scene_document(scene: Scene, blockers: Sequence[str]) -> dict[str, Any]:
    """Return the plan as JSON."""
    adoption = scene.adoption
    return {
        "doublezerod": {
            "running": scene.seen is not None,
            "seen": scene.seen.how if scene.seen else "",
            "unit": scene.unit.name if scene.unit and scene.unit.there else None,
            "state": _state(scene),
        },
        "steps": list(steps(scene)),
        "objects": list(adoption.named),
        "learned_routes": adoption.learned,
        "left_alone": list(adoption.left),
        "changed_afterwards": list(adoption.then),
        "notes": list(scene.findings.notes),
        "blockers": list(blockers),
        "unfinished": scene.unfinished,
    }


def scene_lines(scene: Scene, blockers: Sequence[str], sheet: Paper) -> list[str]:
    """Return the plan as text."""
    lines = [line for text in _facts(scene) for line in sheet.wrap(text)]
    for title, items in (
        ("Steps", [f"{n}. {step}" for n, step in enumerate(steps(scene), 1)]),
        ("Taken over", _taken(scene)),
        ("Left alone", scene.adoption.left),
        ("Changed in place afterwards", scene.adoption.then),
        ("Note", scene.findings.notes),
        ("In the way", blockers),
    ):
        if items:
            lines += ["", sheet.paint(title, bold=True)]
            lines += [line for item in items for line in sheet.wrap(item, "  ", "    ")]
    return lines


def _facts(scene: Scene) -> Iterator[str]:
    yield f"doublezerod: {'runs, ' + scene.seen.how if scene.seen else 'does not run'}"
    if scene.unit is not None and scene.unit.there:
        yield f"unit: {scene.unit.name}, {scene.unit.load}"
    elif scene.seen is not None:
        yield "unit: none; if anything else starts doublezerod (a supervisor, a container), stop that yourself first"
    if scene.old is not None:
        yield f"its state: {_state(scene)}"
    if scene.unfinished:
        yield "an earlier migration was broken off; this one goes on from there"


def _state(scene: Scene) -> str:
    if isinstance(scene.old, OldState):
        return f"{'enabled' if scene.old.intent.enabled else 'disabled'} ({scene.old.file})"
    return scene.old or "none"


def steps(scene: Scene) -> Iterator[str]:
    """Yield what would be done, in order."""
    if scene.holdable and scene.unit is not None:
        yield f"mask {scene.unit.name}, so that nothing starts it again"
    if scene.seen is not None:
        yield "end doublezerod by SIGKILL, since its clean stop would take the tunnels down"
    if scene.adoption.changes:
        yield "mark what it set up as dzagent's, each thing by its full identity"
    yield "let dzagentd go on from there, and wait for the BGP session"


def _taken(scene: Scene) -> list[str]:
    adoption = scene.adoption
    routes = "learned route stays" if adoption.learned == 1 else "learned routes stay"
    learned = [f"{adoption.learned} {routes} until the new session has announced them again"]
    return [*adoption.named, *(learned if adoption.learned else [])]
