"""`dzagent render`: from a dump of accounts to the files that a host would have. Needs no host and no root."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import click

from dzagent.config import Config, refuse_client_ip
from dzagent.configfile import load_config
from dzagent.desired import stamped
from dzagent.errors import InputError, StateError, Unusable
from dzagent.files import write_atomic
from dzagent.grammar import FILES
from dzagent.ledger.answers import is_address
from dzagent.ledger.snapshot import Snapshot, build_snapshot
from dzagent.model import SERVICE_NAMES, Decision, Keep, Problem, Provide, Service, ServiceName, Withdraw
from dzagent.ownership import Ownership
from dzagent.policy import Policy, find_policy, load_policy
from dzagent.protect import protect
from dzagent.render import Templates, parse_texts, render_service
from dzagent.services import Host, decide, tunnel_destinations
from dzagent.share import find, places
from dzagent.wishes import Texts, wish

MAX_DUMP = 256 * 1024 * 1024
"""Bytes of a dump; all of mainnet's accounts are about 3 MB."""

LEFT_OUT = frozenset({"UnknownUserType", "DuplicateUser"})
"""Problems that mean that a user account of this client IP got no service."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of a dump: decisions by service, their texts, and everything that a person should know."""

    decisions: Mapping[ServiceName, Decision]
    texts: Texts
    problems: tuple[Problem, ...]

    @property
    def valid(self) -> bool:
        """Whether every service that the dump grants is rendered."""
        kept = any(isinstance(decision, Keep) for decision in self.decisions.values())
        missing = any(isinstance(d, Provide) and name not in self.texts for name, d in self.decisions.items())
        return not kept and not missing and not any(p.code in LEFT_OUT for p in self.problems)


def _ipv4(text: str) -> IPv4Address:
    """Read an address; click adds the name of the option to the error."""
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise click.BadParameter(f"{text!r} is not an IPv4 address such as 198.51.100.7") from error


@click.command(name="render")
@click.option(
    "--accounts", "path", required=True, type=click.Path(path_type=Path), help="The dump, see above."
)
@click.option(
    "--client-ip",
    required=True,
    type=_ipv4,
    metavar="IP",
    help="The host's address, as its user account has it.",
)
@click.option(
    "--tunnel-src",
    type=_ipv4,
    metavar="IP",
    help="Outer source for the types that look it up in the kernel (default: the client IP).",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def render(
    ctx: click.Context,
    *,
    path: Path,
    client_ip: IPv4Address,
    tunnel_src: IPv4Address | None,
    out: Path,
    as_json: bool,
) -> None:
    """Render the desired files of a host from a dump of accounts.

    The dump is a JSON list [{"pubkey": "...", "data": "BASE64"}] or a folder of files named <base58>.bin.
    Nothing is asked of this machine: no root, no kernel, no ledger. Policy, templates and link names are those
    of the configuration (`dzagent --config FILE render ...`), or the defaults.

    Exit status: 0 if every granted service was rendered, 1 if one is invalid or left out, 2 for unusable input.
    """
    refused = refuse_client_ip(client_ip, "custom")
    if refused is not None:
        raise InputError(f"--client-ip: {refused}")
    config = _config(ctx)
    snapshot = _snapshot(read_dump(path), path)
    done = render_all(snapshot, client_ip, tunnel_src or client_ip, config)
    write_files(out, done.texts)
    click.echo(json.dumps(_document(done, out), indent=2) if as_json else _text(done, out))
    ctx.exit(0 if done.valid else 1)


def _config(ctx: click.Context) -> Config:
    """Return the configuration that the main command was given; a missing default file is no error."""
    found = ctx.find_root().params.get("config_file")
    return load_config(Path(found)) if found else load_config()


# ---- the dump --------------------------------------------------------------------------------------------


def read_dump(path: Path) -> tuple[tuple[str, bytes], ...]:
    """Read (address, data) pairs from a JSON list or a folder of .bin files. Raises InputError."""
    try:
        if path.is_dir():
            return tuple(_folder(path))
        with path.open("rb") as file:
            data = file.read(MAX_DUMP + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=str(path)) from error
    if len(data) > MAX_DUMP:
        raise InputError(f"is larger than {MAX_DUMP} bytes", file=str(path))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON ({error}): expected {_FORM}", file=str(path)) from error
    if not isinstance(document, list):
        raise InputError(f"expected {_FORM}", file=str(path))
    return tuple(_entry(item, number, path) for number, item in enumerate(document, 1))


_FORM = 'a list [{"pubkey": "...", "data": "BASE64"}]'


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    files = sorted(file for file in path.iterdir() if file.suffix == ".bin")
    if not files:
        raise InputError("holds no file named <base58>.bin", file=str(path))
    for file in files:
        if not is_address(file.stem):
            raise InputError("is not named after an account: expected <base58>.bin", file=str(file))
        with file.open("rb") as opened:
            yield file.stem, opened.read(MAX_DUMP)


def _entry(item: Any, number: int, path: Path) -> tuple[str, bytes]:
    """Read one entry; the account object of an RPC answer is taken as well."""
    found = item if isinstance(item, dict) else {}
    address = found.get("pubkey")
    if not is_address(address):
        raise InputError(f"entry {number} has no base58 pubkey: expected {_FORM}", file=str(path))
    account = found.get("account")
    data = account.get("data") if isinstance(account, dict) else found.get("data")
    match data:
        case str(text) | [str(text), "base64"]:
            with contextlib.suppress(binascii.Error, ValueError):
                return address, base64.b64decode(text, validate=True)
    raise InputError(f"entry {number} ({address}) has no base64 data: expected {_FORM}", file=str(path))


def _snapshot(accounts: Iterable[tuple[str, bytes]], path: Path) -> Snapshot:
    try:
        return build_snapshot(accounts)
    except Unusable as error:
        raise InputError(str(error), file=str(path)) from error


# ---- rendering -------------------------------------------------------------------------------------------


def render_all(
    snapshot: Snapshot, client_ip: IPv4Address, tunnel_src: IPv4Address, config: Config
) -> Rendered:
    """Decide, render and parse back, as a pass of the agent does. Raises InputError for policy or templates."""
    policy = load_policy(find_policy(config.policy, places("policies")))
    links = {name: config.links.of(name) for name in SERVICE_NAMES}
    decisions = decide(snapshot, _host(snapshot, client_ip, tunnel_src), policy, links)
    templates = Templates((config.templates, find("templates")))
    by_name: dict[ServiceName, Decision] = {"unicast": decisions.unicast, "multicast": decisions.multicast}
    wishes = wish(by_name, {}, lambda service: _checked(service, policy, templates, links))
    problems = (*snapshot.problems, *decisions.problems, *wishes.problems)
    return Rendered(by_name, wishes.texts, tuple(dict.fromkeys(problems)))


def _checked(
    service: Service, policy: Policy, templates: Templates, links: Mapping[ServiceName, str]
) -> Mapping[str, str]:
    text = render_service(service, policy, templates, links=tuple(links.values()))
    owner = Ownership(policy.protocol, {link: f"dzagent:{name}" for name, link in links.items()})
    parse_texts({service.name: text}, owner)
    return text


def _host(snapshot: Snapshot, client_ip: IPv4Address, tunnel_src: IPv4Address) -> Host:
    own = tuple(dict.fromkeys((client_ip, tunnel_src)))
    return Host(
        client_ip=client_ip,
        tunnel_sources=dict.fromkeys(tunnel_destinations(snapshot, client_ip), tunnel_src),
        protected=protect(interfaces=[IPv4Interface((ip, 32)) for ip in own]),
        addresses=frozenset(own),
    )


def write_files(out: Path, texts: Texts) -> None:
    """Write SERVICE/FILE.ip below `out`; files of services that are not rendered now are removed.

    Nothing else in the directory is touched. Raises InputError if the directory cannot be written.
    """
    try:
        for name in SERVICE_NAMES:
            directory = out / name
            for file in FILES:
                if name in texts:
                    write_atomic(directory / file, stamped(texts[name][file], 0).encode(), durable=False)
                else:
                    (directory / file).unlink(missing_ok=True)
            if name not in texts and directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()
        out.mkdir(parents=True, exist_ok=True)
    except StateError as error:
        raise InputError(f"--out: {error}") from error
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written ({error.strerror})") from error


# ---- what is printed -------------------------------------------------------------------------------------


def _document(done: Rendered, out: Path) -> dict[str, Any]:
    return {
        "valid": done.valid,
        "out": str(out),
        "services": [_service(d.service) for d in done.decisions.values() if isinstance(d, Provide)],
        "withdrawn": {n: d.reason for n, d in done.decisions.items() if isinstance(d, Withdraw)},
        "problems": [
            {"code": p.code, "message": p.message, "service": p.service, "account": p.account}
            for p in done.problems
        ],
        "files": [f"{name}/{file}" for name, files in done.texts.items() for file in files],
    }


def _service(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "user_type": service.user_type.label,
        "tunnel_name": service.link,
        "tunnel_src": str(service.tunnel_src),
        "tunnel_dst": str(service.tunnel_dst),
        "overlay": str(service.overlay),
        "local_overlay": str(service.local_overlay),
        "remote_overlay": str(service.remote_overlay),
        "doublezero_ip": None if service.dz_ip is None else str(service.dz_ip),
        "local_asn": service.local_asn,
        "remote_asn": service.remote_asn,
        "account": service.account,
        "device_pk": service.device,
        "prefixes": [str(prefix) for prefix in service.prefixes],
        "publish": [str(group) for group in service.publish],
        "subscribe": [str(group) for group in service.subscribe],
    }


def _text(done: Rendered, out: Path) -> str:
    lines = []
    for name, decision in done.decisions.items():
        if isinstance(decision, Provide):
            service = decision.service
            state = "rendered" if name in done.texts else "not rendered"
            lines.append(f"{name}: {service.user_type.label} on {service.link}, {state}")
            lines.append(
                f"  tunnel   {service.tunnel_src} -> {service.tunnel_dst}, overlay {service.overlay}"
            )
            lines.append(f"  dz_ip    {service.dz_ip or 'none'}")
            lines.append(f"  user     {service.account}")
        elif isinstance(decision, Withdraw):
            lines.append(f"{name}: not granted: {decision.reason}")
        else:
            lines.append(f"{name}: left out ({decision.problem.code})")
    lines += [f"problem {p.code}: {p.message}" for p in done.problems]
    return "\n".join([*lines, f"files in {out}"])
