"""A wheel that is installed alone finds its templates and policies, and renders."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.service_fakes import CLIENT, CONFIG, DEVICE, IBRL, USER, config, device

ROOT = Path(__file__).resolve().parent.parent


def command(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, and install it in a new environment; returns its bin/."""
    tmp = tmp_path_factory.mktemp("wheel")
    sources = tmp / "sources"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, sources, ignore=ignored, symlinks=True)
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    command(sys.executable, *build, "--wheel-dir", tmp, ".", cwd=sources)
    (wheel,) = tmp.glob("dzagent-*.whl")
    environment = tmp / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    command(sys.executable, *install, wheel, cwd=tmp)
    # The dependencies are those of this environment; a line in a .pth file does not run its editable installs.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(sources)
    return environment / "bin"


def test_it_renders_with_its_own_data_files(installed: Path, tmp_path: Path) -> None:
    where = command(
        installed / "python",
        "-c",
        "import dzagent.share as s; print(s.__file__, s.find('templates'))",
        cwd=tmp_path,
    )
    assert str(ROOT) not in where
    accounts = {CONFIG: config(), DEVICE: device(), USER: IBRL.data()}
    dump = tmp_path / "dump.json"
    dump.write_text(
        json.dumps([{"pubkey": k, "data": base64.b64encode(v).decode()} for k, v in accounts.items()])
    )
    words = ("render", "--accounts", dump, "--client-ip", str(CLIENT), "--out", tmp_path / "out", "--json")
    document = json.loads(command(installed / "dzagent", *words, cwd=tmp_path))
    assert document["valid"] is True
    assert "type gre" in (tmp_path / "out" / "unicast" / "tunnel.ip").read_text()


def test_both_commands_are_there(installed: Path, tmp_path: Path) -> None:
    for name in ("dzagent", "dzagentd"):
        assert "Usage:" in command(installed / name, "--help", cwd=tmp_path)
