"""What a pass says of BGP: whether every session is up, and what else a person should know. Pure."""

from __future__ import annotations

from dzagent.bgp.session import UP, SessionView
from dzagent.bgp.view import BgpView
from dzagent.conditions import Judgement
from dzagent.errors import EngineGone
from dzagent.model import Problem, ServiceName
from dzagent.passreport import PassReport

_REMARKS = frozenset({"ExcludeList", "PolicyRefused", "ZebraAdopts"})
"""Problems of BGP that leave its sessions as they are."""

NO_ENGINE = "EngineAbsent"
_NO_ENGINE_TEXT = "no BGP engine has ever run on this host: tunnels are set up, but carry no learned routes; start dzagent-bird"


def session_up(report: PassReport) -> Judgement:
    """Say whether every session that should be up is up, and if not, why."""
    bgp = report.bgp
    if bgp is None or not bgp.peers:
        return ("SessionUp", "Unknown", *_no_session(report))
    if bgp.trouble is not None and bgp.trouble.code == EngineGone.__name__ and not bgp.expected:
        return ("SessionUp", "Unknown", NO_ENGINE, _NO_ENGINE_TEXT)
    if bgp.trouble is not None:
        return ("SessionUp", "Unknown", bgp.trouble.code, bgp.trouble.message)
    for code, message in bgp.problems:
        if code not in _REMARKS:
            return ("SessionUp", "False", code, message)
    down = [(name, item.session) for name, item in bgp.peers.items() if item.session.status != UP]
    if not down:
        return ("SessionUp", "True", "Established", f"{len(bgp.peers)} of {len(bgp.peers)} sessions are up")
    name, session = next((pair for pair in down if pair[1].reason), down[0])
    return ("SessionUp", "False", session.reason or "Pending", session_text(name, session))


def _no_session(report: PassReport) -> tuple[str, str]:
    """Say why there is no session to judge: a reason and a message."""
    if report.bgp is None:
        return "Absent", "nobody watches BGP here"
    if report.intent.enabled is False:
        return "Disabled", "a disabled agent has no session"
    if report.wishes.texts:
        return "PeerUnknown", "which peer a kept service has is not known"
    return "NoService", "no service needs a session"


def session_text(name: ServiceName, session: SessionView) -> str:
    """Say in one sentence how a session is."""
    why = f": {session.message}" if session.message else ""
    tries = f", {session.failures} attempts failed" if session.failures else ""
    return f"{name}: {session.status}{why}{tries}"


def bgp_problems(bgp: BgpView | None) -> list[Problem]:
    """Return what BGP has to say beside the sessions: what is refused, kept although nobody announces it, or lost."""
    if bgp is None:
        return []
    found = [Problem(code, message) for code, message in bgp.problems]
    if bgp.trouble is not None and bgp.peers:
        found.append(Problem(bgp.trouble.code, bgp.trouble.message))
    for name, item in bgp.peers.items():
        refused = ", ".join(f"{count} {code}" for code, count in item.refused.counts.items())
        if refused:
            found.append(Problem("RoutesRefused", f"of what {item.peer.remote} announces: {refused}", name))
        if item.full:
            message = f"{item.peer.remote} announces more routes than bgp.max_routes: the rest is dropped"
            found.append(Problem("TooManyRoutes", message, name))
        if item.unusable:
            message = f"{item.unusable} updates of {item.peer.remote} could not be used by the engine"
            found.append(Problem("UpdatesUnusable", message, name))
        if item.stale:
            message = (
                f"{len(item.stale)} routes are kept although {item.peer.remote} no longer announces them"
            )
            found.append(Problem("RoutesStale", message, name))
    return found
