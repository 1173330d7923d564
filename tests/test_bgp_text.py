"""The readers of BIRD's text, on real answers, and on every cut of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.bgp.birdtext import read_boot, read_peers, read_routes
from dzagent.errors import EngineError

TEXTS = Path(__file__).parent / "fixtures" / "bird"


def text(name: str) -> str:
    return (TEXTS / f"{name}.txt").read_text()


def test_an_established_session() -> None:
    state = read_peers(text("established"))["dz_unicast"]
    assert (state.state, state.established, state.imported, state.full) == ("Established", True, 3, True)
    assert state.updates >= 4
    assert state.since == "2026-11-25 01:26:27.535"


@pytest.mark.parametrize(
    ("name", "state", "error", "waits"),
    [
        ("refused", "Active", "Socket: Connection refused", True),
        ("bad-as", "Idle", "BGP Error: Bad peer AS", True),
        ("link-down", "Idle", "Error: Neighbor lost", True),
    ],
)
def test_a_session_that_is_not_up(name: str, state: str, error: str, waits: bool) -> None:
    seen = read_peers(text(name))["dz_unicast"]
    assert (seen.state, seen.error, seen.retry is not None) == (state, error, waits)
    assert not seen.full  # BIRD says [HIT] of a session long gone


def test_a_session_that_was_given_up() -> None:
    given_up = (
        text("refused")
        .replace("  start  ", "  down   ")
        .replace("state:          Active", "state:          Down")
    )
    assert read_peers(given_up)["dz_unicast"].state == "Down"


def test_no_session_at_all() -> None:
    only_device = text("established").partition("1002-dz_unicast")[0] + "0000 \n"
    assert read_peers(only_device) == {}


def test_the_engine_says_when_it_was_started() -> None:
    boot, age = read_boot(text("status"))
    assert boot.startswith("2026-11-25 01:26:2")
    assert 0 < age < 60


def test_routes() -> None:
    via = "169.254.0.4 on doublezero0"
    assert read_routes(text("routes")) == {"0.0.0.0/0": via, "198.18.0.2/32": via, "10.0.0.0/8": via}
    assert read_routes("0000 \n") == {}


def test_a_route_without_a_next_hop() -> None:
    odd = "1007-Table dzt_unicast:\n 198.18.0.9/32        unreachable [dz_unicast 2026-11-25] * (100) [AS65000i]\n0000 \n"
    assert read_routes(odd) == {"198.18.0.9/32": ""}


@pytest.mark.parametrize(
    "odd",
    [
        " 198.18.0.9/32 unicast [x] * (100)\n \tdev doublezero0\n0000 \n",
        " 198.18.0.9/32 unicast [x] * (100)\n0000 \n",
        " 198.18.0.09/32 unicast [x]\n \tvia 1.2.3.4 on x\n0000 \n",
        "1007-what is this\n0000 \n",
    ],
)
def test_a_route_that_is_not_understood_is_no_answer(odd: str) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        read_routes(odd)


@given(st.sampled_from(["established", "refused", "routes", "status"]), st.data())
def test_no_text_breaks_a_reader(name: str, data: st.DataObject) -> None:
    whole = text(name)
    start, end = sorted(data.draw(st.tuples(*(st.integers(0, len(whole)),) * 2)))
    broken = whole[:start] + data.draw(st.text(max_size=20)) + whole[end:]
    for reader in (read_peers, read_routes, read_boot):
        try:
            reader(broken)
        except EngineError:
            continue
