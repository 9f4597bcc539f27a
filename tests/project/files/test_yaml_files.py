from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbcli.errors import ConfigError
from dbcli.project.files.yaml_files import MAX_BYTES, parse_value, read_yaml, write_yaml


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-6", 5e-6),
        ("1E3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("-3", -3),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ("1_000", "1_000"),
        ("=", "="),
        ("'5e-6'", "5e-6"),
        ("[to_q, to_k]", ["to_q", "to_k"]),
    ],
)
def test_values_are_read_as_people_mean_them(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"key: {text}\n")["key"]
    assert found == value and type(found) is type(value)
    assert parse_value(text, "--set key") == value


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: the key 'b' is given twice"),
        ("a: 1\n1: 2\n", "line 2: the key 1 is not text"),
        ("true: 2\n", "line 1: the key True is not text"),
        ("a: &x 1\nb: *x\n", "line 2: references"),
        ("a: [1, 2\nb: 3\n", "line 2"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: could not determine a constructor"),
        ("a: !!timestamp 2026-99-99\n", "month"),
        ("- a\n- b\n", "is a list"),
        ("hello\n", "is a text"),
        ("a: 1\n--- \nb: 2\n", "line 2"),
        ("a: \x01\n", "characters are not allowed"),
        ("a: '\\u001b'\n  b", "line"),
    ],
)
def test_faulty_files_are_refused_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "a.yaml") in caught.value.message
    assert complaint in caught.value.message
    assert caught.value.exit_code == 2


def test_deep_nesting_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nest"):
        read(tmp_path, "a: " + "[" * 5000)
    with pytest.raises(ConfigError, match="larger than"):
        read(tmp_path, "#" * (MAX_BYTES + 1))


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_an_empty_file_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    assert read(tmp_path, "") == {}
    assert read(tmp_path, "\ufeffa: 1\n") == {"a": 1}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=12)
        | st.sampled_from(["no", "5e-6", "null", "1"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=30)
        | st.sampled_from(["no", "5e-6", "1e5", "~", "0o7", "010", "true", "2026-01-31", "a: b", "# c", "=", "12:30"]),
        max_size=5,
    )
)
def test_what_is_written_is_read_back_the_same(tmp_path: Path, obj: dict[str, Any]) -> None:
    path = tmp_path / "a.yaml"
    write_yaml(path, obj)
    found = read_yaml(path)
    assert found == obj
    assert [type(value) for value in found.values()] == [type(value) for value in obj.values()]


def test_other_programs_read_our_texts_as_texts(tmp_path: Path) -> None:
    obj = {"a": "no", "b": "5e-6", "c": "on", "d": "2026-01-31", "e": "12:30:45", "犬": "ü"}
    write_yaml(tmp_path / "a.yaml", obj)
    assert yaml.safe_load((tmp_path / "a.yaml").read_text("utf-8")) == obj


def test_the_same_list_twice_is_written_twice(tmp_path: Path) -> None:
    shared = ["to_q"]
    write_yaml(tmp_path / "a.yaml", {"a": shared, "b": shared})
    assert read_yaml(tmp_path / "a.yaml") == {"a": ["to_q"], "b": ["to_q"]}
