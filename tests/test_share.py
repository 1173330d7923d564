"""Where templates and policies are found, in a checkout and wherever they may be installed."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from dzagent.errors import ConfigError
from dzagent.policy import find_policy, load_policy
from dzagent.share import PREFIXES, Kind, find, share_dirs

ROOT = Path(__file__).resolve().parent.parent


def test_a_checkout_reads_its_own_files_before_any_installation() -> None:
    dirs = share_dirs()
    assert dirs[0] == ROOT
    assert dirs[1] == Path(sys.prefix) / "share" / "dzagent"
    assert dirs[-1] == Path("/usr/share/dzagent")
    assert Path(sysconfig.get_path("data")) / "share" / "dzagent" in dirs
    assert len(dirs) == len(set(dirs))


def test_debian_s_own_pip_installs_under_usr_local() -> None:
    assert sysconfig.get_path("data") in PREFIXES
    shared = [Path(prefix) / "share" / "dzagent" for prefix in ("/usr", "/usr/local")]
    assert share_dirs(("/usr", "/usr/local", "/usr")) == (ROOT, *shared)


@pytest.mark.parametrize("kind", ["templates", "policies"])
def test_this_checkout_has_both(kind: Kind) -> None:
    assert find(kind) == ROOT / kind


def test_the_first_place_that_has_the_folder_is_taken(tmp_path: Path) -> None:
    dirs = tuple(tmp_path / name for name in ("none", "file", "first", "second"))
    for base in dirs[2:]:
        (base / "policies").mkdir(parents=True)
    dirs[1].mkdir()
    (dirs[1] / "policies").touch()
    assert find("policies", None, dirs) == tmp_path / "first" / "policies"


def test_a_configured_folder_is_taken_as_it_is_and_never_fallen_back_from(tmp_path: Path) -> None:
    (tmp_path / "installed" / "templates").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    assert find("templates", tmp_path / "mine", (tmp_path / "installed",)) == tmp_path / "mine"
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"the configured templates directory .* does not exist"):
            find("templates", wrong, (tmp_path / "installed",))


def test_without_an_installation_every_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find("policies", None, (tmp_path / "a", tmp_path / "b"))
    for place in ("a/policies", "b/policies", "reinstall"):
        assert place in str(caught.value)


# ---- policies among them ---------------------------------------------------------------------------------------


def test_a_site_s_policy_of_the_same_name_comes_first(tmp_path: Path) -> None:
    assert find_policy("default", (tmp_path, find("policies"))) == ROOT / "policies" / "default.yaml"
    (tmp_path / "default.yaml").write_text("absent_polls: 3\n", encoding="utf-8")
    found = find_policy("default", (tmp_path, find("policies")))
    assert load_policy(found).absent_polls == 3


def test_a_site_s_policy_that_cannot_be_read_is_an_error_and_not_another_policy(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").symlink_to("gone.yaml")
    (tmp_path / "other.yaml").mkdir()
    for name in ("default", "other"):
        found = find_policy(name, (tmp_path, find("policies")))
        assert found == tmp_path / f"{name}.yaml"
        with pytest.raises(ConfigError, match="cannot be read"):
            load_policy(found)


def test_an_unknown_policy_is_answered_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"policy 'stric' was not found .*; there are: default, strict$"):
        find_policy("stric", (tmp_path / "none", tmp_path, find("policies")))
    with pytest.raises(ConfigError, match=r"was not found in no directory; there are: none$"):
        find_policy("default", ())
