"""Models of the others within a fleet: what an agent may know of them, and what its update makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.randomness import Streams
from f2a2_sim.simulator.build import random_trajectories
from tests.f2a2_sim.learners.joint.conftest import (
    ACTIONS,
    ROLLOUTS,
    SIZES,
    assert_gradients_differ_a_little,
    make_joint,
    update,
)
from tests.f2a2_sim.simulator.conftest import scenario_of

MOA: dict[str, Any] = {
    "trajectories": 6,
    "trajectory_steps": 7,
    "character_trajectories_per_update": 3,
    "recurrent_size": 4,
    "hidden_size": 8,
    "history_steps": 3,
    "natural_pairs": 30,
    "impromptu_pairs": 20,
}
EVERY = np.arange(len(SIZES))


def modelling_fleet(name: str, setup: dict[str, Any] | None = None, **changes: Any) -> JointFleet:
    """A fleet whose models have seen random trajectories, and the steps of its replay."""
    return gathered(make_joint(name, setup, moa={**MOA, **changes}))


def gathered(fleet: JointFleet) -> JointFleet:
    """The fleet, after random trajectories."""
    rng = np.random.default_rng(8)
    shape = (6, 7, len(SIZES))
    fleet.gather(
        rng.standard_normal((*shape, max(SIZES))).astype(np.float32), rng.integers(0, ACTIONS, shape)
    )
    return fleet


def test_models_read_a_float16_replay() -> None:
    """Almost what they make of a float32 one."""
    exact, half = (gathered(make_joint("f2a2_sac", moa=MOA, replay_dtype=t)) for t in ("float32", "float16"))
    assert_gradients_differ_a_little(exact, half)


@pytest.mark.parametrize("name", ["f2a2_sac", "f2a2_ddpg", "f2a2_td3", "f2a2_coma"])
def test_others_policies_are_not_read(name: str) -> None:
    """Agent 0's update is the same whatever policy agent 1 has; without models it is not."""
    outcomes = {}
    for moa in (True, False):
        for changed in (True, False):
            fleet = modelling_fleet(name) if moa else make_joint(name)
            if changed:
                fleet.parameters[1, fleet.actor_columns] *= -30.0
            update(fleet)
            outcomes[moa, changed] = fleet.parameters[0].clone()
    assert torch.equal(outcomes[True, True], outcomes[True, False])
    assert not torch.equal(outcomes[False, True], outcomes[False, False])
    assert not torch.equal(outcomes[True, True], outcomes[False, True])


def test_own_policy_is_the_own_one_and_others_are_predicted() -> None:
    fleet = modelling_fleet("f2a2_sac")
    assert fleet.moa is not None
    numbers = fleet.replay.newest(EVERY, 4)
    run = slice(0, 3)
    read = fleet.replay.gather(run, numbers)
    with torch.inference_mode():
        logits = fleet._logits_known(0, run, read, numbers, True)
    seen = read.next_observations.double()
    before = fleet.replay.histories(run, numbers, 3, True)
    expected = fleet.moa.predict(0, run, seen, before)
    for i in range(3):
        own = fleet.actors.logits(torch.tensor([i]), seen[i, i][None])[0]
        for j in range(3):
            torch.testing.assert_close(logits[i, j], own if i == j else expected[i, j])
    assert float(expected[0, 1].abs().max()) > 0


def test_models_learn_with_the_learner_and_their_accuracy_is_told() -> None:
    fleet = modelling_fleet("f2a2_ddpg")
    assert fleet.moa is not None
    before = fleet.moa.models.parameters.clone()
    accuracy = update(fleet)["moa_accuracy"]
    assert bool((fleet.moa.models.parameters != before).any(dim=1).all())
    assert accuracy.shape == (3,) and ((accuracy >= 0) & (accuracy <= 1)).all()
    assert np.isnan(update(make_joint("f2a2_ddpg"))["moa_accuracy"]).all()


def test_they_cost_time_and_memory() -> None:
    with_models, without = modelling_fleet("f2a2_ddpg"), make_joint("f2a2_ddpg")
    assert with_models.update_work().flops > without.update_work().flops
    assert with_models.act_work() == without.act_work()
    for kind, size in without.memory_bytes().items():
        assert with_models.memory_bytes()[kind] >= size
    assert with_models.memory_bytes()["replay"] > without.memory_bytes()["replay"]


def test_on_and_off_as_yaml_says_them() -> None:
    for given, expected in ((True, True), ("on", True), (False, False), ("off", False), (None, False)):
        config = LearnerConfig.model_validate({"name": "f2a2_sac", "moa": given})
        assert (config.moa is not None) == expected
    with pytest.raises(ValueError, match="moa: on is for learners with joint critics"):
        scenario_of({"learner": {"moa": True}})


def test_random_trajectories_are_random_play() -> None:
    scenario = scenario_of(
        {
            "world": {"env": "rover_tower", "agents": 8, "rollouts": ROLLOUTS, "episode_steps": 10},
            "learner": {"name": "f2a2_sac"},
        }
    )
    first, second = (random_trajectories(scenario, 5, 10, Streams(3, 8)) for _ in range(2))
    seen, actions = first
    assert seen.shape == (5, 10, 8, 13) and actions.shape == (5, 10, 8)
    np.testing.assert_array_equal(seen, second[0])
    np.testing.assert_array_equal(actions, second[1])
    assert len({trajectory.tobytes() for trajectory in seen}) == 5
    moved = np.diff(seen[:, :, 0, 9:11], axis=1)  # where rover 0 is, and which way it went
    direction = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])[actions[:, :-1, 0]]
    speed_before = seen[:, :-1, 0, 11:13]
    np.testing.assert_allclose(moved, 0.1 * (0.75 * speed_before + 0.225 * direction), atol=1e-6)
