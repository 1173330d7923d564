"""The device's BGP, as a real one has it: passive, one prefix at most, AS path of length one, AS 65342.

Two makes of router speak it: FRR's bgpd and BIRD. Both are configured as the devices' own template says (a passive
neighbour in AS 65000, its /32 only, a limit of one prefix); timers are hold 3 and keepalive 1, or longer in an
emulated lab.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from e2e.lab.errors import LabError
from e2e.lab.netns import Namespace
from e2e.lab.processes import Process

DEVICE_ASN = 65342
USER_ASN = 65000
FRR_BGPD = "/usr/lib/frr/bgpd"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A user as the device sees it: both ends of the /31, the link, and the one prefix that it may announce.

    announce: prefixes that this user alone gets, beside those of other users.
    """

    name: str
    link: str
    local: str
    remote: str
    dz_ip: str
    announce: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds: hold and keepalive."""

    hold: int = 3
    keepalive: int = 1


@dataclass
class Router(ABC):
    """A device's BGP daemon in a namespace."""

    namespace: Namespace
    root: Path
    asn: int = DEVICE_ASN
    timers: Timers = field(default_factory=Timers)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.process = Process("router", self.namespace, self.command(), self.root / "router.log")

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command that runs it in the foreground."""

    @abstractmethod
    def text(self, neighbours: Iterable[Neighbour], extra: Iterable[str]) -> str:
        """Return its configuration."""

    def start(self, neighbours: Iterable[Neighbour], extra: Iterable[str] = ()) -> None:
        """Run it. extra: prefixes announced to everybody."""
        self.write(neighbours, extra)
        self.process.start()

    def write(self, neighbours: Iterable[Neighbour], extra: Iterable[str]) -> None:
        """Write its configuration."""
        (self.root / "router.conf").write_text(self.text(neighbours, extra))

    def configure(self, neighbours: Iterable[Neighbour], extra: Iterable[str] = ()) -> None:
        """Take another configuration; a daemon that cannot do so while it runs is started anew."""
        self.process.stop()
        self.start(neighbours, extra)

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def run(self, *command: str) -> str:
        """Run a command in its namespace. Raises LabError."""
        done = self.namespace.run(*command)
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout


class BirdRouter(Router):
    """A device that runs BIRD."""

    def command(self) -> Sequence[str]:
        """Return the command that runs it in the foreground."""
        return ["bird", "-f", "-c", str(self.root / "router.conf"), "-s", str(self.root / "router.ctl")]

    def text(self, neighbours: Iterable[Neighbour], extra: Iterable[str]) -> str:
        """Return its configuration: users meet in one table, each sees the others with a path of length one."""
        routes = "".join(f"  route {prefix} blackhole;\n" for prefix in extra)
        parts = [
            "log stderr all;\nrouter id 192.0.2.1;\nprotocol device dev_device {}\nipv4 table dvt;\n",
            f"protocol static dev_extra {{\n  ipv4 {{ table dvt; }};\n{routes}}}\n",
        ]
        for user in neighbours:
            own = "".join(f"  route {prefix} blackhole;\n" for prefix in user.announce)
            parts.append(
                f"ipv4 table dvt_{user.name};\n"
                f"protocol static dev_own_{user.name} {{ ipv4 {{ table dvt_{user.name}; }};\n{own}}}\n"
                f"protocol pipe dev_pipe_{user.name} {{ table dvt_{user.name}; peer table dvt;\n"
                f"  import where net != {user.dz_ip}/32; export where source = RTS_BGP; }}\n"
                f"protocol bgp dev_bgp_{user.name} {{\n"
                f"  local {user.local} as {self.asn}; neighbor {user.remote} as {USER_ASN};\n"
                f'  interface "{user.link}"; passive; direct;\n'
                f"  hold time {self.timers.hold}; keepalive time {self.timers.keepalive};\n"
                f"  error wait time 1, 2; error forget time 5;\n"
                f"  ipv4 {{ table dvt_{user.name}; next hop self;\n"
                f"    import filter {{ if net = {user.dz_ip}/32 && bgp_path.len = 1 then accept; reject; }};\n"
                f"    receive limit 1 action restart;\n"
                f"    export filter {{ if net = {user.dz_ip}/32 then reject;\n"
                f"      if source = RTS_STATIC then {{ bgp_path.empty; bgp_path.prepend({USER_ASN}); }}\n"
                f"      accept; }};\n  }};\n}}\n"
            )
        return "".join(parts)

    def configure(self, neighbours: Iterable[Neighbour], extra: Iterable[str] = ()) -> None:
        """Take another configuration without a restart."""
        self.write(neighbours, extra)
        self.tell("configure")

    def tell(self, *words: str) -> str:
        """Give a command on its control socket. Raises LabError."""
        return self.run("birdc", "-s", str(self.root / "router.ctl"), *words)


class FrrRouter(Router):
    """A device that runs FRR's bgpd, alone: it speaks BGP and installs nothing."""

    _known: Mapping[str, Neighbour] = MappingProxyType({})

    def command(self) -> Sequence[str]:
        """Return the command that runs it in the foreground."""
        return [
            *(FRR_BGPD, "-S", "-n", "-Z", "-p", "179", "-P", "0", "-u", "root", "-g", "root"),
            *("--vty_socket", str(self.root), "-i", str(self.root / "bgpd.pid")),
            *("-f", str(self.root / "router.conf"), "--log", "stdout"),
        ]

    def text(self, neighbours: Iterable[Neighbour], extra: Iterable[str]) -> str:
        """Return its configuration."""
        users = list(neighbours)
        self._known = {user.remote: user for user in users}
        lines = [
            f"router bgp {self.asn}",
            " bgp router-id 192.0.2.1",
            " no bgp ebgp-requires-policy",
            " no bgp network import-check",
            " no bgp default ipv4-unicast",
            f" timers bgp {self.timers.keepalive} {self.timers.hold}",
            " address-family ipv4 unicast",
            *(f"  network {prefix} route-map USERS" for prefix in extra),
            " exit-address-family",
            "exit",
            f"bgp as-path access-list ONE permit ^{USER_ASN}$",
            "route-map USERS permit 10",
            f" set as-path prepend {USER_ASN}",
            "exit",
        ]
        return "\n".join([*lines, *(line for user in users for line in self._lines(user))]) + "\n"

    def _lines(self, user: Neighbour) -> list[str]:
        """Return the lines that add one user."""
        return [
            f"ip prefix-list DZ-{user.name} permit {user.dz_ip}/32",
            f"route-map IN-{user.name} permit 10",
            f" match ip address prefix-list DZ-{user.name}",
            " match as-path ONE",
            "exit",
            f"route-map OUT-{user.name} deny 10",
            f" match ip address prefix-list DZ-{user.name}",
            "exit",
            f"route-map OUT-{user.name} permit 20",
            "exit",
            f"router bgp {self.asn}",
            f" neighbor {user.remote} remote-as {USER_ASN}",
            f" neighbor {user.remote} passive",
            f" neighbor {user.remote} update-source {user.local}",
            f" neighbor {user.remote} disable-connected-check",
            f" neighbor {user.remote} advertisement-interval 0",
            " address-family ipv4 unicast",
            f"  neighbor {user.remote} activate",
            f"  neighbor {user.remote} next-hop-self force",
            f"  neighbor {user.remote} maximum-prefix 1",
            f"  neighbor {user.remote} route-map IN-{user.name} in",
            f"  neighbor {user.remote} route-map OUT-{user.name} out",
            " exit-address-family",
            "exit",
        ]

    def configure(self, neighbours: Iterable[Neighbour], extra: Iterable[str] = ()) -> None:
        """Take other users without a restart: what is the same is not touched. `extra` stays as it was."""
        del extra
        wanted = {user.remote: user for user in neighbours}
        gone = [user for remote, user in self._known.items() if wanted.get(remote) != user]
        new = [user for remote, user in wanted.items() if self._known.get(remote) != user]
        lines = (
            [f"router bgp {self.asn}", *(f" no neighbor {user.remote}" for user in gone), "exit"]
            if gone
            else []
        )
        for user in gone:
            names = (
                f"route-map IN-{user.name}",
                f"route-map OUT-{user.name}",
                f"ip prefix-list DZ-{user.name}",
            )
            lines += [f"no {name}" for name in names]
        lines += [line for user in new for line in self._lines(user)]
        self._known = wanted
        if lines:
            self.run(
                "vtysh", "--vty_socket", str(self.root), "-d", "bgpd", *_each("-c", ["configure", *lines])
            )


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def frr_missing() -> str | None:
    """Say why FRR cannot run here, None if it can."""
    return None if Path(FRR_BGPD).exists() else "FRR's bgpd is not installed: e2e/lab/setup bgp does that"


def bird_missing() -> str | None:
    """Say why BIRD cannot run here, None if it can."""
    return (
        None
        if shutil.which("bird", path="/usr/sbin:/usr/bin:/sbin:/bin")
        else "BIRD is not installed: e2e/lab/setup bgp"
    )


KINDS: Mapping[str, type[Router]] = {"bird": BirdRouter, "frr": FrrRouter}


class PeerUser(Router):
    """Another user of a device: BIRD announces its one address and installs what it learns."""

    address = ""
    overlay: tuple[str, str] = ("", "")
    """The two ends of its /31: the device's and its own."""

    def command(self) -> Sequence[str]:
        """Return the command that runs it in the foreground."""
        return ["bird", "-f", "-c", str(self.root / "router.conf"), "-s", str(self.root / "router.ctl")]

    def text(self, neighbours: Iterable[Neighbour], extra: Iterable[str]) -> str:
        """Return its configuration; it has one device and nothing to announce beside itself."""
        del neighbours, extra
        device, own = self.overlay
        return (
            f"log stderr all;\nrouter id {self.address};\nprotocol device user_device {{}}\n"
            f"protocol static user_own {{ ipv4; route {self.address}/32 blackhole; }}\n"
            f"protocol kernel user_kernel {{ metric 50; ipv4 {{ import none; export filter {{\n"
            f"  if source != RTS_BGP then reject; krt_prefsrc = {self.address}; accept; }}; }}; }}\n"
            f"protocol bgp user_bgp {{ local {own} as {USER_ASN}; neighbor {device} as {self.asn};\n"
            f'  interface "dz0"; direct; allow local as 1; connect delay time 1; connect retry time 2;\n'
            f"  error wait time 1, 5; ipv4 {{ next hop self; import where net != {self.address}/32;\n"
            f"  export where source = RTS_STATIC; }}; }}\n"
        )
