"""Plans and differences as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dzagent.cli.document import Json, objects, text, texts
from dzagent.cli.output import Paper

_MAX_NAMED = 5
"""Objects of one withheld thing that are named; --json has all."""
_SIGNS = {"add": ("+", "green"), "delete": ("-", "red"), "change": ("~", "yellow")}


def plan_lines(plan: Json, sheet: Paper) -> list[str]:
    """Return the lines of a plan (GET /v3/plan)."""
    steps = objects(plan, "steps")
    return [
        *_headline(plan, len(steps), sheet),
        *(line for n, step in enumerate(steps, 1) for line in _step(n, step, sheet)),
        *_withheld(plan, sheet),
        *_section("In the way", _conflicts(plan), sheet),
        *_commands(plan, sheet),
    ]


def _headline(plan: Json, steps: int, sheet: Paper) -> list[str]:
    plan_id, mode = text(plan, "id"), text(plan, "mode")
    if not plan_id:
        return sheet.wrap(f"no plan: {text(plan, 'message')}")
    if not steps:
        waits = objects(plan, "held")
        words = f"plan {plan_id}: {'nothing to do but what is withheld' if waits else 'nothing to do'}"
    else:
        following = {
            "manual": f"apply it with `dzagent apply {plan_id}`",
            "observe": "apply: observe never writes",
        }.get(mode, "dzagentd goes on trying")
        words = f"plan {plan_id}: {steps} step{'' if steps == 1 else 's'} left; {following}"
    return [sheet.paint(line, bold=True) for line in sheet.wrap(words)]


def _step(number: int, step: Json, sheet: Paper) -> Iterator[str]:
    action = text(step, "action")
    colour = _SIGNS.get(action, ("?", None))[1]
    head = f"{number:>3}  {action[:7]:<7} "
    yield from (sheet.paint(line, colour) for line in sheet.wrap(text(step, "object"), head, " " * 13))
    if action == "change":
        yield from sheet.wrap(f"now {text(step, 'before')}", " " * 13)
    yield from sheet.wrap(because(step), " " * 13)


def because(step: Json) -> str:
    """Return the reason of a step or an event, and the line of the file that it comes from."""
    cause = text(step, "cause")
    return f"reason: {text(step, 'reason')}{f' [{cause}]' if cause else ''}"


def _held(plan: Json) -> list[str]:
    """One text for each thing that is withheld."""
    return [_held_thing(items) for items in _things(plan)]


def _things(plan: Json) -> list[list[Json]]:
    """Return the steps of each thing that is withheld: many steps of one id are one thing."""
    things: dict[str, list[Json]] = {}
    for number, item in enumerate(objects(plan, "held")):
        things.setdefault(text(item, "id") or f"#{number}", []).append(item)
    return list(things.values())


def _withheld(plan: Json, sheet: Paper) -> Iterator[str]:
    """What is withheld and why, each with the command that lets it through on a line of its own, to be copied."""
    things = _things(plan)
    if things:
        yield ""
        yield sheet.paint("Withheld", "yellow", bold=True)
    for items in things:
        yield from sheet.wrap(_held_thing(items), "  - ", "    ")
        command = text(items[0], "approve")
        if command:
            yield from sheet.wrap(f"to let it through, once: {command}", "    ")


def _held_thing(items: list[Json]) -> str:
    named = [f"{text(item, 'action')} {text(item, 'object')}" for item in items[:_MAX_NAMED]]
    if len(items) > _MAX_NAMED:
        named.append(f"and {len(items) - _MAX_NAMED} more")
    return f"{', '.join(named)}: {text(items[0], 'why')}"


def _conflicts(plan: Json) -> list[str]:
    return [
        f"{text(c, 'object')} is held by {text(c, 'owner')}: {text(c, 'advice')}"
        for c in objects(plan, "conflicts")
    ]


def _section(title: str, items: list[str], sheet: Paper) -> Iterator[str]:
    if items:
        yield ""
        yield sheet.paint(title, "yellow", bold=True)
        for item in items:
            yield from sheet.wrap(item, "  - ", "    ")


def _commands(plan: Json, sheet: Paper) -> Iterator[str]:
    """The commands exactly as they would run: not wrapped, so that they can be copied."""
    for key, tool in (("commands", "ip -batch"), ("nft_commands", "nft -f")):
        commands = texts(plan, key)
        if commands:
            yield ""
            yield sheet.paint(f"Lines for {tool}", bold=True)
            yield from (f"  {command}" for command in commands if command.isprintable())


# ---- differences ---------------------------------------------------------------------------------------------


def difference(plan: Json) -> dict[str, Any]:
    """Return what the kernel lacks (add), has too much (delete) and has otherwise (change), as a document."""
    steps = objects(plan, "steps")

    def of(action: str) -> list[Json]:
        return [step for step in steps if text(step, "action") == action]

    return {
        "id": plan.get("id"),
        "add": [text(step, "after") for step in of("add")],
        "delete": [text(step, "before") for step in of("delete")],
        "change": [{"before": text(step, "before"), "after": text(step, "after")} for step in of("change")],
        "held": objects(plan, "held"),
        "conflicts": objects(plan, "conflicts"),
        "message": text(plan, "message"),
    }


def differs(plan: Json) -> bool:
    """Whether the kernel is not as it should be, or nobody knows."""
    return not text(plan, "id") or any(objects(plan, key) for key in ("steps", "held", "conflicts"))


def diff_lines(plan: Json, sheet: Paper) -> list[str]:
    """Return one line an object: + the kernel lacks it, - it has it too much, ~ it has it otherwise."""
    if not differs(plan):
        return ["no difference: the kernel holds what the files say"]
    if not text(plan, "id"):
        return sheet.wrap(f"no plan: {text(plan, 'message')}")
    return [
        *(line for step in objects(plan, "steps") for line in _signed(step, sheet)),
        *(line for item in _held(plan) for line in sheet.wrap(f"withheld: {item}", "! ", "    ")),
        *(line for item in _conflicts(plan) for line in sheet.wrap(item, "! ", "    ")),
    ]


def _signed(step: Json, sheet: Paper) -> Iterator[str]:
    sign, colour = _SIGNS.get(text(step, "action"), ("?", None))
    shown = text(step, "object")
    yield from (sheet.paint(line, colour) for line in sheet.wrap(shown, f"{sign} ", "    "))
    if sign == "~":
        before = text(step, "before")
        # A table of nftables is told by its size: what differs is in the reason.
        yield from sheet.wrap(text(step, "reason") if before == shown else f"now {before}", "    ")
