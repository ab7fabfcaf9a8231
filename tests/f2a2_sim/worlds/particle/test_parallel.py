"""Many rollouts as one world: each is a world of its own."""

from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.worlds.factory import make_world
from f2a2_sim.worlds.particle import RULES
from f2a2_sim.worlds.particle.parallel import ParallelParticleWorld


@pytest.mark.parametrize("name", RULES)
def test_rollouts_are_the_rules_with_random_numbers_of_their_own(name: str) -> None:
    world = make_world(name, rollouts=3, episode_steps=6)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(9).spawn(3)]
    singles = [RULES[name]() for _ in streams]
    seen = [rules.reset([draws]) for rules, draws in zip(singles, streams, strict=True)]
    step = world.reset(9)
    choice = np.random.default_rng(0)
    for number in range(6):
        assert not step.done
        for rollout, expected in enumerate(seen):
            rows = [row for of_role in expected for row in of_role[0]]
            for agent, row in enumerate(rows):
                np.testing.assert_array_equal(step.observations[agent][rollout], row.astype(np.float32))
        actions = choice.integers(0, 5, (8, 3))
        step = world.step(actions)
        results = [rules.step(actions[:, [r]].T) for r, rules in enumerate(singles)]
        seen = [observations for observations, _ in results]
        rewards = np.stack([gained[0] for _, gained in results], axis=1)
        np.testing.assert_array_equal(step.rewards, rewards.astype(np.float32))
        assert step.done == step.truncated == (number == 5)
    assert step.alive.all() and not step.terminated.any()


@pytest.mark.parametrize("name", RULES)
def test_restored_from_seed_and_actions(name: str) -> None:
    world = ParallelParticleWorld(RULES[name](), rollouts=2, episode_steps=30)
    world.reset(4)
    actions = np.random.default_rng(1).integers(0, 5, (9, 8, 2))
    for chosen in actions:
        step = world.step(chosen)
    again = ParallelParticleWorld(RULES[name](), rollouts=2, episode_steps=30).restore(4, actions)
    for one, other in zip(step.observations, again.observations, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(step.rewards, again.rewards)
    assert world.render().shape == (512, 512, 3)
