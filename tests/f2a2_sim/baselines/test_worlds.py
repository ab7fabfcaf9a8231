"""The particle worlds as parallel episodes: their rules and nothing else, and a state to go on from."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.baselines.iql import IqlConfig
from f2a2_sim.baselines.registry import make_trainer
from f2a2_sim.baselines.worlds import ParticleEpisodes, rules_of
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.attention_shape import group_agents
from f2a2_sim.randomness import Streams
from f2a2_sim.worlds.particle import RULES

WORLDS = sorted(RULES)


def make(world: str, rollouts: int = 3, seed: int = 5, limit: float | None = None) -> ParticleEpisodes:
    return ParticleEpisodes(rules_of(world), rollouts, Streams(seed, 8), limit)


def play(world: ParticleEpisodes, steps: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [world.step(rng.integers(0, world.n_actions, (world.rollouts, 8))) for _ in range(steps)]


def assert_equal(one: list[Any], other: list[Any]) -> None:
    for (seen, paid), (seen_too, paid_too) in zip(one, other, strict=True):
        np.testing.assert_array_equal(paid, paid_too)
        for left, right in zip(seen, seen_too, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", WORLDS)
def test_each_rollout_is_the_world_played_alone(name: str) -> None:
    together = make(name)
    first = together.reset()
    played = play(together, 40)
    rng = np.random.default_rng(0)
    actions = [rng.integers(0, 5, (3, 8)) for _ in range(40)]
    for rollout in range(3):
        rules = rules_of(name)
        seed = Streams(5, 8).seed_for("rollout", rollout)
        alone = rules.reset([np.random.default_rng(seed)])
        for group, seen in enumerate(alone):
            np.testing.assert_array_equal(first[group][rollout], seen[0].astype(np.float32))
        for (seen_together, paid_together), act in zip(played, actions, strict=True):
            seen_alone, paid_alone = rules.step(act[rollout : rollout + 1])
            np.testing.assert_allclose(paid_together[rollout], paid_alone[0], rtol=1e-6, atol=1e-6)
            for left, right in zip(seen_together, seen_alone, strict=True):
                np.testing.assert_allclose(left[rollout], right[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_types_and_groups_are_those_of_the_protocol(name: str) -> None:
    world = make(name)
    groups = group_agents(world.observation_sizes)
    observations = world.reset()
    following, rewards = play(world, 1)[0]
    for seen in (observations, following):
        assert [s.shape for s in seen] == [(3, g.count, g.observation_size) for g in groups]
        assert all(s.dtype == np.float32 for s in seen)
    assert rewards.shape == (3, 8) and rewards.dtype == np.float32


@pytest.mark.parametrize("name", WORLDS)
def test_observations_handed_out_are_not_written_to_again(name: str) -> None:
    world = make(name)
    observations = world.reset()
    kept = deepcopy(observations)
    play(world, 3)
    for left, right in zip(observations, kept, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("steps", [0, 1, 33])
def test_it_goes_on_from_a_state(name: str, steps: int) -> None:
    world, again = make(name), make(name, seed=6)
    again.reset()
    play(again, 7)
    world.reset()
    play(world, steps)
    again.load_state(deepcopy(world.state()))
    assert_equal(play(world, 50, seed=1), play(again, 50, seed=1))
    for left, right in zip(world.reset(), again.reset(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_limit_clips_what_is_seen_and_nothing_else() -> None:
    world, limited = make("ctc"), make("ctc", limit=0.5)
    whole = [(world.reset(), 0.0), *play(world, 100)]
    clipped = [(limited.reset(), 0.0), *play(limited, 100)]
    for (seen, paid), (seen_limited, paid_too) in zip(whole, clipped, strict=True):
        np.testing.assert_array_equal(paid, paid_too)
        for left, right in zip(seen, seen_limited, strict=True):
            np.testing.assert_array_equal(left.clip(-0.5, 0.5), right)
    assert max(np.abs(seen[0]).max() for seen, _ in whole) > 900  # a treasure was taken
    config = IqlConfig(observation_limit=0.5)
    trainer = make_trainer("iql", "ctc", config, 5, torch.device("cpu"), lambda part: nullcontext())
    assert max(np.abs(seen).max() for seen in trainer.world.reset()) <= 0.5


def test_before_the_first_episode_there_are_only_the_streams() -> None:
    world, again = make("ctc"), make("ctc", seed=6)
    again.load_state(deepcopy(world.state()))
    for left, right in zip(world.reset(), again.reset(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_rollouts_and_seeds_differ() -> None:
    world = make("rover_tower")
    seen = world.reset()[0]
    assert (seen[0] != seen[1]).any() and (make("rover_tower", seed=6).reset()[0] != seen).any()


def test_an_unknown_world_is_named() -> None:
    with pytest.raises(UsageError, match="world battle: the baselines are trained in ctc or rover_tower"):
        rules_of("battle")
