"""The timeline of a deployed run: what agents tell, and what is kept of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from f2a2_sim.deployment.clock import WallAgenda
from f2a2_sim.deployment.labour import Labour
from f2a2_sim.deployment.notes import Notes
from f2a2_sim.deployment.spans import SPANS_PER_REPORT, Spans
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import TIMELINE, TIMELINE_KINDS
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint


def told(agent: int, start_s: float, count: int = 4) -> np.ndarray:
    """What an agent tells of so many actions, one a second."""
    notes = Notes(timeline_agents=agent + 1)
    for k in range(count):
        notes.event(agent, "act", start_s + k, start_s + k + 0.5)
    return notes.take_timeline()


def test_what_agents_tell_is_the_table(tmp_path: Path) -> None:
    notes = Notes(timeline_agents=2)
    notes.event(1, "learn", 1.0, 1.5)
    notes.event(2, "learn", 1.0, 1.5)
    notes.event(1, "send", 1.5, 1.6, peer=0, size_bytes=100)
    spans = Spans(agents=2, most=10)
    spans.add(1, 30, notes.take_timeline())
    spans.add(0, 30, told(0, 2.0, 1))
    assert len(notes.take_timeline()) == 0, "it is told once"
    folder = RunFolder.create("spans", tmp_path / "run")
    folder.write_table(TIMELINE, spans.columns())
    table = folder.read_table(TIMELINE)
    assert table["agent"].tolist() == [1, 1, 0]
    assert table["kind"].tolist() == ["learn", "send", "act"]
    assert table["start_s"].tolist() == [1.0, 1.5, 2.0] and table["end_s"].tolist() == [1.5, 1.6, 2.5]
    assert table["peer"].tolist() == [-1, 0, -1] and table["size_bytes"].tolist() == [0, 100, 0]


def test_of_a_long_run_whole_stretches_are_kept_all_over_it() -> None:
    spans = Spans(agents=2, most=80)
    for step in range(100):
        for agent in (0, 1):
            spans.add(agent, step, told(agent, 10.0 * step))
    columns = spans.columns()
    stretches = sorted(set((columns["start_s"] // 10).astype(int).tolist()))
    assert stretches == list(range(0, 100, 16))
    assert len(columns["agent"]) == 8 * len(stretches) <= 80
    assert spans._length() == len(columns["agent"]), "and nothing else stays in memory"


def test_one_stretch_is_never_longer_than_the_table() -> None:
    spans = Spans(agents=30, most=50)
    for agent in range(30):
        spans.add(agent, 1, told(agent, 0.0))
    assert len(spans.columns()["agent"]) == 50


def test_who_is_not_asked_tells_in_vain() -> None:
    for spans in (Spans(agents=1, most=10), Spans(agents=2, most=0)):
        spans.add(1, 1, told(1, 0.0))
        assert len(spans.columns()["agent"]) == 0
    notes = Notes(timeline_agents=1)
    for k in range(2 * SPANS_PER_REPORT):
        notes.event(0, "act", k, k + 1)
    assert len(notes.take_timeline()) == SPANS_PER_REPORT
    notes.event(0, "act", 0, 1)
    assert len(notes.take_timeline()) == 1


@pytest.mark.parametrize(
    "bad",
    [
        None,
        np.zeros((2, 4)),
        np.zeros(5),
        np.zeros((2, 5), dtype=np.float32),
        np.full((1, 5), np.nan),
        np.full((1, 5), len(TIMELINE_KINDS), dtype=np.float64),
        np.full((1, 5), -1.0),
        np.full((1, 5), 0.5),
        np.zeros((SPANS_PER_REPORT + 1, 5)),
    ],
)
def test_what_is_no_timeline_is_not_kept(bad: np.ndarray | None) -> None:
    spans = Spans(agents=1, most=10_000)
    spans.add(0, 1, bad)
    assert len(spans.columns()["agent"]) == 0


def test_a_world_that_comes_back_has_them_still(tmp_path: Path) -> None:
    before, after = Spans(agents=2, most=40), Spans(agents=2, most=40)
    for step in range(20):
        before.add(step % 2, step, told(step % 2, 10.0 * step))
    folder = RunFolder.create("spans", tmp_path / "run")
    write_checkpoint(folder, 1, before.state(), "spans", keep=1)
    after.load_state(read_checkpoint(folder, find_checkpoint(folder), "spans"))
    for step in range(20, 40):
        for spans in (before, after):
            spans.add(0, step, told(0, 10.0 * step))
    for name, column in before.columns().items():
        np.testing.assert_array_equal(after.columns()[name], column)


def test_work_is_put_on_record_when_it_was_done() -> None:
    now = [5.0]
    agenda = WallAgenda(lambda: now[0])

    def act(agents: object) -> None:
        now[0] = 7.0

    population = SimpleNamespace(settle_before_reading=lambda: None, act=act)
    notes = Notes(timeline_agents=1)
    labour = Labour(population, agenda, notes)  # type: ignore[arg-type]
    labour.when_done(act=lambda agent, step: None, update=lambda agent: None, mix=lambda agent: None)
    labour.request_actions(np.array([0]), 3)
    labour.act()
    [[kind, start_s, end_s, *_]] = notes.take_timeline()
    assert TIMELINE_KINDS[int(kind)] == "act" and end_s == 7.0
    assert end_s - start_s == pytest.approx(labour.busy_s["act"])
    assert agenda.now_s == 7.0, "what follows from it follows later"
