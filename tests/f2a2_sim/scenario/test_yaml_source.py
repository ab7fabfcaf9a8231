"""YAML with line numbers: which scalars mean what, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.scenario.problems import ScenarioProblems
from f2a2_sim.scenario.yaml_source import dump_yaml, parse_value, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("-3", -3),
        ("500_000", 500_000),
        ("5e5", 500_000),
        ("1e-4", 1e-4),
        ("10.5", 10.5),
        (".5", 0.5),
        ("1.e3", 1000.0),
        (".inf", math.inf),
        ("true", True),
        ("False", False),
        ("off", "off"),
        ("yes", "yes"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0.5 s", "0.5 s"),
        ("'64'", "64"),
        ("[0, 1.5, x]", [0, 1.5, "x"]),
        ("{kind: ring, on: 1}", {"kind": "ring", "on": 1}),
        ("{1080: 2}", {"1080": 2}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_every_key_and_item_knows_its_line() -> None:
    source = parse_yaml("a: 1\nb:\n  c:\n    - x\n    - {d: 2}\n", "file.yaml")
    assert source.lines[("a",)] == 1
    assert source.lines[("b", "c")] == 3
    assert source.lines[("b", "c", 1, "d")] == 5
    assert source.place(("b", "c", 1, "e")) == "file.yaml:5"
    assert source.place(("a",)) == "file.yaml:1"


def test_a_comment_moves_the_line() -> None:
    assert parse_yaml("# one\n\na: 1", "f").lines[("a",)] == 3


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "given twice, first on line 1"),
        ("a: {x: 1,\n x: 2}\n", 2, "given twice"),
        ("a: .nan\n", 1, "not a number"),
        ("a: !!binary aGk=\n", 1, "not allowed"),
        ("a: !!python/object:os.system {}\nb: {? [x] : 1}\n", 2, "a key must be a word"),
        ("a: &x [1, *x]\n", 1, "contains itself"),
    ],
)
def test_refused_with_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ScenarioProblems, match=words) as caught:
        parse_yaml(text, "f.yaml")
    assert caught.value.problems[0].place == f"f.yaml:{line}"
    assert caught.value.exit_code == 2


def test_two_documents_are_refused() -> None:
    with pytest.raises(ScenarioProblems, match="but found another document"):
        parse_yaml("a: 1\n---\nb: 2\n", "f")


def test_an_alias_repeats_its_value() -> None:
    assert parse_yaml("a: &x {k: 1}\nb: *x\n", "f").data == {"a": {"k": 1}, "b": {"k": 1}}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_subnormal=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(data=plain)
def test_what_is_written_is_read_back_equal(data: Any) -> None:
    again = parse_yaml(dump_yaml(data), "f").data
    assert again == data
    assert repr(again).replace("-0.0", "0.0") == repr(data).replace("-0.0", "0.0")
