"""A kernel in memory: dzagent's own reader and writer of `ip`, on top of an `ip` that is a fake.

What it does is described, and held against the running kernel, in tests/kernel_fake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from dzagent.errors import KernelError, KernelTimeout
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import Completed
from dzagent.model import Address, Interest, Link, Observed, Outcome, SeenLink, Step
from tests.kernel_fake.answers import NoTable, answer
from tests.kernel_fake.faults import Fault, Killed, LineFault
from tests.kernel_fake.script import GaveUp, run_line
from tests.kernel_fake.state import Refused, State

__all__ = ["FakeKernel", "Fault", "Killed", "LineFault"]


@dataclass
class _Said:
    """What one process has printed so far."""

    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def completed(self, code: int) -> Completed:
        return Completed(code, _text(self.out), _text(self.err))


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@dataclass
class FakeKernel(State):
    """Implements `Runner` and, through the real `IpRoute`, `Kernel`.

    sources: source addresses by destination. faults strike at steps, troubles at lines. applied: every step that
    was tried, in order. written: every line that is no read, in order. moment: called with a word at every boundary:
    after a process that reads ("look"), and before, within and after one that writes ("start", "line", "end"); it may
    raise `Killed`. before_write: called before a process that writes: what somebody else does after the agent has
    looked.
    """

    sources: dict[IPv4Address, IPv4Address] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    troubles: list[LineFault] = field(default_factory=list)
    applied: list[Step] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    observe_error: KernelError | None = None
    most_exact: int = 1 << 30  # more keys than these take longer than there is time
    observations: int = 0
    moment: Callable[[str], None] = lambda _: None
    before_write: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._ip = IpRoute(self)

    # ---- Kernel --------------------------------------------------------------------------------------------

    def observe(self, interest: Interest) -> Observed:
        self.observations += 1
        if self.observe_error is not None:
            raise self.observe_error
        if len(interest.exact) > self.most_exact:
            raise KernelTimeout("ip did not end within 10 s and was killed.")
        return self._ip.observe(interest)

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        outcomes: dict[int, Outcome] = {}
        ready: list[int] = []
        for number, step in enumerate(steps):
            self.applied.append(step)
            fault = next((fault for fault in self.faults if fault.fits(step)), None)
            if fault is None:
                ready.append(number)
                continue
            self.faults.remove(fault)
            if fault.error is not None:
                self._ip.apply([steps[n] for n in ready])
                raise fault.error
            outcomes[number] = Outcome(step, fault.result, "injected")
        outcomes |= zip(ready, self._ip.apply([steps[n] for n in ready]), strict=True)
        return tuple(outcomes[number] for number in range(len(steps)))

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        return self._ip.source_for(dst)

    # ---- what somebody else does ---------------------------------------------------------------------------

    def ip(self, command: str) -> str:
        """Do what somebody else does; returns what `ip` prints. The agent's faults do not strike here."""
        said = _Said()
        try:
            self._line(command, said)
        except (Refused, GaveUp) as error:
            raise AssertionError(f"ip {command}: {error}") from error
        return "\n".join(said.out)

    def add_link(self, link: Link, kind: str = "gre") -> SeenLink:
        """Put a link there, whoever owns it."""
        self.next_index += 1
        tunnel = link if kind == "gre" else None
        seen = SeenLink(link.name, self.next_index, kind, link.up, link.mtu, link.alias, tunnel)
        self.links[link.name] = seen
        return seen

    def delete_link(self, name: str) -> None:
        self.ip(f"link delete dev {name}")

    def set_link(self, link: Link) -> None:
        """Change a GRE link in place; one that goes down loses its routes."""
        self.catch_up()
        self.change_link(self.links[link.name], replace(link, up=self.links[link.name].up))
        self.set_attributes(self.links[link.name], mtu=link.mtu, alias=link.alias)
        self.set_up(self.links[link.name], up=link.up)

    def remove_address(self, address: Address) -> None:
        self.catch_up()
        self.drop_address(next(held for held in self.addresses if held == address))

    # ---- Runner --------------------------------------------------------------------------------------------

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        """Be `ip`: with a batch on standard input, or with one question as arguments."""
        assert program == "ip"
        batch = "-batch" in args
        lines = stdin.splitlines() if batch else [" ".join(arg for arg in args if not arg.startswith("-"))]
        writes = not all(" show" in line or line.startswith("route get ") for line in lines)
        if self.before_write is not None and writes:
            before, self.before_write = self.before_write, None
            before()
        if writes:
            self.moment("start")
        done = self._process(lines, batch=batch, force="-force" in args)
        self.moment("end" if writes else "look")
        return done

    def _process(self, lines: Sequence[str], *, batch: bool, force: bool) -> Completed:
        said, late, cut = _Said(), False, False
        code = 0
        for number, line in enumerate(lines, 1):
            trouble = next((t for t in self.troubles if t.strikes(line)), None)
            way = "" if trouble is None else trouble.way
            if way in {"killed", "terminated"}:
                return said.completed(-9 if way == "killed" else -15)
            late, cut = late or way == "times out", cut or way == "truncated"
            try:
                self._struck(line, said, trouble)
            except GaveUp as error:
                said.err.append(str(error))
                return said.completed(255)
            except NoTable as error:
                if not batch:
                    return Completed(2, b"[", _text([str(error)]))
                said.out.append("[]")
            except Refused as error:
                said.err += [str(error), *([f"Command failed -:{number}"] if batch else [])]
                code = 1 if batch else 2
                if not force:
                    break
            if " show" not in line:
                self.moment("line")
        if late:
            raise KernelTimeout("ip did not end within 10 s and was killed.")
        done = said.completed(code)
        return replace(done, stdout=done.stdout[: len(done.stdout) // 2]) if cut else done

    def _struck(self, line: str, said: _Said, trouble: LineFault | None) -> None:
        if trouble is not None and trouble.way == "fails":
            raise Refused(trouble.message)
        if trouble is not None and trouble.way == "interrupted":
            raise Refused("Cannot talk to rtnetlink: Interrupted system call")
        self._line(line, said)
        if trouble is not None and trouble.way == "lies":
            raise Refused(trouble.message)

    def _line(self, line: str, said: _Said) -> None:
        self.catch_up()
        if line.startswith("route get "):
            said.out.append(self._route_get(line))
            return
        text = answer(self, line)
        if text is not None:
            said.out.append(text)
            return
        self.written.append(line)
        run_line(self, line)

    def _route_get(self, line: str) -> str:
        dst = line.rsplit(maxsplit=1)[-1]
        source = self.sources.get(IPv4Address(dst))
        if source is None:
            raise Refused("RTNETLINK answers: Network is unreachable")
        return f'[{{"dst":"{dst}","prefsrc":"{source}","flags":[],"uid":0,"cache":[]}}]'
