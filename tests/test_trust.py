"""By what each service was made, and what of it a change of our own files explains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest

from dzagent.config import Config
from dzagent.held import Held
from dzagent.intent import IntentView
from dzagent.model import Action, Plan, Problem, Rule, Service, ServiceName, Step
from dzagent.policy import Edge, Policy
from dzagent.trust import Makers, Trust, makers, templates_of
from dzagent.wishes import Wishes
from tests.test_capture import ANY

ON = IntentView(enabled=True)
HERE = Makers("", "pppp", "1.0", "cccc")
RULE = Rule(100, ANY, ANY, 100, 210)


def text(templates: str) -> Mapping[str, str]:
    return {"tunnel.ip": f"# service: unicast\n# templates: {templates}\n", "rule.ip": ""}


def wishes(templates: str = "tttt", *, granted: bool = True, withdrawn: bool = False) -> Wishes:
    name: ServiceName = "unicast"
    some = cast("Service", None)  # its parts do not matter here
    return Wishes(
        {} if withdrawn else {name: text(templates)},
        {name: some} if granted and not withdrawn else {},
        {} if granted or withdrawn else {name: Problem("X", "y")},
        {name: "it is banned"} if withdrawn else {},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    trust = Trust(tmp_path / "trust.json", HERE)
    trust.settle(wishes(), Plan("a"), ())
    return tmp_path / "trust.json"


def why(path: Path, here: Makers = HERE, wish: Wishes | None = None, intent: IntentView = ON) -> str:
    return Trust(path, here).unproven(wish or wishes(), intent).get("unicast", "")


def test_nothing_is_unproven_where_nothing_is_known_or_has_changed(path: Path) -> None:
    assert why(path) == ""
    path.unlink()
    assert why(path, replace(HERE, policy="other")) == ""


@pytest.mark.parametrize(
    ("here", "templates", "said"),
    [
        (HERE, "uuuu", "the templates have changed"),
        (replace(HERE, policy="x"), "tttt", "the policy has changed"),
        (replace(HERE, version="2.0"), "tttt", "the version of dzagent has changed"),
        (replace(HERE, configuration="x"), "tttt", "the configuration has changed"),
        (replace(HERE, version="2.0"), "uuuu", "the templates and the version of dzagent have changed"),
    ],
)
def test_what_changed_is_named(path: Path, here: Makers, templates: str, said: str) -> None:
    assert why(path, here, wishes(templates)) == said


def test_a_wish_of_a_person_and_doubt_have_their_own_reasons(path: Path) -> None:
    changed = replace(HERE, policy="x")
    assert why(path, changed, intent=IntentView(enabled=False)) == ""
    assert why(path, changed, intent=IntentView(enabled=None)) == ""
    assert why(path, changed, wishes(granted=False)) == ""


def test_a_withdrawal_is_proven_unless_the_configuration_asks_about_somebody_else(path: Path) -> None:
    gone = wishes(withdrawn=True)
    assert why(path, replace(HERE, policy="x", version="2.0"), gone) == ""
    assert why(path, replace(HERE, configuration="x"), gone) == "the configuration has changed"


def test_what_is_settled_is_known_to_the_next_process(path: Path) -> None:
    changed = replace(HERE, policy="x")
    trust = Trust(path, changed)
    held = (Held(Step(Action.ADD, None, RULE, ""), "too much", "volume"),)
    trust.settle(wishes(), Plan("a"), held)
    assert why(path, changed), "something waits"
    trust.settle(wishes(granted=False), Plan("a"), ())
    assert why(path, changed), "it was not rendered by what is here"
    stamp = path.stat().st_mtime_ns
    trust.settle(wishes(), Plan("a"), ())
    assert why(path, changed) == ""
    assert path.stat().st_mtime_ns != stamp
    stamp = path.stat().st_mtime_ns
    trust.settle(wishes(), Plan("a"), ())
    assert path.stat().st_mtime_ns == stamp, "no write without a change"
    trust.settle(wishes(withdrawn=True), Plan("a"), ())
    assert why(path, HERE) == ""


@pytest.mark.parametrize("content", ["{", "[]", '{"services": 7}', '{"services": {"unicast": 7}}',
                                     '{"services": {"unicast": {"policy": "\\u0000"}}}'])  # fmt: skip
def test_a_file_that_cannot_be_read_is_nothing_known(path: Path, content: str) -> None:
    path.write_text(content)
    assert why(path, replace(HERE, policy="x")) == ""


def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trust = Trust(tmp_path / "file" / "trust.json", HERE)
    trust.settle(wishes(), Plan("a"), ())
    assert trust.unproven(wishes("uuuu"), ON) == {"unicast": "the templates have changed"}


def test_what_a_process_brings_along() -> None:
    base = makers(Config(), Policy(), "1.0")
    assert base == makers(Config(), Policy(), "1.0")
    assert makers(Config(), replace(Policy(), edge=Edge(table_to=7)), "1.0").policy != base.policy
    assert (
        makers(Config(client_ip=IPv4Address("198.51.100.7")), Policy(), "1.0").configuration
        != base.configuration
    )
    assert makers(Config(rpc=("https://rpc.example",)), Policy(), "1.0") == base


def test_the_templates_of_a_text() -> None:
    assert templates_of(text("abcd")) == "abcd"
    assert templates_of({}) == ""
    assert json.dumps(templates_of({"x": "no header"})) == '""'
