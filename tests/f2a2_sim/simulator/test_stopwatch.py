"""Every second of a run is counted once, for a part of the program or for the rest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from f2a2_sim.simulator import stopwatch
from f2a2_sim.simulator.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless it is turned."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: now.s))
    return now


def spend(watch: Stopwatch, clock: SimpleNamespace) -> None:
    with watch.part("world"):
        clock.s += 1.0
    clock.s += 2.0
    with pytest.raises(ValueError, match="on the way"), watch.part("learning"):
        clock.s += 4.0
        raise ValueError("on the way")
    with watch.part("world"):
        clock.s += 8.0


def test_parts_add_up_to_the_whole_whatever_is_raised(clock: SimpleNamespace) -> None:
    watch = Stopwatch()
    spend(watch, clock)
    assert watch.total_s() == 15.0
    assert watch.breakdown_s() == {
        "world": 9.0,
        "learning": 4.0,
        "network": 0.0,
        "consensus": 0.0,
        "other": 2.0,
    }


def test_a_resumed_run_counts_on(clock: SimpleNamespace) -> None:
    first = Stopwatch()
    spend(first, clock)
    clock.s += 1000.0  # between a checkpoint's state and the resumed process nothing counts
    state = {**first.state(), "total": 15.0}
    second = Stopwatch()
    second.load_state(state)
    spend(second, clock)
    assert second.total_s() == 30.0
    assert second.breakdown_s()["world"] == 18.0
    assert second.breakdown_s()["other"] == 4.0
