"""What a run shows while it runs: the right numbers, plain lines without a terminal, nothing when quiet."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.progress import LivePanel, PlainLines, RunState, Silent, make_progress
from f2a2_sim.results.summary import Baseline
from f2a2_sim.results.tables import METRICS
from f2a2_sim.scenario.schema import Scenario


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def scenario(**duration: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "shown",
            "duration": duration or {"episodes": 4},
            "world": {"agents": 12, "episode_steps": 100},
        }
    )


def row(**values: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {c.name: 0 if c.kind == "int" else 0.0 for c in METRICS.columns}
    return {**plain, "episode_end": False, **values}


def state(clock: FakeClock, **duration: Any) -> RunState:
    return RunState(scenario(**duration), RunFolder(Path("runs/x")), clock)


def text_of(display: Any, console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_remaining_time_counts_from_where_this_process_began() -> None:
    clock = FakeClock()
    shown = state(clock)
    assert math.isnan(shown.remaining_s())
    shown.add(row(episode=2, episode_step=0, env_steps=200))
    assert math.isnan(shown.remaining_s())
    clock.now += 10
    shown.add(row(episode=2, episode_step=50, env_steps=250))
    assert shown.share_done(shown.row or {}) == pytest.approx(2.5 / 4)
    assert shown.remaining_s() == pytest.approx(30.0)
    clock.now += 4
    assert shown.remaining_s() == pytest.approx(26.0)
    assert shown.rate("env_steps") == pytest.approx(5.0)


def test_the_limit_that_is_nearest_counts() -> None:
    shown = state(FakeClock(), episodes=10, env_steps=400, wall_time_s=1000.0)
    assert shown.share_done(row(env_steps=300, wall_time_s=100.0, episode=3)) == pytest.approx(0.75)
    assert shown.share_done(row(env_steps=10, wall_time_s=2000.0)) == 1.0
    end = row(episode=4, episode_step=100, episode_end=True)
    assert shown.share_done(end) == pytest.approx(0.5)


def test_last_and_best_return() -> None:
    shown = state(FakeClock())
    for value, end in ((-2.0, True), (-1.0, True), (-0.2, False), (-3.0, True)):
        shown.add(row(return_mean_per_agent=value, episode_end=end))
    assert (shown.last_return, shown.best_return) == (-3.0, -1.0)


def test_lines_come_every_ten_seconds_and_events_at_once() -> None:
    clock = FakeClock()
    console = Console(file=io.StringIO(), width=200)
    with PlainLines(state(clock), console, clock) as lines:
        lines.on_event("measuring the random policy")
        lines.baseline(Baseline(episodes=1, return_mean_per_agent=-1.5))
        for number in range(25):
            lines.on_row(row(env_steps=number, hits=3.0, kills=1.0, return_mean_per_agent=-0.25))
            clock.now += 1
    printed = text_of(lines, console).splitlines()
    assert printed[0] == "measuring the random policy"
    assert len(printed) == 4
    assert "hits 3 kills 1" in printed[1] and "(random -1.50)" in printed[1] and "return -0.250" in printed[1]


def test_a_world_without_fights_shows_none() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = PlainLines(state(FakeClock()), console)
    lines.on_row(row(hits=math.nan, kills=math.nan))
    assert "hits" not in text_of(lines, console) and "nan" not in text_of(lines, console)


def test_the_panel_shows_the_run() -> None:
    clock = FakeClock()
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    panel = LivePanel(state(clock), console)
    with panel:
        panel.on_event("measuring the random policy")
        panel.baseline(Baseline(episodes=1, return_mean_per_agent=-1.5, hits=38, kills=0.3))
        panel.on_row(row(episode=0, episode_step=50))
        clock.now += 10
        panel.on_row(
            row(episode=1, sent=1000, delivered=900, lost=60, queue_dropped=40, bytes_sent=2_000_000)
        )
        panel.on_event("checkpoint 000001")
    shown = text_of(panel, console)
    for words in (
        *("shown", "episode", "2 of 4", "25 %", "s left", "38", "90.00 % delivered"),
        *("6.00 % lost", "4.00 % dropped", "runs/x", "checkpoint 000001"),
    ):
        assert words in shown, words


def test_the_display_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    assert isinstance(make_progress(scenario(), folder, enabled=False), Silent)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(make_progress(scenario(), folder), PlainLines)
    with Silent() as silent:
        silent.on_row({})
        silent.on_event("x")
        silent.baseline(None)
