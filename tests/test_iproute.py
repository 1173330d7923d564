"""One process a phase, and each failed line found again as the step that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.errors import KernelError, ObservationError
from dzagent.kernel.failures import classify
from dzagent.kernel.iproute import MAX_SPLITS, IpRoute, failures
from dzagent.kernel.run import Completed
from dzagent.kernel.watchlines import Touched
from dzagent.model import Action, Address, Interest, Link, Observed, Result, Route, Rule, Step
from tests.owning import ours

LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ROUTE = Route(IPv4Network("0.0.0.0/0"), IPv4Address("169.254.0.0"), "doublezero0", 101, 210)
RULE = Rule(100, IPv4Network("0.0.0.0/0"), IPv4Network("203.0.113.0/24"), 100, 210)
DST = IPv4Address("192.0.2.1")


@dataclass
class FakeRunner:
    """Answers every call with `done`, and remembers what was asked."""

    done: Completed
    inputs: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        assert program == "ip"
        assert args
        self.inputs.append(stdin)
        self.args.append(" ".join(args))
        return self.done


def step(action: Action, obj: Link | Address | Route | Rule) -> Step:
    if action is Action.DELETE:
        return Step(action, ours(obj), None, "test")
    return Step(action, None, obj, "test")


def fails(stderr: str, code: int = 1) -> Completed:
    return Completed(code, b"", stderr.encode())


def test_a_phase_is_one_process() -> None:
    runner = FakeRunner(Completed(0, b"", b""))
    outcomes = IpRoute(runner).apply([step(Action.ADD, ADDRESS), step(Action.DELETE, RULE)])
    assert [outcome.result for outcome in outcomes] == [Result.DONE, Result.DONE]
    assert len(runner.inputs) == 1
    assert len(runner.inputs[0].splitlines()) == 2


def test_nothing_to_do_starts_nothing() -> None:
    runner = FakeRunner(Completed(0, b"", b""))
    assert IpRoute(runner).apply([]) == ()
    assert runner.inputs == []


def test_a_failed_line_is_the_step_it_belongs_to() -> None:
    runner = FakeRunner(
        fails(
            "Error: ipv4: Address already assigned.\nCommand failed -:3\n"
            "RTNETLINK answers: No such file or directory\nCommand failed -:5\n"
        )
    )
    steps = [
        step(Action.DELETE, LINK),
        step(Action.ADD, ADDRESS),
        step(Action.ADD, ROUTE),
        step(Action.DELETE, RULE),
    ]
    outcomes = IpRoute(runner).apply(steps)
    assert [o.result for o in outcomes] == [Result.DONE, Result.RACED, Result.DONE, Result.GONE]
    assert outcomes[1].message == "Error: ipv4: Address already assigned."


def test_a_step_of_several_lines_fails_if_one_does() -> None:
    runner = FakeRunner(fails("Error: mtu greater than device maximum.\nCommand failed -:3\n"))
    (outcome,) = IpRoute(runner).apply([step(Action.ADD, LINK)])
    assert (outcome.result, outcome.message) == (Result.PERMANENT, "Error: mtu greater than device maximum.")


def test_each_new_link_has_a_process_that_stops_at_the_first_error() -> None:
    calls: list[tuple[Sequence[str], list[str]]] = []

    def runner(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        assert program == "ip"
        calls.append((args, stdin.splitlines()))
        return Completed(0, b'[{"ifindex":12,"ifname":"doublezero0"}]\n', b"")

    kernel = IpRoute(runner)
    other = replace(LINK, name="doublezero1")
    changed = Step(Action.CHANGE, ours(replace(LINK, mtu=1400)), LINK, "test")
    outcomes = kernel.apply([step(Action.ADD, LINK), step(Action.ADD, other), changed])
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 3
    assert [args for args, _ in calls] == [("-j", "-batch", "-")] * 2 + [("-force", "-batch", "-")]
    assert [lines[-1] for _, lines in calls[:2]] == ["link show dev doublezero0", "link show dev doublezero1"]
    kernel.apply([step(Action.ADD, ADDRESS)])
    assert calls[-1][1] == ["addr add 169.254.0.1/31 dev if12 scope link"]


def test_a_new_link_that_tells_no_number_is_made_and_goes_by_its_name() -> None:
    runner = FakeRunner(fails('Cannot find device "doublezero0"\nCommand failed -:4\n'))
    kernel = IpRoute(runner)
    assert kernel.apply([step(Action.ADD, LINK)])[0].result is Result.DONE
    runner.done = Completed(0, b"", b"")
    kernel.apply([step(Action.ADD, ADDRESS)])
    assert runner.inputs[-1] == "addr add 169.254.0.1/31 dev doublezero0 scope link\n"


def test_a_process_that_was_killed_did_nothing_and_may_be_tried_again() -> None:
    runner = FakeRunner(fails("", -9))
    outcomes = IpRoute(runner).apply([step(Action.ADD, ADDRESS), step(Action.DELETE, RULE)])
    assert {outcome.result for outcome in outcomes} == {Result.TRANSIENT}
    assert len(runner.inputs) == 1


@dataclass
class Picky:
    """An `ip` that gives up at the first line that holds `word`, as the real one does for odd arguments."""

    word: str
    message: str = 'Error: argument "zz" is wrong: fwmark value is invalid'
    ran: list[str] = field(default_factory=list)
    runs: int = 0

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        assert (program, args) == ("ip", ("-force", "-batch", "-"))
        self.runs += 1
        said: list[str] = []
        for number, line in enumerate(stdin.splitlines(), 1):
            if self.word in line:
                return Completed(255, b"", "".join([*said, self.message, "\n"]).encode())
            if line in self.ran:
                said.append(f"RTNETLINK answers: File exists\nCommand failed -:{number}\n")
            self.ran.append(line)
        return Completed(1 if said else 0, b"", "".join(said).encode())


@pytest.mark.parametrize("at", [0, 1, 4, 8])
def test_a_line_that_ends_the_process_keeps_no_other_from_running(at: int) -> None:
    rules = [replace(RULE, priority=n) for n in range(100, 108)]
    steps = [step(Action.ADD, rule) for rule in rules]
    odd = step(Action.DELETE, replace(RULE, extra=("fwmark zz",)))
    steps.insert(at, odd)
    runner = Picky("fwmark zz")
    outcomes = IpRoute(runner).apply(steps)
    assert [outcome.step for outcome in outcomes] == steps
    assert {o.result for o in outcomes if o.step != odd} <= {Result.DONE, Result.RACED}
    assert (outcomes[at].result, outcomes[at].message) == (Result.PERMANENT, runner.message)
    assert {f"priority {n}" for n in range(100, 108)} <= {" ".join(line.split()[2:4]) for line in runner.ran}


def test_a_tool_that_cannot_work_at_all_is_not_tried_over_and_over() -> None:
    picky = Picky("rule", "Cannot open netlink socket: Too many open files")
    outcomes = IpRoute(picky).apply([step(Action.ADD, replace(RULE, priority=n)) for n in range(1, 90)])
    assert (picky.runs, {outcome.result for outcome in outcomes}) == (1, {Result.TRANSIENT})
    hopeless = Picky("rule")
    outcomes = IpRoute(hopeless).apply([step(Action.ADD, replace(RULE, priority=n)) for n in range(1, 900)])
    assert {outcome.result for outcome in outcomes} == {Result.PERMANENT}
    assert hopeless.runs <= 2 * MAX_SPLITS + 1


def test_a_message_over_several_lines_belongs_to_the_next_number() -> None:
    assert failures(fails("one\ntwo\nCommand failed -:2\n"), 3) == {2: "one two"}


def test_a_message_without_a_number_ended_the_process_at_some_later_line() -> None:
    ended = fails('one\nCommand failed -:2\nError: argument "x" is wrong.\n', 255)
    message = 'Error: argument "x" is wrong.'
    assert failures(ended, 4) == {2: "one", 3: message, 4: message}
    assert failures(fails("Warning: route NAT is deprecated\n", 0), 1) == {}


def test_an_object_that_cannot_be_written_safely_stops_no_other() -> None:
    runner = FakeRunner(fails("RTNETLINK answers: File exists\nCommand failed -:1\n"))
    odd = replace(RULE, extra=("iif a#b",))
    outcomes = IpRoute(runner).apply([step(Action.DELETE, odd), step(Action.ADD, RULE)])
    assert [outcome.result for outcome in outcomes] == [Result.PERMANENT, Result.RACED]


def test_a_tunnel_that_nobody_can_see_is_explained() -> None:
    runner = FakeRunner(fails("RTNETLINK answers: File exists\nCommand failed -:1\n"))
    (outcome,) = IpRoute(runner).apply([step(Action.ADD, LINK)])
    assert outcome.result is Result.RACED
    assert "File exists (if no link here has its name or endpoints" in outcome.message


def test_links_are_deleted_by_the_index_that_was_observed() -> None:
    link = '[{"ifindex":7,"ifname":"doublezero0","flags":[],"mtu":1476}]\n'
    runner = FakeRunner(Completed(0, (link + "[]\n" * 4).encode(), b""))
    kernel = IpRoute(runner)
    kernel.observe(Interest(210, ("doublezero0",)))
    runner.done = Completed(0, b"", b"")
    kernel.apply([step(Action.DELETE, LINK)])
    assert runner.inputs[-1].splitlines() == ["link set dev if7 down", "link delete dev if7"]


def test_a_failed_observation_is_an_error() -> None:
    runner = FakeRunner(Completed(1, b"[]\n" * 5, b"Dump terminated\nCommand failed -:4\n"))
    with pytest.raises(ObservationError, match="Dump terminated"):
        IpRoute(runner).observe(Interest(210, ()))


def test_what_is_read_alone_lets_the_kernel_choose_by_table() -> None:
    runner, before = FakeRunner(Completed(0, b"[]\n", b"")), Observed(routes=(ROUTE,))
    kernel, touched = IpRoute(runner), Touched(slots={(ROUTE.table, ROUTE.dst): None})
    assert kernel.reread(Interest(210, ()), touched, before).routes == ()
    assert runner.args == ["-4 -N -d -j route show exact 0.0.0.0/0 table 101 proto 210"]
    runner.done = Completed(2, b"[", b"Error: ipv4: FIB table does not exist.\nDump terminated\n")
    assert kernel.reread(Interest(210, ()), touched, before).routes == ()
    runner.done = fails("Dump terminated", 2)
    with pytest.raises(ObservationError, match="Dump terminated"):
        kernel.reread(Interest(210, ()), touched, before)


def test_source_for_tells_no_route_from_a_failure() -> None:
    assert (
        IpRoute(FakeRunner(Completed(0, b'[{"prefsrc":"198.51.100.7"}]\n', b""))).source_for(DST)
        == LINK.local
    )
    assert IpRoute(FakeRunner(fails("RTNETLINK answers: Network is unreachable", 2))).source_for(DST) is None
    assert IpRoute(FakeRunner(fails("RTNETLINK answers: Permission denied", 2))).source_for(DST) is None
    with pytest.raises(ObservationError):
        IpRoute(FakeRunner(fails("Cannot open netlink socket", 1))).source_for(DST)


def test_a_tool_that_cannot_start_is_raised() -> None:
    def missing(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        raise KernelError(f"no {program} for {args} and {stdin!r}")

    with pytest.raises(KernelError):
        IpRoute(missing).apply([step(Action.ADD, ADDRESS)])


@pytest.mark.parametrize(
    ("action", "message", "result"),
    [
        (Action.DELETE, "RTNETLINK answers: No such process", Result.GONE),
        (Action.DELETE, "RTNETLINK answers: No such file or directory", Result.GONE),
        (Action.DELETE, "RTNETLINK answers: No such device", Result.GONE),
        (Action.DELETE, 'Cannot find device "doublezero0"', Result.GONE),
        (Action.DELETE, "Error: ipv4: Address not found.", Result.GONE),
        (Action.DELETE, "Error: ipv4: FIB table does not exist.", Result.GONE),
        (Action.CHANGE, "Failed to get existing tunnel info.", Result.RACED),
        (Action.ADD, "RTNETLINK answers: File exists", Result.RACED),
        (Action.ADD, "Error: ipv4: Address already assigned.", Result.RACED),
        (Action.ADD, "Error: Nexthop has invalid gateway.", Result.TRANSIENT),
        (Action.ADD, "Error: Invalid prefsrc address.", Result.TRANSIENT),
        (Action.ADD, 'Cannot find device "doublezero0"', Result.TRANSIENT),
        (Action.ADD, "RTNETLINK answers: Device or resource busy", Result.TRANSIENT),
        (Action.ADD, "Error: Unknown device type.", Result.PERMANENT),
        (Action.ADD, "RTNETLINK answers: Operation not permitted", Result.PERMANENT),
        (Action.DELETE, "something that nobody has seen yet", Result.PERMANENT),
    ],
)
def test_the_table_of_failures(action: Action, message: str, result: Result) -> None:
    assert classify("ip", 1, action, message) is result


def test_an_ip_without_json_is_an_error_that_says_what_is_needed() -> None:
    old = FakeRunner(fails('Option "-j" is unknown, try "ip -help".\n' + "usage " * 1000, 255))
    with pytest.raises(ObservationError, match=r"exit 255.*needs iproute2 5\.15 or later") as caught:
        IpRoute(old).observe(Interest(210, ("doublezero0",)))
    assert len(str(caught.value)) < 700
