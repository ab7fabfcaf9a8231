"""A game of one step: everybody is paid for how many do what the context asks of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from f2a2_sim.learners.base import FleetSetup, make_fleet
from f2a2_sim.learners.config import LearnerConfig

AGENTS, CHOICES, ROLLOUTS = 2, 2, 10
COMA: dict[str, Any] = {"name": "f2a2_coma", "replay_transitions": 100, "entropy_bonus": 0.1}
LEARNERS: dict[str, dict[str, Any]] = {
    "ddpg": {"name": "f2a2_ddpg"},
    "ddpg, attention": {"name": "f2a2_ddpg", "critic": "attention"},
    "td3": {"name": "f2a2_td3", "policy_delay": [1, 2]},
    "td3, attention": {"name": "f2a2_td3", "policy_delay": [1, 2], "critic": "attention"},
    "coma": COMA,
    "coma, by returns": {**COMA, "advantage": "return", "standardise_advantage": True, "td_baseline": True},
    "coma, attention": {**COMA, "advantage": "return", "critic": "attention"},
}
KEYS: dict[str, Any] = {
    "hidden_size": 16,
    "batch_size": 100,
    "replay_transitions": 2000,
    "block_agents": AGENTS,
    "learning_rate": 0.02,
    "alpha1": 0.5,
    "td_clip": 0.1,  # below alpha1 / (2 alpha2), where the actor of F2A2-DDPG would stand still
}


@pytest.mark.parametrize("name", LEARNERS)
def test_they_learn_what_pays(name: str) -> None:
    """Each the right choice in either context: random play earns half, and they nearly all there is."""
    sizes = (CHOICES,) * AGENTS
    setup = FleetSetup(
        CHOICES, CHOICES, [5] * AGENTS, AGENTS, "critic", observation_sizes=sizes, rollouts=ROLLOUTS
    )
    fleet = make_fleet(LearnerConfig.model_validate({**KEYS, **LEARNERS[name]}), setup)
    rng, rows = np.random.default_rng(1), np.arange(AGENTS)
    contexts = rng.integers(0, CHOICES, (160, ROLLOUTS))
    seen = np.broadcast_to(np.eye(CHOICES, dtype=np.float32)[contexts], (AGENTS, *contexts.shape, CHOICES))
    earned = []
    for step, context in enumerate(contexts[:-1]):
        actions, logits = fleet.act(rows, seen[:, step].copy(), rng.random((AGENTS, ROLLOUTS)))
        right = actions == (context + rows[:, None]) % CHOICES
        rewards = np.broadcast_to(right.mean(axis=0), actions.shape).astype(np.float32)
        earned.append(rewards.mean())
        ended = np.ones(AGENTS, dtype=np.bool_)
        fleet.remember(rows, seen[:, step], actions, logits, rewards, seen[:, step + 1], ended)
        if step % 2 and fleet.can_update(rows).all():
            fleet.update(rows, fleet.draw_batch(rows, rng.random((AGENTS, fleet.draws_per_update))))
    assert np.mean(earned[:10]) == pytest.approx(0.5, abs=0.15)
    assert np.mean(earned[-20:]) > 0.9
