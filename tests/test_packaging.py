"""What the package says about the program is true: versions, commands, keys, users, paths."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from dzagent import __version__, configfile, policy
from dzagent.api.listeners import GROUP
from dzagent.cli.main import main
from dzagent.config import Config, Paths
from dzagent.configfile import load_config
from dzagent.dzagentd import main as dzagentd
from dzagent.policy import Policy

ROOT = Path(__file__).resolve().parent.parent
PACKAGING, DEBIAN = ROOT / "packaging", ROOT / "debian"
UNITS = sorted((PACKAGING / "systemd").iterdir())
ALLOWED = {"solders/solders.abi3.so"}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)


def verbs(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command as it is typed; written apart from the script that makes the pages."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from verbs(found, f"{name} {child}")


VERBS = [*verbs(main, "dzagent"), *verbs(dzagentd, "dzagentd")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The man pages by name, without roff's escapes."""
    directory = tmp_path_factory.mktemp("man")
    done = run(sys.executable, PACKAGING / "manpages.py", directory)
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_text() for path in directory.iterdir()}
    return {name: re.sub(r"\\f[BRI]|\\&", "", text).replace("\\-", "-") for name, text in found.items()}


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the completions are, a file for each program."""
    directory = tmp_path_factory.mktemp("completion")
    done = run(sys.executable, PACKAGING / "completion.py", directory)
    assert done.returncode == 0, done.stderr
    return directory


def page_of(name: str, pages: dict[str, str]) -> str:
    if name.startswith("dzagentd"):
        return pages["dzagentd.8"]
    return pages["dzagent-ledger.1"] if name.startswith("dzagent ledger ") else pages["dzagent.1"]


@pytest.mark.parametrize(("name", "command"), VERBS, ids=[name for name, _ in VERBS])
def test_every_command_and_option_is_in_a_man_page(
    name: str, command: click.Command, pages: dict[str, str]
) -> None:
    text = page_of(name, pages)
    if " " in name:
        assert f".SS {name}\n" in text
        text = text.partition(f".SS {name}\n")[2].partition("\n.SS ")[0]
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert all(spelling in text for spelling in option.opts), option.opts
    for line in (command.help or "").split("\n\n")[0].splitlines():
        assert line.strip().replace("`", "") in text


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("dzagent-config.5", PACKAGING / "config.yaml"),
        ("dzagent-policy.5", ROOT / "policies" / "default.yaml"),
    ],
)
def test_every_key_is_in_a_man_page_as_its_file_explains_it(
    page: str, file: Path, pages: dict[str, str]
) -> None:
    shown = " ".join(pages[page].split())
    for line in file.read_text().partition("\n\n")[2].splitlines():
        text = " ".join(line.strip().removeprefix("#").split()).removeprefix("# ")
        assert text.removeprefix("# ") in shown, line


def test_the_configuration_file_has_every_key(tmp_path: Path) -> None:
    """Uncommented, the installed file is a whole configuration; as it is, it is the default one."""
    text = (PACKAGING / "config.yaml").read_text()
    keys = set(re.findall(r"^(?:# )?([a-z_]+):(?: |$)", text, re.MULTILINE))
    assert keys == set(configfile._TOP)
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert load_config(file, required=True) == Config(file=str(file))


def test_the_example_policy_and_configuration_can_be_used(tmp_path: Path) -> None:
    examples = PACKAGING / "examples"
    assert policy.load_policy(examples / "policy.yaml") != Policy()
    file = shutil.copy(examples / "config-testnet.yaml", tmp_path)
    assert load_config(Path(file), required=True).network == "testnet"


def test_completions_name_every_command_and_option(completions: Path) -> None:
    for name, command in VERBS:
        file = completions / name.split(maxsplit=1)[0]
        (line,) = (
            found for found in file.read_text().splitlines() if f'"{name}") COMPREPLY=($(compgen -W' in found
        )
        words = set(re.findall(r"[^ \"]+", line.partition("-W")[2]))
        children = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
        assert words >= {
            *children,
            *(opt for p in command.params if isinstance(p, click.Option) for opt in p.opts),
        }


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dzagent dis", "disable"),
        ("dzagent --socket /nowhere ledger user li", "list"),
        ("dzagent enable --wa", "--wait"),
        ("dzagent --config /etc/host", "/etc/hosts"),
        ("dzagentd --che", "--check"),
    ],
)
def test_completions_work_in_bash(completions: Path, typed: str, offered: str) -> None:
    words = typed.split()
    asked = f'COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _{words[0]}; echo "${{COMPREPLY[@]}}"'
    done = run("bash", "--norc", "-c", f'. "{completions / words[0]}"; {asked}')
    assert done.stderr == ""
    assert offered in done.stdout.split()


def test_the_package_has_the_version_of_the_program() -> None:
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"dzagent ({__version__}) ")


# ---- units -------------------------------------------------------------------------------------------------


def settings(unit: Path) -> dict[str, str]:
    """Return the last value of each key of a unit."""
    return dict(re.findall(r"^([A-Z]\w+)=(.*)$", unit.read_text(), re.MULTILINE))


SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
CAPABLE = {"dzagentd.service", "dzagent-rollback.service"}


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_no_service_has_more_than_it_needs(unit: Path) -> None:
    found = settings(unit)
    capabilities = "CAP_NET_ADMIN CAP_NET_RAW" if unit.name in CAPABLE else ""
    assert found["CapabilityBoundingSet"] == capabilities
    assert found.get("AmbientCapabilities", "") == capabilities
    assert found["User"] != "root"
    for key in (
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "MemoryDenyWriteExecute",
        "RestrictNamespaces",
    ):
        assert found[key] == "yes", key
    assert found["ProtectSystem"] == "strict"


def test_the_api_has_no_network_and_the_group_its_socket() -> None:
    service = settings(PACKAGING / "systemd" / "dzagent-api.service")
    assert (service["PrivateNetwork"], service["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    socket = settings(PACKAGING / "systemd" / "dzagent-api.socket")
    assert (socket["SocketMode"], socket["SocketGroup"]) == ("0660", GROUP)
    assert socket["ListenStream"] == str(Paths().socket)


def test_the_agent_and_its_engine_always_come_back() -> None:
    for name in ("dzagentd.service", "dzagent-bird.service"):
        found = settings(PACKAGING / "systemd" / name)
        assert (found["Restart"], found["StartLimitIntervalSec"]) == ("always", "0")
    assert settings(PACKAGING / "systemd" / "dzagentd.service")["Type"] == "notify"
    assert settings(PACKAGING / "systemd" / "dzagent-bird.service")["RestartSec"].endswith("ms")


def test_users_of_units_and_directories_are_made() -> None:
    lines = (PACKAGING / "etc" / "sysusers.conf").read_text().splitlines()
    users = {line.split()[1] for line in lines if line.startswith("u ")} | {"root"}
    needed = {settings(unit)[key] for unit in SERVICES for key in ("User", "Group")}
    rules = [line.split() for line in directories()]
    assert needed | {word for rule in rules for word in rule[3:5]} <= users


def directories() -> list[str]:
    lines = (PACKAGING / "etc" / "tmpfiles.conf").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_directory_of_the_program_is_made_for_whom_it_is() -> None:
    made = {line.split()[1]: line.split()[3] for line in directories() if line.startswith("d ")}
    paths = Paths()
    assert made[str(paths.agent)] == "dzagent"
    assert made[str(paths.engine.parent)] == "dzagent-bird"
    assert made[str(paths.intent.parent)] == "dzagent-api"
    assert made[str(paths.sessions.parent)] == made[str(paths.state)] == "dzagent"
    for unit in SERVICES:
        writable = [path.removeprefix("-") for path in settings(unit)["ReadWritePaths"].split()]
        assert set(writable) <= made.keys(), unit.name


def test_programs_of_the_units_are_in_the_package() -> None:
    installed = {
        f"/{where}/{Path(what).name}"
        for what, where in (line.split() for line in (DEBIAN / "dzagent.install").read_text().splitlines())
    }
    for unit in SERVICES:
        assert settings(unit)["ExecStart"].split()[0] in installed


def test_names_of_numbers_are_those_of_the_policy() -> None:
    default = Policy()
    protocols = (PACKAGING / "etc" / "rt_protos.conf").read_text()
    tables = (PACKAGING / "etc" / "rt_tables.conf").read_text()
    assert f"\n{default.protocol}\tdzagent\n" in protocols
    assert f"\n{default.edge.table_to}\tdzagent-to\n" in tables
    assert f"\n{default.edge.table_from}\tdzagent-from\n" in tables


# ---- what may be inside ------------------------------------------------------------------------------------


def a_tree(tmp_path: Path, machine: int = 62) -> Path:
    tree = tmp_path / "tree"
    (tree / "solders").mkdir(parents=True)
    (tree / "solders" / "solders.abi3.so").write_bytes(b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little"))
    return tree


def test_a_tree_with_the_one_module_is_good(tmp_path: Path) -> None:
    done = run(sys.executable, PACKAGING / "check-tree", a_tree(tmp_path, 183), "aarch64")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "name", ["markupsafe/_speedups.cpython-311-x86_64-linux-gnu.so", "x/y.so", "x/y.pyc", "bin/tool"]
)
def test_anything_else_that_is_compiled_fails_the_build(tmp_path: Path, name: str) -> None:
    tree = a_tree(tmp_path, 183)
    path = tree / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x7fELF" if name == "bin/tool" else b"")
    done = run(sys.executable, PACKAGING / "check-tree", tree, "aarch64")
    assert done.returncode == 1
    assert name in done.stderr


def test_the_module_of_another_machine_fails_the_build(tmp_path: Path) -> None:
    done = run(sys.executable, PACKAGING / "check-tree", a_tree(tmp_path), "aarch64")
    assert done.returncode == 1
    assert "not for aarch64" in done.stderr


def test_yaml_of_the_package_is_yaml() -> None:
    for file in (PACKAGING / "config.yaml", *(PACKAGING / "examples").glob("*.yaml")):
        assert isinstance(yaml.safe_load(file.read_text()), dict)
