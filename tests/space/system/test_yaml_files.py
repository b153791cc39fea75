"""YAML that people write, and YAML that paredown writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

from paredown.space.errors import PlanError, StudyError
from paredown.space.system.yaml_files import LIMIT_BYTES, read_yaml, yaml_text


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner
    items: list[Inner] = []
    table: dict[str, Inner] = {}


class Anything(BaseModel):
    value: Any


AMBIGUOUS = ["off", "no", "y", "2:4", "07:30", "12e34", "1e5", "0899", "0o17", "1_0:2", "2024-01-31", "<<", "=", "-.5"]
AMBIGUOUS += ["1_000", "-1_0", "1_0.5"]
"""Texts that YAML 1.1, YAML 1.2 or a reader of one of them takes for no string."""

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85"))  # PyYAML writes U+0085 as a space
STRINGS = st.sampled_from(AMBIGUOUS) | TEXT | st.from_regex(r"[0-9]{1,4}e?[0-9]{1,4}", fullmatch=True)
DATA = st.dictionaries(
    STRINGS,
    st.recursive(
        STRINGS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
        max_leaves=8,
    ),
)


def read(folder: Path, text: str) -> Outer:
    path = folder / "file.yaml"
    path.write_text(text)
    return read_yaml(path, Outer, StudyError)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(StudyError, match="file.yaml") as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


def test_a_good_file_is_its_value(tmp_path: Path) -> None:
    """Nested values included; names of values that nothing refers to change nothing."""
    value = read(tmp_path, "name: &a a\ninner: &a {size: 1}\nitems:\n- size: 2\ntable:\n  x: {size: 3}\n")
    assert value == Outer(name="a", inner=Inner(size=1), items=[Inner(size=2)], table={"x": Inner(size=3)})


def test_all_faults_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    """Unknown keys, wrong types, duplicates, values out of range and missing keys, in one go."""
    text = "nmae: a\ninner:\n  size: -1\n  colour: red\nitems:\n- size: 2\n- size: two\n"
    text += "table:\n  x: {size: 1}\n  x: {size: 2}\n"
    found = faults(tmp_path, text)
    assert sorted(found) == sorted(
        [
            "file.yaml:10: duplicate key 'x'; remove one",
            "file.yaml:1: name: Field required",
            "file.yaml:1: nmae: unknown key; remove it or correct its spelling",
            "file.yaml:3: inner.size: Input should be greater than or equal to 0",
            "file.yaml:4: inner.colour: unknown key; remove it or correct its spelling",
            "file.yaml:7: items.1.size: Input should be a valid integer, unable to parse string as an integer",
        ]
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: &a x\ninner: {size: 1}\nitems: [*a]\n", r"file.yaml:3: aliases \(\*name\) are not supported"),
        ("a: &a [x]\nb: &b [*a, *a]\n", "file.yaml:2: aliases"),
        ("name: [\n", "file.yaml:2: invalid YAML"),
        (
            "name: !!python/object/apply:os.system [ls]\n",
            r"file.yaml:1: tags \(!name\) are not supported",
        ),
        ("name: a\ninner: {size: !!int ''}\n", "file.yaml:2: tags"),
        ("name: a\x00b\n", "file.yaml.*invalid YAML"),
        ("? [a, b]\n: 1\n", "file.yaml:1: invalid YAML: found unhashable key"),
        ("? {a: b}\n: 1\n", "file.yaml:1: invalid YAML: found unhashable key"),
        (f"name: {'9' * 5000}\n", "file.yaml: .*4300.*; write such a value in quotes"),
        ("", "file.yaml is empty"),
        ("# nothing\n", "file.yaml is empty"),
        ("- 1\n", "file.yaml:1: file: Input should be a valid dictionary"),
        ("[" * 5000 + "\n", "file.yaml: nested too deeply"),
        ("a: 1\n---\nb: 2\n", "file.yaml:2: invalid YAML: but found another document"),
    ],
    ids=lambda text: text[:12],
)
def test_what_cannot_be_read_is_one_line(text: str, fault: str, tmp_path: Path) -> None:
    """Bombs, code, binary, odd keys, nothing: refused without a traceback."""
    with pytest.raises(StudyError, match=fault) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    """A sparse file shows that nothing of it is read."""
    path = tmp_path / "file.yaml"
    with pytest.raises(PlanError, match="file.yaml cannot be read .*give a YAML file"):
        read_yaml(path, Outer, PlanError)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="file.yaml cannot be read"):
        read_yaml(path, Outer, PlanError)
    with pytest.raises(PlanError, match="cannot be read"):
        read_yaml(tmp_path, Outer, PlanError)
    with path.open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(PlanError, match="larger than 8 MiB, the limit for such a YAML file"):
        read_yaml(path, Outer, PlanError)


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, text) for text in AMBIGUOUS]
    + [
        ("12", 12),
        ("-1000", -1000),
        ("1_000", "1_000"),
        ("0", 0),
        ("-0.5", -0.5),
        ("1.5e-05", 1.5e-5),
        (".inf", float("inf")),
    ]
    + [("true", True), ("False", False), ("~", None), ("null", None), ("", None), ("'12'", "12"), ("[]", [])],
)
def test_a_word_without_quotes_is_a_string(text: str, value: object, tmp_path: Path) -> None:
    """Unless both versions of YAML take it for a number, a boolean or nothing."""
    path = tmp_path / "file.yaml"
    path.write_text(f"value: {text}\n")
    found = read_yaml(path, Anything, StudyError).value
    assert (type(found), found) == (type(value), value)


@example(data={text: text for text in AMBIGUOUS} | {"small": 1e-5, "large": [1e16]}, flow=True)
@given(data=DATA, flow=st.booleans())
def test_what_is_written_is_read_alike_by_every_reader(
    data: dict[str, Any], flow: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By ours, by one of YAML 1.1 and by one of YAML 1.2. The form is PyYAML's own."""
    text = yaml_text({"value": data}, flow_leaves=flow)
    path = tmp_path_factory.getbasetemp() / "file.yaml"
    path.write_text(text, newline="")
    for found in (
        {"value": read_yaml(path, Anything, StudyError).value},
        yaml.safe_load(text),
        YAML(typ="safe", pure=True).load(text),
    ):
        assert repr(found) == repr({"value": data})
