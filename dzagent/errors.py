"""Every error dzagent raises on purpose, in one tree.

DzagentError
├── InputError            a person gave us something unusable (file, flag, HTTP body)
│   ├── ConfigError       configuration or policy file
│   ├── TemplateError     a template that does not render
│   └── GrammarError      rendered text outside the closed grammar
├── DecodeError           account bytes that cannot be read
├── LedgerError           the ledger gave no usable answer
│   ├── Unreachable       no answer (refused, timed out, too large, HTTP error)
│   │   ├── RateLimited   the node asks for fewer requests
│   │   │   └── OverBudget   our own budget of requests is used up
│   │   ├── NameUnresolved   the host name has no address
│   │   └── TlsFailed     no secure connection: certificate, clock, protocol
│   └── Unusable          an answer that is not what was asked for
│       ├── NotAnRpc      a server of another kind (a web page, say)
│       ├── MethodRefused the server does not serve this kind of request
│       ├── WrongProgram  this ledger does not have the program
│       ├── SlotLeap      a slot so far ahead that it cannot be true yet
│       ├── LaggingNode   an answer older than one already seen: not a failure, nothing changes
│       └── LedgerChanged another genesis hash: a different ledger, nothing changes
├── EngineError           the BGP engine gave no usable answer: never "no routes"
│   ├── EngineGone        nothing listens on its control socket
│   ├── EngineSilent      it listens and does not answer in time
│   └── EngineRefused     it understood the command and refused it
├── KernelError           ip or nft failed
│   ├── KernelTimeout     it had to be killed: what it did is not known
│   └── ObservationError  what the kernel holds could not be read: never "empty"
├── StateError            a file of our own cannot be read or written
└── MigrationError        the move from doublezerod, or the way back, cannot go on
"""


class DzagentError(Exception):
    """Base of the tree: its text is one clear sentence for a person."""


class InputError(DzagentError):
    """Unusable input; says what is wrong, where, and what was expected."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        self.file = file
        self.line = line
        self.reason = message
        where = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(where + message)


class ConfigError(InputError):
    """The configuration or a policy file is unusable."""


class TemplateError(InputError):
    """A template cannot be rendered."""


class GrammarError(InputError):
    """A rendered line is outside the closed grammar."""


class DecodeError(DzagentError):
    """Account bytes that cannot be read as the type they claim."""


class LedgerError(DzagentError):
    """The ledger gave no usable answer."""


class Unreachable(LedgerError):
    """No answer: refused, timed out, too large, or an HTTP error."""


class RateLimited(Unreachable):
    """The node asks for fewer requests; `retry_after` is its wish in seconds, None if it named none."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class OverBudget(RateLimited):
    """Our own budget of requests a minute is used up; nothing was sent."""


class NameUnresolved(Unreachable):
    """The name of the endpoint has no address, or the resolver does not answer."""


class TlsFailed(Unreachable):
    """No secure connection: a certificate that does not fit, a clock that is wrong, another protocol."""


class Unusable(LedgerError):
    """An answer arrived that is not what was asked for."""


class NotAnRpc(Unusable):
    """A server of another kind answered: a web page, or JSON that is no JSON-RPC."""


class MethodRefused(Unusable):
    """The server does not serve this method, or not with these parameters."""


class WrongProgram(Unusable):
    """The ledger holds nothing of the configured program: the wrong program id, or the wrong network."""


class SlotLeap(Unusable):
    """An answer for a slot that cannot have been reached; `slot` is what it says.

    Believed at once it would make every honest answer after it an old one.
    """

    def __init__(self, message: str, slot: int = 0) -> None:
        self.slot = slot
        super().__init__(message)


class LaggingNode(Unusable):
    """The node is behind what was seen before: no failure, and no reason to change anything."""


class LedgerChanged(Unusable):
    """The endpoint serves another ledger (another genesis hash) than before."""


class EngineError(DzagentError):
    """The BGP engine gave no usable answer; never to be taken for "no session" or "no routes"."""


class EngineGone(EngineError):
    """Nothing listens on the engine's control socket: it is not running."""


class EngineSilent(EngineError):
    """The engine listens but did not answer in time."""


class EngineRefused(EngineError):
    """The engine understood a command and refused it, such as a configuration with an error."""


class KernelError(DzagentError):
    """A kernel tool failed."""


class KernelTimeout(KernelError):
    """A kernel tool did not end in time and was killed: what of its work was done is not known."""


class ObservationError(KernelError):
    """What the kernel holds could not be read; never to be taken for "empty"."""


class StateError(DzagentError):
    """A file of our own cannot be read or written."""


class MigrationError(DzagentError):
    """The move from doublezerod, or the way back, cannot go on; says what is left as it is."""
