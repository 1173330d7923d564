"""The effect side of nftables: what nft answers, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dzagent.errors import KernelError, KernelTimeout
from dzagent.kernel.host import HostKernel
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.nft import LIST, REST, Nft
from dzagent.kernel.run import Completed, run
from dzagent.model import Action, Interest, Link, Result, Step
from dzagent.nftmodel import MARK, MARKED, NftChain, NftHook, NftRule, NftSeen, NftTable, NftUnknown, combine
from dzagent.owned import Proof, vouch

ANSWER = Path(__file__).with_name("fixtures").joinpath("nft/nft-1.0.6.json").read_bytes()
GONE = b"Error: No such file or directory; did you mean table 'x' in family inet?\nlist table inet dzagent\n"
AFTER = combine((MARKED, NftTable((NftChain("unicast_input", NftHook("input", -10)),))))


@dataclass
class Tool:
    """A program that answers what it is told, in order; the last answer goes on."""

    answers: list[Completed | KernelError]
    asked: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        self.asked.append((program, tuple(args), stdin))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, KernelError):
            raise answer
        return answer


def said(text: bytes, code: int = 1) -> Completed:
    return Completed(code, b"", text)


OK = Completed(0, b"", b"")


def seen(answer: Completed | KernelError) -> NftSeen:
    return Nft(Tool([answer]), clock=lambda: 0.0).observe()


@pytest.mark.parametrize(
    "text",
    [
        GONE,
        b"Error: No such file or directory\nlist table inet dzagent\n                ^^^^^^^\n",
        b"<cmdline>:1:17-23: Error: No such file or directory\n",
        b"Error: Could not process rule: No such file or directory\nlist table inet dzagent\n",
    ],
)
def test_no_such_table_is_absent(text: bytes) -> None:
    assert seen(said(text)).state == "absent"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (KernelError("The program nft was not found: install the package nftables."), "NftMissing"),
        (KernelTimeout("nft did not end within 5 s and was killed."), "NftFailed"),
        (said(b"Error: JSON support not compiled-in\n"), "NoJson"),
        (said(b"nft: invalid option -- 'j'\n"), "NoJson"),
        (said(b"Operation not permitted (you must be root)\n"), "NotPermitted"),
        (said(b"netlink: Error: cache initialization failed: Operation not permitted\n"), "NotPermitted"),
        (said(b"Unable to initialize Netlink socket: Protocol not supported\n"), "NoNftables"),
        (said(b"netlink: Error: cache initialization failed: No such file or directory\n"), "NftUnreadable"),
        (said(b"Segmentation fault", -11), "NftUnreadable"),
        (said(b"", 1), "NftUnreadable"),
        (Completed(0, b"", b""), "NftUnreadable"),
        (Completed(0, ANSWER[:500], b""), "NftUnreadable"),
        (Completed(0, b"table inet dzagent {\n}\n", b""), "NftUnreadable"),
    ],
)
def test_what_cannot_be_read_is_said_and_never_absent(answer: Completed | KernelError, reason: str) -> None:
    found = seen(answer)
    assert (found.state, found.reason) == ("unread", reason)
    assert found.message


def test_the_answer_is_read_with_its_counters() -> None:
    found = seen(Completed(0, ANSWER.replace(b'"packets": 0', b'"packets": 3'), b""))
    assert (found.state, found.handle, found.counts["unicast_bgp"][0]) == ("there", 1, 3)


def test_a_tool_that_hangs_is_left_alone_for_a_while() -> None:
    now = [0.0]
    tool = Tool([KernelTimeout("killed"), said(GONE)])
    nft = Nft(tool, clock=lambda: now[0])
    assert nft.observe().reason == "NftFailed"
    now[0] = REST - 1
    assert nft.observe().reason == "NftFailed"
    assert len(tool.asked) == 1
    now[0] = REST
    assert nft.observe().state == "absent"


def add() -> Step:
    return Step(Action.ADD, None, AFTER, "missing")


def change() -> Step:
    return Step(Action.CHANGE, vouch(MARKED, Proof.MARK), AFTER, "differs")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (OK, Result.DONE),
        (said(b"/dev/stdin:1:19-25: Error: Could not process rule: File exists\n"), Result.RACED),
        (said(b"Error: Could not process rule: Device or resource busy\n"), Result.TRANSIENT),
        (said(b"Error: Could not process rule: Operation not supported\n"), Result.PERMANENT),
        (said(b"Error: Could not process rule: Operation not permitted\n"), Result.PERMANENT),
        (said(b"Error: syntax error, unexpected newline\n"), Result.PERMANENT),
        (said(b"", -9), Result.TRANSIENT),
        (KernelTimeout("killed"), Result.TRANSIENT),
        (KernelError("The program nft was not found"), Result.TRANSIENT),
    ],
)
def test_how_a_transaction_ends(answer: Completed | KernelError, result: Result) -> None:
    tool = Tool([answer])
    assert Nft(tool, clock=lambda: 0.0).apply(add()).result is result
    assert [args for _, args, _ in tool.asked] == [("-f", "-")]


def test_a_change_that_is_refused_is_tried_once_as_a_whole() -> None:
    tool = Tool([said(b"Error: Could not process rule: Operation not supported\n"), OK])
    assert Nft(tool, clock=lambda: 0.0).apply(change()).result is Result.DONE
    first, second = (stdin for _, _, stdin in tool.asked)
    assert "delete table" not in first
    assert second.startswith("delete table inet dzagent\ncreate table inet dzagent\n")


def test_without_the_right_nothing_is_tried_twice() -> None:
    tool = Tool([said(b"Error: Could not process rule: Operation not permitted\n")])
    assert Nft(tool, clock=lambda: 0.0).apply(change()).result is Result.PERMANENT
    assert len(tool.asked) == 1


def test_the_very_table_that_was_seen_is_deleted() -> None:
    tool = Tool([Completed(0, ANSWER.replace(b'"handle": 1}', b'"handle": 42}', 1), b""), OK])
    nft = Nft(tool, clock=lambda: 0.0)
    table = nft.observe().table
    nft.apply(Step(Action.DELETE, vouch(table, Proof.MARK), None, "x"))
    assert tool.asked[-1][2] == "delete table inet handle 42\n"


@pytest.mark.parametrize("mark", [True, False])
def test_a_change_works_on_a_table_of_ours_alone(*, mark: bool) -> None:
    """Its first line fails on any other table: one without our mark has another handle, or no mark to empty."""
    tool = Tool([Completed(0, ANSWER.replace(b'"handle": 1}', b'"handle": 42}', 1), b""), OK])
    nft = Nft(tool, clock=lambda: 0.0)
    table = nft.observe().table
    chains = tuple(chain for chain in table.chains if mark or chain.name != MARK)
    before = replace(table, chains=chains)
    nft.apply(Step(Action.CHANGE, vouch(before, Proof.MARK), replace(table, counters=(MARK,)), "x"))
    first = tool.asked[-1][2].splitlines()[0]
    assert first == (f"flush chain inet dzagent {MARK}" if mark else "delete table inet handle 42")


@pytest.mark.parametrize("mark", [True, False])
def test_what_stays_and_cannot_be_written_never_raises(*, mark: bool) -> None:
    """A chain that is withheld keeps a rule of somebody else: the change leaves it out, a new table could not."""
    chain = NftChain("unicast_x", None, (NftRule((NftUnknown("?"),)),))
    marked = MARKED if mark else NftTable(counters=(MARK,))
    before, after = combine((marked, NftTable((chain,)))), combine((MARKED, NftTable((chain,), (), ("n",))))
    tool = Tool([Completed(1, b"", b"Error: Could not process rule: Invalid argument")])
    outcome = Nft(tool, clock=lambda: 0.0).apply(
        Step(Action.CHANGE, vouch(before, Proof.MARK), after, "differs")
    )
    assert outcome.result is Result.PERMANENT
    assert len(tool.asked) == mark


def test_a_pass_without_work_starts_two_processes() -> None:
    batch = Tool([Completed(0, b"[]\n[]\n[]\n[]\n[]\n", b"")])
    tool = Tool([Completed(0, ANSWER, b"")])
    kernel = HostKernel(IpRoute(batch), Nft(tool, clock=lambda: 0.0))
    interest = Interest(210, ("doublezero0", "doublezero1"))
    first, second = kernel.observe(interest), kernel.observe(interest)
    assert [len(batch.asked), len(tool.asked)] == [2, 2]
    assert tool.asked[0][:2] == ("nft", LIST)
    assert first == second
    assert first.nft.table is second.nft.table


def test_each_step_goes_to_its_tool_and_keeps_its_place() -> None:
    link = Link(
        "doublezero0", IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), 64, 1476, "dzagent:unicast"
    )
    ip, nft = Tool([OK]), Tool([said(b"Error: x")])
    kernel = HostKernel(IpRoute(ip), Nft(nft, clock=lambda: 0.0))
    steps = (add(), Step(Action.ADD, None, link, "missing"), add())
    outcomes = kernel.apply(steps)
    assert [outcome.step for outcome in outcomes] == list(steps)
    assert [outcome.result for outcome in outcomes] == [Result.PERMANENT, Result.DONE, Result.PERMANENT]
    assert (len(ip.asked), len(nft.asked)) == (1, 2)


def test_a_real_program_that_hangs_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "nft"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)

    def runner(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        return run(program, args, stdin, timeout=0.2, search=[str(tmp_path), "/bin", "/usr/bin"])

    assert Nft(runner).observe().reason == "NftFailed"


def test_a_machine_without_nft_is_no_error(tmp_path: Path) -> None:
    def runner(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        return run(program, args, stdin, search=[str(tmp_path)])

    found = Nft(runner).observe()
    assert (found.state, found.reason) == ("unread", "NftMissing")
    assert "install the package nftables" in found.message
