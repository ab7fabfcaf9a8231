"""A run's agents, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.whereabouts import table_of
from f2a2_sim.api import run
from f2a2_sim.scenario.load import load_scenario

KEYS = (
    "duration.episodes=1",
    "world.rollouts=2",
    "learner.batch_size=256",
    "learner.hidden_size=8",
    "learner.heads=2",
    "record.baseline_episodes=0",
)


def test_agents_that_have_learnt_nothing_play_at_random(tmp_path: Path) -> None:
    run(load_scenario("ctc", KEYS), out=tmp_path / "run")  # too short for an update
    table = table_of(tmp_path / "run", episodes=40, seed=1)
    names, returns, distances, shares = (list(column.cells) for column in table.columns)
    assert names == [str(agent) for agent in range(8)]
    mean = np.mean([float(str(cell)) for cell in returns])
    assert mean == pytest.approx(-2.2, abs=3.0)  # what random play earns
    assert float(str(table.title).split()[-1]) == pytest.approx(mean, abs=0.06)
    assert all(0.3 < float(str(cell)) < 1.5 for cell in distances)
    for cell in shares:
        each = np.array(str(cell).split(), dtype=float)
        assert each.sum() == pytest.approx(1.0, abs=0.03)
        assert each.max() < 0.4
