"""YAML as plain data: one way to write each value, every error with file and line, nothing that can grow."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent import yamlfile
from dzagent.errors import ConfigError
from dzagent.yamlfile import MAX_BYTES, MAX_DEPTH, Item, Section

KEYS = ("name", "number", "inner")


def item(text: str) -> Item:
    """Return the value of `name:` in a document."""
    section = yamlfile.section(yamlfile.parse(f"name: {text}".encode(), "f.yaml"), KEYS, "f.yaml")
    return section.entries["name"]


def load(path: Path, text: str | bytes) -> Item | None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return yamlfile.load(path)


def refused(convert: Callable[[Item], Any], text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        convert(item(text))
    assert str(caught.value).startswith("f.yaml:1: name")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- one form of each value ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("abc", "abc"), ("'5'", "5"), ('"true"', "true"), ("é", "é")])
def test_text(text: str, value: str) -> None:
    assert yamlfile.text(item(text)) == value


@pytest.mark.parametrize(
    "text",
    ["5", "true", "yes", "null", "~", "", "''", "1.5", "2024-01-01", "[a]", "{a: b}", '"a\\nb"', '"\\e[2J"'],
)
def test_what_looks_like_something_else_is_no_text(text: str) -> None:
    assert "expected text" in refused(yamlfile.text, text)


def test_truth_has_one_spelling() -> None:
    assert yamlfile.truth(item("true")) is True
    assert yamlfile.truth(item("false")) is False


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "True", "FALSE", "'true'", "1", "0", "", "y", "[true]"]
)
def test_no_other_spelling_of_truth(text: str) -> None:
    assert "expected true or false" in refused(yamlfile.truth, text)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("100", 100)])
def test_whole_numbers(text: str, value: int) -> None:
    assert yamlfile.whole(0, 100)(item(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "101",
        "010",
        "0o10",
        "0x10",
        "0b1",
        "1_0",
        "1e1",
        "1.0",
        "+1",
        "'7'",
        "1:30",
        ".inf",
        "",
        "\u0661",
    ],
)
def test_no_other_whole_number(text: str) -> None:
    assert "expected a whole number from 0 to 100" in refused(yamlfile.whole(0, 100), text)


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("10", 10.0), ("0", 0.0), ("2.000000001", 2.000000001)]
)
def test_numbers(text: str, value: float) -> None:
    assert yamlfile.number(0, 10, "seconds")(item(text)) == value


@pytest.mark.parametrize(
    "text",
    ["-0.5", "10.1", "010", "00.5", ".5", "5.", "1e0", "1_0", ".nan", ".inf", "'5'", "1:30", "5 s", ""],
)
def test_no_other_number(text: str) -> None:
    assert "expected a number of seconds from 0 to 10" in refused(yamlfile.number(0, 10, "seconds"), text)


def test_one_of_a_few_words_and_the_nearest() -> None:
    convert = yamlfile.one_of("auto", "manual", "observe")
    assert convert(item("manual")) == "manual"
    assert "did you mean auto?" in refused(convert, "atuo")
    assert "did you mean" not in refused(convert, "'" + "z" * 200 + "'")
    for text in ("AUTO", "[auto]", "|\n  auto\n  x", ""):
        refused(convert, text)


def test_addresses_have_four_decimal_parts() -> None:
    assert yamlfile.ipv4(item("198.51.100.7")) == IPv4Address("198.51.100.7")
    bad = [
        "198.51.100",
        "198.51.100.07",
        "0xc6.51.100.7",
        "3325256711",
        "198.51.100.7/32",
        "::1",
        "a",
        "",
        "1.2.3.٤",
    ]
    for text in bad:
        assert "an IPv4 address such as" in refused(yamlfile.ipv4, text)


def test_networks_have_a_length_and_no_host_bits() -> None:
    assert yamlfile.network(item("169.254.0.0/16")) == IPv4Network("169.254.0.0/16")
    bad = [
        "169.254.0.0",
        "169.254.0.1/16",
        "169.254.0.0/33",
        "169.254.0.0/-1",
        "169.254.0.0/016",
        "fe80::/10",
        "/16",
    ]
    # a netmask, and a wildcard mask, which would read as the same network
    for text in [*bad, "169.254.0.0/255.255.0.0", "169.254.0.0/0.0.255.255"]:
        assert "an IPv4 network such as" in refused(yamlfile.network, text)


def test_paths_are_absolute() -> None:
    assert yamlfile.absolute_path(item("/etc/dzagent/")) == Path("/etc/dzagent")
    for text in ("etc", "/etc/../x", "//", "//etc", '"/a\\0b"', "~/x"):
        assert "expected" in refused(yamlfile.absolute_path, text)


def test_lists_are_short_and_hold_nothing_twice() -> None:
    convert = yamlfile.list_of(yamlfile.whole(1, 9), "numbers", 3)
    assert convert(item("[3, 1, 2]")) == (3, 1, 2)
    assert convert(item("[]")) == ()
    assert "expected a list of numbers, found '5'" in refused(convert, "5")
    assert "at most 3 numbers, found 4" in refused(convert, "[1, 2, 3, 4]")
    assert "name[2]: this value is in the list twice" in refused(convert, "[1, 2, 1]")
    assert "name[1]: expected a whole number" in refused(convert, "[1, x]")


def test_null_and_nothing_are_none_where_a_value_may_be_missing() -> None:
    convert = yamlfile.optional(yamlfile.whole(1, 9))
    assert [convert(item(text)) for text in ("null", "~", "", "Null", "4")] == [None, None, None, None, 4]
    for text in ("'null'", "none", "[]"):
        refused(convert, text)


# ---- sections --------------------------------------------------------------------------------------------------


def test_a_section_gives_values_or_defaults() -> None:
    top = yamlfile.section(yamlfile.parse(b"name: a\ninner: {number: 3}\n", "f.yaml"), KEYS, "f.yaml")
    assert top.read("name", yamlfile.text, "b") == "a"
    assert top.read("number", yamlfile.whole(1, 9), 7) == 7
    assert yamlfile.subsection(top, "inner", KEYS).read("number", yamlfile.whole(1, 9), 7) == 3
    assert yamlfile.subsection(top, "number", KEYS) == Section("f.yaml")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1", 1, "unknown key 'a'"),
        ("nmae: 1", 1, "did you mean name?"),
        ("inner:\n  inner:\n    x: 1", 3, "unknown key 'x' in inner.inner"),
        ("name: 1\n\nname: 2", 3, "name: this key is set twice (first on line 1)"),
        ("name: 1\n'name': 2", 2, "set twice"),
        ("inner:\n  name: 1\n  name: 2", 3, "inner.name: this key is set twice"),
        ("? name\n: 1\n? name\n: 2", 3, "set twice"),
        ("- name", 1, "expected a mapping of keys to values, found a list"),
        ("inner:", 1, "inner: expected a mapping of keys to values, found nothing"),
        ("inner: ''", 1, "inner: expected a mapping of keys to values, found ''"),
        ("null: 1", 1, "unknown key 'null'"),
        ("'': 1", 1, "unknown key ''"),
        ("1: 1", 1, "unknown key '1'"),
        ("{a: 1}: 1", 1, "expected a key, found a mapping"),
        ("<<: {name: 1}", 1, "unknown key '<<'"),
        ("'" + "x" * 300 + "': 1", 1, "..."),
    ],
)
def test_keys_are_checked(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        nested(text)
    assert said in str(caught.value)
    assert caught.value.line == line
    assert len(str(caught.value)) < 300


def nested(text: str) -> None:
    """Read a document with sections in sections."""
    top = yamlfile.section(yamlfile.parse(text.encode(), "f.yaml"), KEYS, "f.yaml")
    inner = yamlfile.subsection(top, "inner", KEYS)
    yamlfile.subsection(inner, "inner", KEYS)


# ---- what is no plain data ---------------------------------------------------------------------------------------

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (BOMB, 1, "anchors and aliases"),
        ("a: 1\nb: *a", 2, "anchors and aliases"),
        ("&x a: 1", 1, "anchors and aliases"),
        ("a: ! x", 1, "tags"),
        ("a: !!int '5'", 1, "tags"),
        ("a: !<tag:yaml.org,2002:str> x", 1, "tags"),
        ("!!map {a: 1}", 1, "tags"),
        ("a: 1\n...\n---\nb: 1", 3, "second"),
        ("---\na: 1\n---\n", 3, "second"),
        ("%YAML 2.0\n---\na: 1", 1, "not valid YAML"),
        ("a: " + "[" * (MAX_DEPTH + 1), 1, "nested more than"),
        ("- " * (MAX_DEPTH + 1) + "x", 1, "nested more than"),
        ("a: [1, 2", 1, "not valid YAML"),
        ("a:\n  b: 1\n c: 2", 3, "not valid YAML"),
        ("a: 'x", 1, "not valid YAML"),
        ("a: b\n\tc: d", 2, "not valid YAML"),
        ("a: @x", 1, "not valid YAML"),
    ],
)
def test_only_plain_data_is_read(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yamlfile.parse(text.encode(), "f.yaml")
    assert said in str(caught.value)
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a: \xff", 1),
        (b"a: 1\nb: 2\nc: \xc3(", 3),
        ("a: 1".encode("utf-16"), 1),
        ("# caf\u00e9\na: 1".encode("latin-1"), 1),
        (b"\xed\xa0\x80", 1),
    ],
)
def test_what_is_not_utf_8_is_refused(data: bytes, line: int) -> None:
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        yamlfile.parse(data, "f.yaml")
    assert caught.value.line == line


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# only this", b"---\n...\n", b"\xef\xbb\xbf"])
def test_a_file_may_say_nothing(data: bytes) -> None:
    found = yamlfile.parse(data, "f.yaml")
    assert found is None or found.plain("nothing") == ""


def test_line_ends_of_other_systems_are_read() -> None:
    assert yamlfile.section(yamlfile.parse(b"name: a\r\nnumber: 1\r\n", "f"), KEYS, "f").entries.keys() == {
        "name",
        "number",
    }


@given(
    st.binary(max_size=300)
    | st.text(st.sampled_from("ab:-{}[]\"'|>&*!%@#? \n0"), max_size=80).map(str.encode)
)
def test_any_bytes_are_an_item_or_an_error_of_one_line(data: bytes) -> None:
    try:
        yamlfile.parse(data, "f.yaml")
    except ConfigError as error:
        check_one_line(error)


def check_one_line(error: ConfigError) -> None:
    assert str(error).startswith("f.yaml:")
    assert len(str(error).splitlines()) == 1


# ---- files -----------------------------------------------------------------------------------------------------


def test_the_largest_file_is_read_and_no_larger_one(tmp_path: Path) -> None:
    line = "name: a #"
    assert load(tmp_path / "f", line + "x" * (MAX_BYTES - len(line))) is not None
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "f", line + "x" * (MAX_BYTES - len(line) + 1))


def test_no_more_of_an_endless_file_is_read_than_that() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        yamlfile.load(Path("/dev/zero"))


def test_a_file_of_others_says_who_may_read_it() -> None:
    assert "use sudo or join its group" in yamlfile._reason(PermissionError(13, "Permission denied"))
    assert yamlfile._reason(ValueError("embedded null byte")) == "embedded null byte"


def test_a_symlink_is_followed_and_a_dangling_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("name: a", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    assert yamlfile.load(tmp_path / "link") is not None
    (tmp_path / "real").unlink()
    with pytest.raises(ConfigError, match="No such file"):
        yamlfile.load(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="loop"):
        yamlfile.load(tmp_path / "loop")


def test_a_folder_a_pipe_or_a_device_is_refused_and_leaves_nothing_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null"), tmp_path / "none", tmp_path / "pipe" / "x"):
        with pytest.raises(ConfigError, match="cannot be read"):
            yamlfile.load(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
