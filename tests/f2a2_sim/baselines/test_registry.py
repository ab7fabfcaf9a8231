"""What holds for every baseline: it trains, goes on from a state bit for bit, and learns."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.baselines.registry import BASELINES, baseline_of, make_trainer
from f2a2_sim.baselines.trainer import CentralTrainer
from f2a2_sim.errors import UsageError
from f2a2_sim.randomness import Streams
from tests.f2a2_sim.baselines.maac.test_trainer import EPISODE, Signals, flat

SMALL = {"hidden_size": 16, "batch_size": 48, "replay_transitions": 600, "rollouts": 4, "episode_steps": 10}


def make(name: str, seed: int = 0, **changes: Any) -> CentralTrainer:
    config = BASELINES[name].config.model_validate(SMALL | changes)
    return make_trainer(name, "ctc", config, seed, torch.device("cpu"), lambda part: nullcontext())


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("stop", [7, 40])
def test_a_restored_training_goes_on_bit_for_bit(name: str, stop: int) -> None:
    trainer, again = make(name), make(name)
    for _ in range(stop):
        trainer.step()
    again.load_state(deepcopy(trainer.state()))
    for _ in range(30):
        trainer.step(), again.step()
    assert trainer.updates > 2
    for left, right in zip(flat(trainer.state()), flat(again.state()), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", BASELINES)
def test_it_shows_what_it_says_it_shows(name: str) -> None:
    *_, report = make(name, steps_per_round=20).run(16)
    assert set(report.statistics) == set(BASELINES[name].learner.statistics)  # type: ignore[attr-defined]
    assert all(np.isfinite(value).all() for value in report.statistics.values())


@pytest.mark.parametrize("name", BASELINES)
def test_seeds_are_what_differs(name: str) -> None:
    one, same, other = ([*make(name, seed).run(12)][-1].mean_episode_rewards for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"maac"}))
def test_it_learns_to_name_the_signal(name: str) -> None:
    """Random play earns 2.5, 1.75 and 1.0 of 10 an episode."""
    schedule = {"steps_per_round": 24, "replay_transitions": 6000, "batch_size": 120, "hidden_size": 16}
    own = {"learning_rate": 0.003, "critic_learning_rate": 0.01, "discount": 0.5}
    if name == "iql":
        own = {"learning_rate": 0.01, "discount": 0.5, "epsilon_transitions": 900}
    config = BASELINES[name].config.model_validate(schedule | own)
    world = Signals(12)
    generator = np.random.default_rng(0)
    learner = BASELINES[name].learner(config, world.observation_sizes, world.n_actions, generator)
    trainer = CentralTrainer(world, EPISODE, config, learner, Streams(0, dense_ids=3))
    reports = list(trainer.run(12 * 15))
    means = np.mean([report.mean_episode_rewards for report in reports[-5:]], axis=0)
    assert (means > 5.0).all(), means


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="baseline ppo: there is none of that name; use maac, maddpg, "):
        baseline_of("ppo")
