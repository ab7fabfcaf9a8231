"""The training loop in a small invented world."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.learner import Maac
from f2a2_sim.baselines.trainer import CentralTrainer
from f2a2_sim.errors import CheckpointError
from f2a2_sim.randomness import Streams

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "heads": 2,
    "batch_size": 48,
    "replay_transitions": 600,
    "learning_rate": 0.005,
    "critic_learning_rate": 0.01,
    "updates_per_round": 2,
}
EPISODE = 10


class Signals:
    """Each agent sees a one-hot signal and is paid for naming it, agents 0 and 1 with noise beside it.

    Rewards are 1 for the signal's number and ``-agent`` / 10 otherwise.
    """

    observation_sizes = (6, 6, 4)
    n_actions = 4

    def __init__(self, rollouts: int, seed: int = 3) -> None:
        self.rollouts = rollouts
        self._rng = np.random.default_rng(seed)
        self._signals = np.zeros((rollouts, 3), dtype=np.int64)
        self.resets = 0

    def reset(self) -> list[np.ndarray]:
        self.resets += 1
        return self._observe()

    def step(self, actions: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        assert actions.shape == (self.rollouts, 3)
        paid = np.where(actions == self._signals, 1.0, -np.arange(3) / 10).astype(np.float32)
        return self._observe(), paid

    def state(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "signals": self._signals, "resets": self.resets}

    def load_state(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        self._signals = np.array(state["signals"])
        self.resets = state["resets"]

    def _observe(self) -> list[np.ndarray]:
        self._signals = self._rng.integers(0, 4, (self.rollouts, 3))
        seen = np.eye(4, dtype=np.float32)[self._signals]
        noise = self._rng.standard_normal((self.rollouts, 2, 2)).astype(np.float32)
        return [np.concatenate([seen[:, :2], noise], axis=2), seen[:, 2:]]


def make(rollouts: int = 12, seed: int = 0, **changes: Any) -> CentralTrainer:
    config = MaacConfig.model_validate(SMALL | changes)
    world = Signals(rollouts)
    learner = Maac(config, world.observation_sizes, world.n_actions, np.random.default_rng(seed))
    return CentralTrainer(world, EPISODE, config, learner, Streams(seed, dense_ids=3))


def test_updates_follow_the_originals_schedule() -> None:
    trainer = make(steps_per_round=100, updates_per_round=4)
    seen = []
    for _ in range(30):
        before = trainer.updates
        trainer.step()
        if trainer.updates > before:
            seen.append((trainer.transitions, trainer.updates - before))
    # 12 and 24 would be due (12 mod 100 is not below 12), but 48 transitions must be stored first.
    assert seen == [(108, 4), (204, 4), (300, 4)]


def test_no_update_before_a_batch_is_stored() -> None:
    trainer = make(steps_per_round=12, batch_size=48)
    updates = []
    for _ in range(6):
        trainer.step()
        updates.append(trainer.updates)
    assert updates == [0, 0, 0, 2, 4, 6]


def test_four_updates_per_hundred_transitions_in_the_long_run() -> None:
    config = MaacConfig()
    due = [t for t in range(12, 30_012, 12) if t >= config.batch_size and t % config.steps_per_round < 12]
    assert len(due) * config.updates_per_round == pytest.approx(4 * (30_000 - 1024) / 100, abs=4)


def test_reports_are_mean_raw_returns_of_the_episodes() -> None:
    trainer = make()
    paid = []
    step = trainer.world.step

    def recorded(actions: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        following, rewards = step(actions)
        paid.append(rewards)
        return following, rewards

    trainer.world.step = recorded  # type: ignore[method-assign]
    reports = list(trainer.run(30))
    assert [(r.episodes, r.transitions) for r in reports] == [(12, 120), (24, 240), (36, 360)]
    for number, report in enumerate(reports):
        episodes = np.stack(paid[number * EPISODE : (number + 1) * EPISODE])
        expected = episodes.astype(np.float64).sum(axis=0).mean(axis=0)
        np.testing.assert_allclose(report.mean_episode_rewards, expected, rtol=1e-12)
    assert trainer.world.resets == 3  # type: ignore[attr-defined]
    assert set(reports[-1].statistics) == {"critic_loss", "critic_norm", "policy_norm", "entropy"}
    assert (reports[-1].statistics["entropy"] <= np.log(4) + 1e-6).all()


def test_acting_follows_the_policy_of_running_moments() -> None:
    trainer = make(rollouts=4000, replay_transitions=4000)
    for policy in trainer.learner.policies:
        policy.moments.mean.fill_(0.3)
        policy.parameters.mul_(2.0)
    observations = trainer.world.reset()
    same = [np.repeat(seen[:1], 4000, axis=0) for seen in observations]
    uniforms = np.random.default_rng(0).random((3, 4000))
    actions = trainer.learner.act(same, uniforms)
    for policy, seen, agents in zip(trainer.learner.policies, same, (slice(0, 2), slice(2, 3)), strict=True):
        hidden = (torch.from_numpy(seen[0]) - 0.3) / np.sqrt(1 + 1e-5)
        views = policy.shape.views(policy.parameters)
        for row in range(policy.group.count):
            x = torch.nn.functional.leaky_relu(hidden[row] @ views[0][row, :-1] + views[0][row, -1], 0.01)
            x = torch.nn.functional.leaky_relu(x @ views[1][row, 0] + views[2][row, 0], 0.01)
            expected = (x @ views[3][row, 0] + views[4][row, 0]).softmax(dim=0)
            shares = np.bincount(actions[:, agents.start + row], minlength=4) / 4000
            np.testing.assert_allclose(shares, expected, atol=0.03)


def flat(state: Any) -> list[np.ndarray]:
    """Every number of a nested state."""
    if isinstance(state, dict):
        return [leaf for key in sorted(state) for leaf in flat(state[key])]
    if isinstance(state, list | tuple):
        return [leaf for item in state for leaf in flat(item)]
    return [np.asarray(state)]


@pytest.mark.parametrize("stop", [5, 20, 67])
def test_a_restored_training_goes_on_bit_for_bit(stop: int) -> None:
    """Stopped in the first episodes, at an episode's end, and with a replay that has come round."""
    trainer, again = make(), make()
    for _ in range(stop):
        trainer.step()
    for _ in range(23):
        again.step()
    again.load_state(deepcopy(trainer.state()))
    for _ in range(25):
        one, other = trainer.step(), again.step()
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(one.mean_episode_rewards, other.mean_episode_rewards)
            np.testing.assert_array_equal(one.statistics["critic_loss"], other.statistics["critic_loss"])
    assert trainer.updates > 2
    for left, right in zip(flat(trainer.state()), flat(again.state()), strict=True):
        np.testing.assert_array_equal(left, right)


def test_seeds_are_what_differs() -> None:
    one, same, other = (list(make(seed=seed).run(24))[-1].mean_episode_rewards for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_state_of_other_sizes_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"parameters has shape .*, expected"):
        make(hidden_size=8).load_state(make().state())


@pytest.mark.slow
def test_it_learns_to_name_the_signal() -> None:
    """Random play earns 2.5, 1.75 and 1.0 of 10 an episode."""
    trainer = make(steps_per_round=24, replay_transitions=6000, batch_size=128, updates_per_round=4)
    reports = list(trainer.run(12 * 60))
    np.testing.assert_allclose(reports[0].mean_episode_rewards, [2.5, 1.75, 1.0], atol=1.5)
    assert (reports[-1].mean_episode_rewards > 8.0).all()
