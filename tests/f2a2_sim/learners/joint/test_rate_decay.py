"""Step sizes that fall, in whole updates of every learner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.learners.joint.base import JointFleet
from tests.f2a2_sim.learners.joint.conftest import SIZES, make_joint

LEARNERS = ("f2a2_coma", "f2a2_ddpg", "f2a2_sac", "f2a2_td3")
ROWS = np.arange(len(SIZES))


def _updated(name: str, updates: int, **changes: Any) -> JointFleet:
    fleet = make_joint(name, **changes)
    rng = np.random.default_rng(3)
    for _ in range(updates):
        fleet.update(ROWS, fleet.draw_batch(ROWS, rng.random((len(ROWS), fleet.draws_per_update))))
    return fleet


@pytest.mark.parametrize("name", LEARNERS)
def test_the_second_step_of_the_critics_is_as_much_shorter(name: str) -> None:
    whole, shorter = ({}, {"learning_rate_decay": {"factor": 0.125, "updates": 1}})
    first = _updated(name, 1, **whole)
    same = _updated(name, 1, **shorter)
    torch.testing.assert_close(same.parameters, first.parameters, rtol=1e-5, atol=1e-9)
    columns = first.critic_columns
    steps = [
        _updated(name, 2, **keys).parameters[:, columns] - first.parameters[:, columns]
        for keys in (whole, shorter)
    ]
    assert steps[0].abs().max() > 1e-3
    torch.testing.assert_close(steps[1], 0.125 * steps[0], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", LEARNERS)
def test_actors_take_shorter_steps_too(name: str) -> None:
    """Alone: with a critic's step of almost nothing both actors learn from the same critic."""
    still = {"learning_rate": 1e-12, "actor_learning_rate": 0.01, "policy_delay": [1]}
    decay = {"learning_rate_decay": {"factor": 0.125, "updates": 1}}
    first = _updated(name, 1, **still)
    columns = first.actor_columns
    steps = [
        _updated(name, 2, **still, **keys).parameters[:, columns] - first.parameters[:, columns]
        for keys in ({}, decay)
    ]
    assert steps[0].abs().max() > 1e-3
    torch.testing.assert_close(steps[1], 0.125 * steps[0], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_factor_of_one_changes_nothing(name: str) -> None:
    decay = {"factor": 1.0, "updates": 2}
    plain, decayed = _updated(name, 3), _updated(name, 3, learning_rate_decay=decay)
    torch.testing.assert_close(decayed.parameters, plain.parameters, rtol=1e-6, atol=1e-9)
