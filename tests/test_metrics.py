"""GET /metrics: valid text exposition whatever is published, with doublezerod's names, labels and types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.api.app import create_app
from dzagent.metrics import render
from tests.api_fakes import NOW, UNICAST, World, condition

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """A metric as a strict reader sees it."""

    type: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Read the text format 0.0.4 (prometheus.io, exposition formats); asserts on every deviation."""
    assert text == "" or text.endswith("\n")
    families: dict[str, Family] = {}
    name = ""
    for line in text.splitlines():
        words = line.split(" ", 3)
        if words[:2] == ["#", "HELP"]:
            name = words[2]
            assert NAME.fullmatch(name)
            assert name not in families, f"{name} is not in one piece"
            assert words[3].strip()
        elif words[:2] == ["#", "TYPE"]:
            assert words[2] == name, "TYPE follows HELP"
            assert words[3] in {"counter", "gauge", "histogram"}
            families[name] = Family(words[3])
        else:
            _sample(line, name, families[name])
    for name, family in families.items():
        _check(name, family)
    return families


def _sample(line: str, name: str, family: Family) -> None:
    found = SAMPLE.fullmatch(line)
    assert found, line
    suffix = found[1].removeprefix(name)
    assert suffix in ({"_bucket", "_sum", "_count"} if family.type == "histogram" else {""}), line
    labels = _labels(found[2] or "")
    assert (suffix, labels) not in family.samples, f"twice: {line}"
    family.samples[suffix, labels] = float(found[3])


def _labels(text: str) -> Labels:
    pairs, end = [], 0
    while end < len(text):
        found = LABEL.match(text, end)
        assert found, text
        pairs.append((found[1], re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], found[2])))
        end = found.end()
    assert len(dict(pairs)) == len(pairs), text
    return tuple(pairs)


def _check(name: str, family: Family) -> None:
    assert family.samples, f"{name} has no sample"
    assert (family.type == "counter") == name.endswith("_total")
    if family.type == "counter":
        assert all(value >= 0 for value in family.samples.values())
    if family.type == "histogram":
        buckets = [(float(dict(ls)["le"]), v) for (s, ls), v in family.samples.items() if s == "_bucket"]
        assert buckets == sorted(buckets)
        assert [v for _, v in buckets] == sorted(v for _, v in buckets), "buckets are cumulative"
        assert buckets[-1] == (float("inf"), family.samples["_count", ()])
        assert ("_sum", ()) in family.samples


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def scrape(world: World) -> dict[str, Family]:
    answer = create_app(world.config, clock=lambda: NOW).test_client().get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.data.decode())


UPSTREAM: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "doublezero_build_info": ("gauge", ("version", "commit", "date")),
    "doublezero_reconciler_polls_total": ("counter", ("status",)),
    "doublezero_reconciler_provisions_total": ("counter", ("service_type", "status")),
    "doublezero_reconciler_removals_total": ("counter", ("service_type", "status")),
    "doublezero_reconciler_updates_total": ("counter", ("service_type", "status")),
    "doublezero_reconciler_matched_users": ("gauge", ("service_type",)),
    "doublezero_connection_info": (
        "gauge",
        ("user_type", "network", "current_device", "metro", "tunnel_name", "tunnel_src", "tunnel_dst"),
    ),
    "doublezero_onchain_fetch_duration_seconds": ("histogram", ()),
    "doublezero_onchain_fetch_total": ("counter", ("result",)),
    "doublezero_onchain_stale_cache_age_seconds": ("gauge", ()),
}


def test_names_types_and_labels_are_those_of_doublezerod(world: World) -> None:
    world.publish()
    world.publish_ledger()
    families = scrape(world)
    assert {name for name in families if name.startswith("doublezero_")} == set(UPSTREAM)
    for name, (kind, labels) in UPSTREAM.items():
        assert families[name].type == kind
        for suffix, found in families[name].samples:
            assert tuple(label for label, _ in found) == (("le",) if suffix == "_bucket" else labels)


def test_values(world: World) -> None:
    counters = {
        kind: {name: {"success": n, "error": n + 1} for name in ("unicast", "multicast")}
        for n, kind in enumerate(("provisions", "removals", "updates"))
    }
    world.publish(counters=counters)
    world.publish_ledger(error="refused")
    families = scrape(world)

    def value(name: str, suffix: str = "", **labels: str) -> float:
        return families[name].samples[suffix, tuple(labels.items())]

    assert value("doublezero_build_info", version="0.1.0", commit="", date="") == 1
    assert value("doublezero_reconciler_polls_total", status="error") == 2
    assert value("doublezero_reconciler_removals_total", service_type="multicast", status="error") == 2
    assert value("doublezero_reconciler_matched_users", service_type="unicast") == 1
    assert value("doublezero_onchain_fetch_total", result="error_stale") == 1
    assert value("doublezero_onchain_stale_cache_age_seconds") == 3
    assert value("doublezero_onchain_fetch_duration_seconds", "_bucket", le="0.1") == 5
    assert value("doublezero_onchain_fetch_duration_seconds", "_sum") == 1.25
    assert list(families["doublezero_connection_info"].samples) == [
        (
            "",
            (
                ("user_type", "IBRL"),
                ("network", "localnet"),
                ("current_device", "ams-dz001"),
                ("metro", "Amsterdam"),
                ("tunnel_name", "doublezero0"),
                ("tunnel_src", "198.51.100.7"),
                ("tunnel_dst", "192.0.2.1"),
            ),
        )
    ]
    assert value("dzagent_condition", type="InSync", status="Unknown") == 1, "nobody runs"
    assert value("dzagent_slot") == 123460
    assert value("dzagent_generation") == 3


def test_conflicts_and_fights_are_counted(world: World) -> None:
    world.publish(conflicts=[], contested=[{"object": "x"}, {"object": "y"}])
    families = scrape(world)
    assert families["dzagent_conflicts_objects"].samples["", ()] == 0
    assert families["dzagent_contested_objects"].samples["", ()] == 2


def test_fresh_data_is_not_stale(world: World) -> None:
    world.publish_ledger()
    assert scrape(world)["doublezero_onchain_stale_cache_age_seconds"].samples["", ()] == 0


def test_nothing_published_is_a_valid_answer(world: World) -> None:
    families = scrape(world)
    assert not any(name.startswith("doublezero_") for name in families), "absent, not zero"
    assert families["dzagent_enabled"].samples["", ()] == 0


def test_labels_from_the_ledger_cannot_break_out(world: World) -> None:
    nasty = 'x"} 1\nevil_total{a="\\\ud800 é'
    world.publish(services=[{**UNICAST, "metro": nasty}] * 2, conditions=[condition(nasty, "True")] * 2)
    families = scrape(world)
    assert "evil_total" not in families
    labels = dict(next(iter(families["doublezero_connection_info"].samples))[1])
    assert labels["metro"] == nasty.replace("\ud800", "?")


odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        7,
        0.5,
        1e999,
        10**400,
        "x",
        [],
        [{}],
        [{"type": "A"}],
        [{"type": 7}],
        {},
        {"unicast": 7},
        {"x": []},
    ]
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["agent_version", "counters", "matched_users", "services", "conditions", "generation"]
        ),
        odd,
    ),
    st.dictionaries(st.sampled_from(["slot", "polls", "fetch", "fetch_buckets", "fetched_at", "error"]), odd),
    st.none() | st.booleans(),
)
def test_any_document_is_a_valid_exposition(
    status: dict[str, Any], ledger: dict[str, Any], enabled: bool | None
) -> None:
    parse(render(status, ledger, enabled, NOW))
