"""What is recorded is what is written, and a recorder that was saved and loaded goes on bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.recorder import AgeHistogram, Recorder
from f2a2_sim.results.tables import EPISODES, METRICS, TIMELINE, compare_metrics

_OWN = {"row", "staleness_p50_s", "staleness_p95_s"}


def values(rng: np.random.Generator) -> dict[str, Any]:
    draw = {
        "int": lambda: int(rng.integers(1000)),
        "float": rng.normal,
        "bool": lambda: bool(rng.integers(2)),
    }
    return {c.name: draw[c.kind]() for c in METRICS.columns if c.name not in _OWN}


def play(recorder: Recorder, rng: np.random.Generator, rows: int) -> None:
    for number in range(rows):
        recorder.ages(rng.exponential(0.1, size=50))
        if number % 2:
            recorder.row(**values(rng))
        agents = rng.permutation(8)
        recorder.events(
            agents, "receive", rng.normal(size=8), rng.normal(size=8), peers=agents[::-1], size_bytes=7
        )
        recorder.event(int(agents[0]), "act", float(number), number + 0.5)
    recorder.episode(**{c.name: float(number) if c.kind == "float" else number for c in EPISODES.columns})


def test_saved_and_loaded_goes_on_bit_for_bit(tmp_path: Path) -> None:
    straight, first = Recorder(4, 100), Recorder(4, 100)
    rng = np.random.default_rng(0)
    play(straight, rng, 101)
    middle = rng.bit_generator.state
    play(straight, rng, 100)
    play(first, np.random.default_rng(0), 101)
    second = Recorder(4, 100)
    second.load_state(first.state())
    assert second.last_row == first.last_row
    rng.bit_generator.state = middle
    play(second, rng, 100)
    a, b = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    straight.write(a)
    second.write(b)
    for schema in (METRICS, EPISODES, TIMELINE):
        assert compare_metrics(a.read_table(schema), b.read_table(schema), schema) == []
        assert a.table_file(schema).read_bytes() == b.table_file(schema).read_bytes()
    assert straight.staleness_s() == second.staleness_s()
    assert len(a.read_table(METRICS)["row"]) == 100
    assert len(a.read_table(TIMELINE)["agent"]) == 100


def test_a_saved_state_does_not_change_when_recording_goes_on() -> None:
    recorder = Recorder(4, 1000)
    play(recorder, np.random.default_rng(1), 10)
    state = recorder.state()
    copies = {name: column.copy() for name, column in state["metrics"].items()}
    staleness = state["staleness"].copy()
    play(recorder, np.random.default_rng(2), 10)
    for name, column in copies.items():
        np.testing.assert_array_equal(state["metrics"][name], column)
    np.testing.assert_array_equal(state["staleness"], staleness)


def test_a_state_saved_before_there_was_a_column_can_be_gone_on_with() -> None:
    recorder, older = Recorder(4, 1000), Recorder(4, 1000)
    play(recorder, np.random.default_rng(1), 10)
    state = recorder.state()
    del state["metrics"]["dual_mean_norm"]
    older.load_state(state)
    assert np.isnan(older.metrics()["dual_mean_norm"]).all()
    np.testing.assert_array_equal(older.metrics()["dual_norm"], recorder.metrics()["dual_norm"])
    del state["metrics"]["dual_norm"]
    with pytest.raises(KeyError, match="dual_norm"):
        older.load_state(state)


def test_rows_are_numbered_and_ages_start_anew_with_each_row() -> None:
    heard: list[dict[str, Any]] = []

    class Listener:
        def on_row(self, row: Any) -> None:
            heard.append(dict(row))

    recorder = Recorder(0, 0, [Listener()])
    rng = np.random.default_rng(3)
    recorder.ages(np.array([1.0]))
    recorder.row(**values(rng))
    recorder.ages(np.array([2.0]))
    assert recorder.complete_row(**values(rng))["staleness_p50_s"] == pytest.approx(2.0, rel=0.006)
    recorder.row(**values(rng))
    recorder.row(**values(rng))
    columns = recorder.metrics()
    assert columns["row"].tolist() == [0, 1, 2] == [row["row"] for row in heard]
    np.testing.assert_allclose(columns["staleness_p50_s"], [1.0, 2.0, np.nan], rtol=0.006)
    assert recorder.staleness_s()[1] == pytest.approx(2.0, rel=0.006)


def test_a_wrong_column_is_named() -> None:
    recorder = Recorder(0, 0)
    with pytest.raises(KeyError, match=r"\['hit', 'hits'\]"):
        recorder.row(
            **{("hit" if k == "hits" else k): v for k, v in values(np.random.default_rng(0)).items()}
        )


def test_timeline_keeps_only_the_recorded_agents_and_events() -> None:
    recorder = Recorder(2, 3)
    recorder.events(np.array([5, 1, 0, 7]), "send", np.arange(4.0), np.arange(4.0) + 1, peers=np.arange(4))
    recorder.event(9, "act", 0.0, 1.0)
    assert not recorder.timeline_full
    recorder.event(1, "off", 5.0, math.inf)
    recorder.event(1, "act", 6.0, 7.0)
    assert recorder.timeline_full
    timeline = recorder.timeline()
    assert timeline["agent"].tolist() == [1, 0, 1]
    assert timeline["kind"].tolist() == ["send", "send", "off"]
    assert timeline["peer"].tolist() == [1, 2, -1]
    assert timeline["start_s"].tolist() == [1.0, 2.0, 5.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_percentiles_are_right_to_a_bin(ages: list[float], share: float) -> None:
    histogram = AgeHistogram()
    histogram.add(np.array(ages))
    exact = sorted(ages)[max(1, math.ceil(share * len(ages))) - 1]
    assert histogram.percentile(share) == pytest.approx(exact, rel=0.0051)


def test_ages_at_the_edges() -> None:
    histogram = AgeHistogram()
    assert math.isnan(histogram.percentile(0.5))
    histogram.add(np.zeros(3))
    assert histogram.percentile(0.95) == 0.0
    histogram.add(np.full(100, 1e30))
    assert histogram.percentile(0.5) == pytest.approx(1e7, rel=0.02)
    assert int(histogram.counts.sum()) == 103


def test_comparison_ignores_wall_clock_and_nothing_else() -> None:
    recorder = Recorder(0, 0)
    rng = np.random.default_rng(4)
    for _ in range(5):
        recorder.row(**values(rng))
    a = recorder.metrics()
    for column in METRICS.columns:
        b = {name: array.copy() for name, array in a.items()}
        b[column.name][3] = ~b[column.name][3] if column.kind == "bool" else b[column.name][3] + 1
        if column.name.startswith("staleness"):
            b[column.name][3] = 0.0
        differences = compare_metrics(a, b)
        if column.wall_clock:
            assert differences == []
        else:
            assert len(differences) == 1
            assert differences[0].startswith(f"{column.name}: 1 of 5 rows differ, first row 3")
    assert compare_metrics(a, {name: array[:4] for name, array in a.items()}) == ["rows: 5 against 4"]
