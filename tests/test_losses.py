"""What a change of the table takes from a service, and that only that is withheld."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dzagent.losses import loss
from dzagent.model import Action, Route, Step
from dzagent.nftmodel import NftChain, NftHook, NftInterval, NftRule, NftSet, NftTable, NftVerdict
from dzagent.owned import Proof, vouch
from dzagent.policy import GuardRules, Policy
from dzagent.policynft import Nftables
from dzagent.share import find
from tests.service_fakes import EDGE, SUBSCRIBER, USER, USER2
from tests.test_firewall_loop import Walled
from tests.test_safeguards import approve, held, message, override

HOOK = NftHook("input", -10)
DROP, ACCEPT = (NftRule((NftVerdict(word),)) for word in ("drop", "accept"))
SET = NftSet("unicast_s", "ipv4_addr", ((1, 1), (10, 19), (32, 63)))
TABLE = NftTable(
    (NftChain("multicast_a", HOOK, (DROP,)), NftChain("unicast_a", HOOK, (DROP, ACCEPT, DROP))),
    (SET,),
    ("unicast_n",),
)
EMPTY = "{# none #}\n"


def with_rules(*rules: NftRule, name: str = "unicast_a") -> NftTable:
    return replace(TABLE, chains=(TABLE.chains[0], NftChain(name, HOOK, rules)))


def with_elements(*elements: NftInterval) -> NftTable:
    return replace(TABLE, sets=(replace(SET, elements=elements),))


@pytest.mark.parametrize(
    ("after", "gone", "names"),
    [
        (TABLE, 0, set()),
        (with_rules(ACCEPT, ACCEPT, DROP), 0, set()),
        (with_rules(ACCEPT, DROP), 1, {"unicast_a"}),
        (with_rules(), 3, {"unicast_a"}),
        (with_rules(DROP, ACCEPT, DROP, name="unicast_b"), 0, set()),
        (with_rules(DROP, name="unicast_b"), 2, {"unicast_a"}),
        (with_elements((1, 1), (32, 63)), 1, {"unicast_s"}),
        (with_elements((0, 200)), 0, set()),
        (with_elements((11, 64)), 2, {"unicast_s"}),
        (with_elements(), 3, {"unicast_s"}),
        (replace(TABLE, sets=()), 3, {"unicast_s"}),
        (replace(TABLE, sets=(replace(SET, name="unicast_t"),)), 0, set()),
        (replace(TABLE, sets=(replace(SET, type="inet_service"),)), 3, {"unicast_s"}),
        (replace(TABLE, chains=TABLE.chains[1:]), 0, set()),
        (  # a rule moves to a chain that keeps its own, and an element goes
            NftTable((NftChain("unicast_a", HOOK, (DROP,)), NftChain("unicast_b", HOOK, (DROP, DROP)))),
            3,
            {"unicast_s", "unicast_n"},
        ),
        (NftTable(), 6, {"unicast_a", "unicast_s", "unicast_n"}),
        (None, 6, {"unicast_a", "unicast_s", "unicast_n"}),
    ],
)
def test_what_goes_is_counted_and_named(after: NftTable | None, gone: int, names: set[str]) -> None:
    action = Action.DELETE if after is None else Action.CHANGE
    found = loss(Step(action, vouch(TABLE, Proof.MARK), after, "x"), "unicast")
    assert (found.gone, set(found.names)) == (gone, names)
    assert found.had == (6 if gone else 0)


def test_a_chain_that_keeps_its_rules_is_not_withheld() -> None:
    other = NftChain("unicast_b", HOOK, (DROP,))
    before = replace(TABLE, chains=(*TABLE.chains, other))
    after = replace(before, chains=(TABLE.chains[0], NftChain("unicast_a", HOOK, ()), other))
    found = loss(Step(Action.CHANGE, vouch(before, Proof.MARK), after, "x"), "unicast")
    assert (found.gone, found.had, set(found.names)) == (3, 7, {"unicast_a"})


def test_other_steps_take_nothing_from_the_table(world: Walled) -> None:
    world.grant(EDGE)
    route = next(r for r in world.kernel.routes if r.protocol == 210)
    assert isinstance(route, Route)
    assert loss(Step(Action.DELETE, vouch(route, Proof.MARK), None, "x"), "unicast").gone == 0
    assert loss(Step(Action.ADD, None, TABLE, "x"), "unicast").gone == 0


# ---- in the loop ----------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Walled:
    return Walled(tmp_path)


def test_a_template_that_renders_no_firewall_takes_none_away_until_a_person_says_so(world: Walled) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    good = world.kernel.table
    override(world, "nftables.j2", EMPTY)
    world.run(2)
    assert world.kernel.table == good
    assert world.condition("Held") == ("True", "TooMuch")
    assert "nftables rules and set elements of the unicast service would go" in message(world, "Held")
    names = {item["why"].split(" service")[0].split()[-1]: item["id"] for item in held(world)}
    assert names.keys() == {"unicast", "multicast"}
    approve(world, names["unicast"])
    world.run(2)
    assert {name.partition("_")[0] for name in world.chains} == {"dzagent", "multicast"}
    assert [item["id"] for item in held(world)] == [names["multicast"]]
    world.kernel.table = good
    world.run(2)
    assert world.kernel.table == good, "an approval counts once"
    for name in {item["id"] for item in held(world)}:
        approve(world, name)
    world.run(2)
    assert world.kernel.table is None


def test_a_restart_with_another_policy_is_held_as_well(world: Walled) -> None:
    world.grant(EDGE)
    good = world.kernel.table
    world.policy = Policy(nftables=Nftables(clamp_mss=False))
    world.restart()
    world.run(2)
    assert world.kernel.table == good
    assert "the policy has changed" in message(world, "Held")


def test_what_is_not_withheld_goes_on(world: Walled) -> None:
    """The other service's repairs, what is new, and what somebody adds to a chain that loses nothing."""
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    good = world.kernel.table
    assert good is not None
    text = (find("templates") / "nftables.j2").read_text()
    override(world, "nftables.j2", "{% if service.name != 'unicast' %}" + text + "{% endif %}")
    bare = tuple(replace(c, rules=()) if c.name.startswith("multicast_") else c for c in good.chains)
    world.kernel.table = replace(good, chains=bare)
    world.run(2)
    assert world.kernel.table == good
    assert {item["why"].split(" service")[0].split()[-1] for item in held(world)} == {"unicast"}


def test_a_service_that_is_banned_loses_its_part_whatever_changed(world: Walled) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    override(world, "nftables.j2", EMPTY)
    world.ledger({USER: replace(EDGE, status=6), USER2: SUBSCRIBER})
    world.run(2)
    assert {name.partition("_")[0] for name in world.chains} == {"dzagent", "multicast"}


def test_what_goes_from_the_table_counts_for_an_hour_and_past_a_restart(world: Walled) -> None:
    world.policy = replace(Policy(), guard=GuardRules(removals=100, share=100, per_hour=20))
    world.restart()
    world.grant(EDGE)
    override(world, "nftables.j2", EMPTY)
    world.run(2)
    assert world.kernel.table is None
    (world.config.templates / "nftables.j2").unlink()
    world.run(2)
    good = world.kernel.table
    world.restart()
    override(world, "nftables.j2", EMPTY + "{# again #}\n")
    world.run(2)
    assert world.kernel.table == good
    assert "guard.per_hour is 20" in message(world, "Held")
    world.clock.now += 3601
    world.run(2)
    assert world.kernel.table is None
