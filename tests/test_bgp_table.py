"""Keep and flush: each kind of evidence changes what it proves, and nothing else."""

from __future__ import annotations

import random

from dzagent.bgp.rules import ImportRules, Judge
from dzagent.bgp.table import Learned
from tests.bgp_fakes import PEER, VIA, rib


def table(*, keep: bool = False, limit: int = 100) -> Learned:
    return Learned(Judge(PEER, ImportRules(limit=limit), 210), limit, keep)


def held(learned: Learned) -> set[str]:
    return set(learned.routes)


def test_the_difference_of_two_snapshots_is_what_changed() -> None:
    learned = table()
    assert learned.sync(rib(1, 2, 3), 0.0, settled=True) == set(rib(1, 2, 3))
    assert learned.sync(rib(1, 3, 4), 1.0, settled=True) == set(rib(2, 4))
    assert held(learned) == set(rib(1, 3, 4))
    assert learned.sync(rib(1, 3, 4), 2.0, settled=True) == set()


def test_a_lost_session_takes_everything() -> None:
    learned = table()
    learned.sync(rib(1, 2), 0.0, settled=True)
    assert learned.lost(1.0) == set(rib(1, 2))
    assert held(learned) == set()


def test_a_kept_route_outlives_withdraw_and_session_and_is_stale() -> None:
    learned = table(keep=True)
    learned.sync(rib(1, 2), 0.0, settled=True)
    learned.sync(rib(2), 5.0, settled=True)
    assert held(learned) == set(rib(1, 2))
    assert learned.stale == {"198.18.0.1/32": 5.0}
    learned.lost(9.0)
    assert learned.stale == {"198.18.0.1/32": 5.0, "198.18.0.2/32": 9.0}
    learned.sync(rib(1), 10.0, settled=True)
    assert learned.stale == {"198.18.0.2/32": 9.0}
    assert learned.expire(9.0) == set()
    assert learned.expire(9.1) == {"198.18.0.2/32"}
    assert held(learned) == set(rib(1))


def test_an_empty_table_of_a_new_engine_is_not_all_withdrawn() -> None:
    learned = table()
    learned.sync(rib(1, 2, 3), 0.0, settled=True)
    learned.restarted()
    assert learned.sync({}, 1.0, settled=False) == set()
    assert learned.sync(rib(1), 2.0, settled=False) == set()
    assert held(learned) == set(rib(1, 2, 3))
    assert learned.sync(rib(1), 12.0, settled=True) == set(rib(2, 3))
    assert held(learned) == set(rib(1))


def test_a_withdraw_within_the_grace_is_one() -> None:
    learned = table()
    learned.sync(rib(1, 2), 0.0, settled=True)
    learned.restarted()
    learned.sync(rib(1), 1.0, settled=False)
    assert learned.sync({}, 2.0, settled=False) == set(rib(1))
    assert held(learned) == set(rib(2))


def test_what_an_earlier_process_installed_is_taken_over() -> None:
    learned, before = table(keep=True), table()
    before.sync(rib(1, 2), 0.0, settled=True)
    learned.adopt(before.routes.values(), {"198.18.0.2/32": 77.0})
    assert learned.stale == {"198.18.0.2/32": 77.0}
    assert learned.sync(rib(1), 1.0, settled=False) == set()
    learned.sync(rib(1), 2.0, settled=True)
    assert learned.stale == {"198.18.0.2/32": 77.0}  # not younger by a restart


def test_the_limit_keeps_those_that_are_there_and_lets_others_in_when_there_is_room() -> None:
    learned = table(limit=2)
    learned.sync(rib(5, 6), 0.0, settled=True)
    learned.sync(rib(1, 2, 5, 6), 1.0, settled=True)
    assert held(learned) == set(rib(5, 6))
    assert {r.code for r in learned.refused.values()} == {"TooMany"}
    learned.sync(rib(1, 2, 6), 2.0, settled=True)
    assert held(learned) == set(rib(1, 6))
    assert set(learned.refused) == set(rib(2))


def test_a_route_that_becomes_unusable_goes() -> None:
    learned = table()
    learned.sync(rib(1), 0.0, settled=True)
    assert learned.sync({"198.18.0.1/32": "10.0.0.9 on eth0"}, 1.0, settled=True) == set(rib(1))
    assert learned.refused["198.18.0.1/32"].code == "NextHop"
    assert learned.sync(rib(1), 2.0, settled=True) == set(rib(1))
    assert learned.refused == {}


def test_other_rules_judge_again() -> None:
    from dzagent.bgp.rules import read_exclude

    learned = table()
    learned.sync(rib(1, 2), 0.0, settled=True)
    strict = ImportRules(limit=100, exclude=read_exclude(["198.18.0.1"]))
    assert learned.rejudge(Judge(PEER, strict, 210), 100) == set(rib(1))
    assert set(learned.refused) == set(rib(1))
    assert learned.rejudge(Judge(PEER, ImportRules(limit=100), 210), 100) == set(rib(1))


def test_no_order_of_events_resurrects_a_withdrawn_route() -> None:
    """A model of the announcer beside the table: a thousand random histories end equal, at every step."""
    for seed in range(1000):
        chance = random.Random(seed)
        learned, announced, now = table(), set[int](), 0.0
        for _ in range(30):
            now += 1.0
            what = chance.choice(["announce", "withdraw", "lost", "restart", "again"])
            if what == "announce":
                announced.add(chance.randrange(8))
            elif what == "withdraw" and announced:
                announced.discard(chance.choice(sorted(announced)))
            elif what == "lost":
                learned.lost(now)
                announced.clear()
            elif what == "restart":
                learned.restarted()
                learned.sync({}, now, settled=False)
            if what != "lost":
                learned.sync(rib(*announced), now, settled=True)
            assert held(learned) == set(rib(*announced)), (seed, what)
            assert all(learned.judge.verdict(p, VIA) == r for p, r in learned.routes.items())
