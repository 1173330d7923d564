"""The policy of a site while the agent runs: read anew when its files change, and the last good one kept on disk.

A policy that cannot be used changes nothing: the one in use stays, and the problem is told with file and line. That
holds for a start too: a host must not be left without repairs by a slip in a file. `dzagentd --check` refuses it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from dzagent import yamlfile
from dzagent.errors import ConfigError, DzagentError, StateError
from dzagent.files import Stamp, read_bytes, stamp, write_atomic
from dzagent.policy import Policy, find_policy, load_policy, parse_policy
from dzagent.policytext import END, policy_text

log = logging.getLogger(__name__)

Load: TypeAlias = Callable[[dict[Path, Stamp]], Policy]
"""Loads the policy; notes every file that it looks for, as it was just before it was read. Raises ConfigError."""

CODE: Final = "PolicyRefused"
"""What the problem of a policy that cannot be used is called."""


def loader(name: str, search: tuple[Path, ...]) -> Load:
    """Return what loads the policy that the configuration names."""

    def load(trail: dict[Path, Stamp]) -> Policy:
        return load_policy(find_policy(name, search, trail), search, trail)

    return load


class PolicyFiles:
    """One policy and the files it is made of.

    One thread calls `look`; `again`, `sound` and `renewed` are for any.
    """

    def __init__(self, load: Load, kept: Path | None = None) -> None:
        """kept: where the last good policy is; None keeps none. Raises ConfigError if there is no policy to use."""
        self._load, self._kept = load, kept
        self._trail: dict[Path, Stamp] = {}
        self._seen: dict[Path, Stamp] = {}
        self._again = threading.Event()
        self._stored: Policy | None = None
        self.problem = ""
        try:
            self.sound = self._read()
        except ConfigError as error:
            self.sound = self._last_good(error)
        self._used = self.sound

    def take(self) -> Policy:
        """Return the policy to use from now on, and keep it for a start that finds a bad one."""
        self._used = self.sound
        self._keep(self._used)
        return self._used

    @property
    def renewed(self) -> bool:
        """Whether the newest sound policy differs from the one in use in more than its exclude list."""
        return _beside_list(self.sound) != _beside_list(self._used)

    def again(self) -> None:
        """Make the next `look` read the files, changed or not."""
        self._again.set()

    def look(self) -> bool:
        """Read the files if they changed, and have stayed so since the last look; tells whether anything is new.

        A file that is being written is no policy yet, even if its first half could be one.
        """
        asked = self._again.is_set()
        if asked:
            self._again.clear()
        else:
            now = {path: stamp(path) for path in self._trail}
            still, self._seen = now == self._seen, now
            if now == self._trail or not still:
                return False
        before = (self.sound, self.problem)
        try:
            self.sound = self._read()
            self.problem = ""
        except ConfigError as error:
            self.problem = f"{error}; the policy in use stays until this is corrected"
        new = before != (self.sound, self.problem)
        if new or asked:
            self._tell()
        return new

    def _tell(self) -> None:
        if self.problem:
            log.warning("policy: %s", self.problem)
            return
        log.info("policy: read again, %s", "it is used from now on" if self.renewed else "it is sound")
        if not self.renewed:
            self._keep(self.sound)

    def _read(self) -> Policy:
        trail: dict[Path, Stamp] = {}
        try:
            return self._load(trail)
        finally:
            self._trail = self._seen = trail

    # ---- the last good one -------------------------------------------------------------------------------

    def _last_good(self, error: ConfigError) -> Policy:
        found = None if self._kept is None else read_last_good(self._kept)
        if found is None:
            raise error
        self.problem = f"{error}; the last good policy is used until this is corrected"
        log.warning("policy: %s", self.problem)
        return found

    def _keep(self, policy: Policy) -> None:
        if self._kept is None or self.problem or policy == self._stored:
            return
        try:
            if read_last_good(self._kept) != policy:
                _write(self._kept, policy)
            self._stored = policy
        except DzagentError as error:
            log.warning("policy: a start with a bad policy file would find no good one: %s", error)


def policy_or_last_good(load: Load, kept: Path) -> Policy:
    """Return the policy, else the last good one. Raises ConfigError for a bad policy if there is none."""
    return PolicyFiles(load, kept).sound


def read_last_good(path: Path) -> Policy | None:
    """Return the policy that was kept, None if there is none that can be used."""
    try:
        data = read_bytes(path, yamlfile.MAX_BYTES)
        if not data.endswith(END.encode()):
            raise ConfigError("it is cut off", file=str(path))
        return parse_policy(yamlfile.parse(data, str(path)), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ConfigError) as error:
        log.warning("policy: the last good one cannot be used: %s", error)
        return None


def _write(path: Path, policy: Policy) -> None:
    """Write a policy so that it reads back as the same. Raises StateError, ConfigError."""
    data = policy_text(policy).encode()
    if parse_policy(yamlfile.parse(data, str(path)), str(path)) != policy:
        raise StateError(f"{path} would not hold the same policy")
    write_atomic(path, data)


def _beside_list(policy: Policy) -> Policy:
    return replace(policy, bgp=replace(policy.bgp, exclude=()))
