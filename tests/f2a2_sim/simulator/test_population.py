"""Figures of the whole population."""

from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.simulator import population
from tests.f2a2_sim.simulator.conftest import Simulate


@pytest.mark.parametrize("columns", [7, 4096, 10**9])
def test_disagreement_is_the_mean_distance_from_the_mean(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Whatever pieces it is computed in, the last being shorter."""
    monkeypatch.setattr(population, "_COLUMNS_PER_BLOCK", columns)
    agents = simulate({"duration": {"episodes": 1}}).parts.population
    shared = agents.fleets[0].learner.shared_parameters().double().numpy()
    expected = np.linalg.norm(shared - shared.mean(0), axis=1).mean()
    assert expected > 0.01
    assert agents.disagreement() == pytest.approx(expected, rel=1e-5)
