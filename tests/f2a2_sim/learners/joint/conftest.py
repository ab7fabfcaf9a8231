"""A small world's agents with joint transitions in their replay: three agents, two sizes, two rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.learners import lone
from f2a2_sim.learners.base import FleetSetup, make_fleet
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.joint.base import JointFleet

SIZES, ACTIONS, ROLLOUTS = (4, 4, 2), 3, 2
SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "heads": 2,
    "batch_size": 5,
    "replay_transitions": 60,
    "learning_rate": 0.01,
    "temperature": 0.3,
    "tau": 0.25,
    "alpha1": 0.7,
    "alpha2": 0.4,
}


@pytest.fixture(params=["agent by agent", "as on a GPU"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are computed in either of the two forms."""
    monkeypatch.setattr(lone, "computed_alone", lambda like: request.param == "agent by agent")


def make_joint(name: str, setup: dict[str, Any] | None = None, **changes: Any) -> JointFleet:
    """A fleet in float64, its agents' weights different, its replay filled."""
    config = LearnerConfig.model_validate({"name": name, **SMALL, **changes})
    keys = {
        "observation_size": max(SIZES),
        "n_actions": ACTIONS,
        "seeds": [11, 12, 13],
        "army_size": 3,
        "shared": "critic",
        "observation_sizes": SIZES,
        "rollouts": ROLLOUTS,
        "dtype": torch.float64,
        **(setup or {}),
    }
    fleet = make_fleet(config, FleetSetup(**keys))
    assert isinstance(fleet, JointFleet)
    moments = np.random.default_rng(1)
    fleet.actors.moments.mean.copy_(torch.from_numpy(moments.normal(0, 0.3, (3, max(SIZES)))))
    fleet.actors.moments.variance.copy_(torch.from_numpy(moments.uniform(0.5, 2, (3, max(SIZES)))))
    fleet.targets.mul_(0.9)
    fill(fleet, seed=2)
    return fleet


def random_observations(rng: np.random.Generator) -> np.ndarray:
    """``[n, rollouts, largest size]``, padded with zeros."""
    seen = rng.standard_normal((len(SIZES), ROLLOUTS, max(SIZES))).astype(np.float32)
    for agent, size in enumerate(SIZES):
        seen[agent, :, size:] = 0.0
    return seen


def fill(fleet: JointFleet, seed: int, steps: int = 12) -> None:
    """Random joint transitions, some terminal for some agents, some remembered by some agents only."""
    rng = np.random.default_rng(seed)
    shape = (len(SIZES), ROLLOUTS)
    seen = random_observations(rng)
    for step in range(steps):
        following = random_observations(rng)
        rows = np.flatnonzero(rng.random(len(SIZES)) < 0.8) if step % 3 == 0 else np.arange(len(SIZES))
        fleet.remember(
            rows,
            seen,
            rng.integers(0, ACTIONS, shape),
            rng.standard_normal((*shape, ACTIONS)).astype(np.float32),
            rng.standard_normal(shape).astype(np.float32),
            following,
            rng.random(len(SIZES)) < 0.2,
        )
        seen = following if rng.random() < 0.8 else random_observations(rng)


def spoil_and_load(fleet: JointFleet) -> None:
    """Save the state, spoil the parameters, and load it again."""
    saved = {
        name: part.clone() if isinstance(part, torch.Tensor) else part for name, part in fleet.state().items()
    }
    fleet.parameters.mul_(0.5)
    fleet.load_state(saved)


def update(fleet: JointFleet) -> dict[str, np.ndarray]:
    """One update of all agents, the same for fleets alike."""
    every = np.arange(len(SIZES))
    uniforms = np.random.default_rng(3).random((len(every), fleet.draws_per_update))
    return fleet.update(every, fleet.draw_batch(every, uniforms))


def assert_gradients_differ_a_little(exact: JointFleet, rounded: JointFleet) -> None:
    """One update of each: every agent's gradient differs, by less than a fiftieth of its length."""
    for fleet in (exact, rounded):
        update(fleet)
    gap = (exact.adam.first_moment - rounded.adam.first_moment).norm(dim=1)
    assert bool((gap < 0.02 * exact.adam.first_moment.norm(dim=1)).all()) and bool((gap > 0).all())
