"""The helpers that the figures rest on, and pages of long runs that stay small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from f2a2_sim.results import plots
from f2a2_sim.results.diagrams import not_arrived
from f2a2_sim.results.tables import EPISODES, LINKS, METRICS


def test_trailing_mean_leaves_out_nan() -> None:
    values = np.array([np.nan, 2.0, 4.0, np.nan, 6.0])
    np.testing.assert_allclose(plots.trailing_mean(values, 2), [np.nan, 2.0, 3.0, 4.0, 6.0])
    np.testing.assert_allclose(plots.trailing_mean(values, 1), values)
    assert plots.trailing_mean(np.empty(0), 3).size == 0


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [(0.0, "µs"), (5e-4, "µs"), (0.5, "ms"), (1.4, "s"), (119, "s"), (600, "min"), (8000, "h")],
)
def test_time_axes_have_readable_units(seconds: float, unit: str) -> None:
    divisor, found = plots.seconds_scale(seconds)
    assert found == unit
    assert seconds / divisor < 2000


def test_shares_that_did_not_arrive() -> None:
    columns = {name: np.array([0, 0]) for name in LINKS.names}
    columns.update(sent=np.array([9, 0]), duplicated=np.array([1, 0]), lost=np.array([2, 0]))
    columns["queue_dropped"] = np.array([3, 0])
    np.testing.assert_allclose(not_arrived(columns), [0.5, np.nan])


def test_figures_of_long_runs_stay_small(make_run: Any) -> None:
    folder = make_run()
    metrics, episodes = folder.read_table(METRICS), folder.read_table(EPISODES)
    long_metrics = {name: np.resize(column, 50_000) for name, column in metrics.items()}
    long_metrics["virtual_time_s"] = np.arange(50_000.0)
    long_episodes = {name: np.resize(column, 5_000) for name, column in episodes.items()}
    long_episodes["virtual_time_s"] = long_episodes["env_steps"] = np.arange(5_000.0)
    assert len(plots.learner_health(long_metrics)) < 400_000
    assert len(plots.learning_curve(long_episodes, -1.0)) < 400_000


def test_text_and_axes_take_the_colour_of_the_page(make_run: Any) -> None:
    svg = plots.disagreement(make_run().read_table(METRICS))
    assert "currentColor" in svg and plots.INK not in svg
    assert svg.startswith("<svg") and svg.endswith("</svg>")
    assert 'role="img"' in svg.split(">")[0]
