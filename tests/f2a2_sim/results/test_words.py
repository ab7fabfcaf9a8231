"""Numbers read well and verdicts say no more than the numbers do."""

from __future__ import annotations

import math
from typing import Any

import pytest

from f2a2_sim.results.summary import Summary
from f2a2_sim.results.words import (
    bytes_text,
    differing_settings,
    duration,
    energy_text,
    flatten,
    number,
    percent,
    trend,
    verdict,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-1.4236, "-1.42"),
        (0.0123456, "0.0123"),
        (12.345, "12.3"),
        (14.0, "14"),
        (-2_000_000.0, "-2,000,000"),
        (999.6, "1,000"),
        (123456.0, "123,456"),
        (2.5e10, "2.50e+10"),
        (0.0000123, "1.23e-05"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_units() -> None:
    assert [duration(s) for s in (0.0, 0.0114, 1.5, 119, 150, 7300, 200_000, None)] == [
        *("0 s", "11.4 ms", "1.50 s", "119 s", "2.50 min", "2.03 h", "2.31 d", "-")
    ]
    assert [bytes_text(b) for b in (12, 1_500, 2_000_000, 180e9)] == ["12 B", "1.50 kB", "2 MB", "180 GB"]
    assert [energy_text(j) for j in (5.25, 117_000, math.nan)] == ["5.25 J", "117 kJ", "not measured"]
    assert (percent(1, 3), percent(0, 0)) == ("33.33 %", "-")


def test_trend_takes_the_first_and_last_fifth() -> None:
    found = trend([float(v) for v in range(20)])
    assert found is not None
    assert (found.first, found.last, found.window) == (1.5, 17.5, 4)
    assert found.error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert trend([None, None]) is None
    single = trend([1.0, None, 3.0])
    assert single is not None and (single.window, math.isnan(single.error)) == (1, True)
    assert not single.is_above(0.0)


def changed(summary: Summary, **values: Any) -> Summary:
    return Summary.model_validate({**summary.model_dump(), **values})


def test_verdicts(make_run: Any) -> None:
    summary = make_run(episodes=20).read_summary()
    said = " ".join(verdict(summary))
    assert "above the random policy's -1.42" in said
    assert said.endswith("It hits and kills clearly more than the random policy: it fights.")
    peaceful = changed(summary, hits=[0.0] * 20, kills=[0.0] * 20)
    assert verdict(peaceful)[-1].startswith("It earns more without hitting clearly more")
    lucky = changed(summary, kills=[0.0] * 19 + [4.0])
    assert "does not clearly kill more" in verdict(lucky)[-1]
    worse = changed(summary, return_mean_per_agent=[-3.0] * 20, hits=[0.0] * 20, kills=[0.0] * 20)
    assert "below the random policy's" in " ".join(verdict(worse))
    assert verdict(worse)[-1] == "It does not clearly fight better than the random policy."
    close = changed(summary, return_mean_per_agent=[-1.0, -1.8] * 10)
    assert "within two standard errors" in " ".join(verdict(close))
    short = changed(summary, return_mean_per_agent=[-1.0], hits=[90.0], kills=[5.0])
    assert "one episode proves little" in " ".join(verdict(short))
    assert "fights" not in " ".join(verdict(short))
    none = changed(summary, return_mean_per_agent=[])
    assert verdict(none) == ["No episode has ended yet, so there is nothing to say about learning."]
    assert len(verdict(changed(summary, baseline=None))) == 1


def test_settings() -> None:
    first = {"a": {"b": None, "c": [1, True]}, "fleet": [{"p": "x"}, {"p": "y"}], "empty": {}}
    assert flatten(first) == [
        ("a.b", "null"),
        ("a.c", "[1, true]"),
        ("fleet.0.p", "x"),
        ("fleet.1.p", "y"),
        ("empty", "{}"),
    ]
    second = {"a": {"b": 0.5, "c": [1, True]}, "fleet": [{"p": "x"}], "empty": {}}
    assert differing_settings([first, second]) == [("a.b", "null", "0.5"), ("fleet.1.p", "y", "-")]
