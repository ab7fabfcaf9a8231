"""Learning in the particle worlds, whose agents are of two shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from f2a2_sim.scenario.schema import Scenario
from tests.f2a2_sim.simulator.conftest import BASE, finish, merged, simulation_of


def scenario(env: str) -> Scenario:
    without_world: dict[str, Any] = {key: value for key, value in BASE.items() if key != "world"}
    return Scenario.model_validate(
        merged(without_world, {"world": {"env": env}, "duration": {"episodes": 2}})
    )


@pytest.mark.parametrize(
    ("env", "steps", "shapes"), [("ctc", 100, [(6, 86), (2, 84)]), ("rover_tower", 25, [(4, 13), (4, 8)])]
)
def test_each_role_learns_as_a_fleet_of_its_own(env: str, steps: int, shapes: list[tuple[int, int]]) -> None:
    simulation = simulation_of(scenario(env))
    fleets = simulation.parts.population.fleets
    before = [fleet.learner.parameters.clone() for fleet in fleets]
    simulation.start()
    finish(simulation)
    sizes = [agent.observation_size for agent in simulation.parts.world.agents]
    assert sorted((sizes.count(size), size) for size in set(sizes)) == sorted(shapes)
    assert len(fleets) == 2
    metrics = simulation.recorder.metrics()
    assert metrics["env_steps"][-1] == 2 * steps
    assert (simulation.training.updates > 0).all()
    assert np.isfinite(metrics["return_mean_per_agent"]).all()
    for fleet, old in zip(fleets, before, strict=True):
        assert (fleet.learner.parameters != old).any(dim=1).all()
