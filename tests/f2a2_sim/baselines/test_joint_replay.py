"""The joint replay against lists that keep every transition whole, and numpy over all rewards held."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from f2a2_sim.baselines.joint_replay import JointReplay
from f2a2_sim.errors import CheckpointError, UsageError

SIZES, ROLLOUTS = (3, 3, 2), 2


class Plain:
    """Transitions as they come, oldest first."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.held: list[tuple] = []

    def add(self, *step: object) -> None:
        self.held = [*self.held, step][-self.steps :]

    def rewards(self) -> np.ndarray:
        return np.concatenate([rewards for _, _, rewards, _ in self.held]).astype(np.float64)


def play(replay: JointReplay, plain: Plain, steps: int, episode: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)

    def observe() -> list[np.ndarray]:
        return [rng.standard_normal((ROLLOUTS, k, o)).astype(np.float32) for k, o in ((2, 3), (1, 2))]

    observations = observe()
    for t in range(steps):
        actions = rng.integers(0, 5, (ROLLOUTS, 3))
        rewards = (100 + rng.standard_normal((ROLLOUTS, 3)) * [0.1, 1, 50]).astype(np.float32)
        following = observe()
        replay.add(observations, actions, rewards, following)
        plain.add(observations, actions, rewards, following)
        observations = observe() if (t + 1) % episode == 0 else following


@pytest.mark.parametrize("steps", [1, 7, 10, 11, 23, 64])
def test_it_holds_the_newest_transitions(steps: int) -> None:
    replay, plain = JointReplay(SIZES, 21, ROLLOUTS, 4), Plain(10)
    play(replay, plain, steps, episode=4)
    assert len(replay) == ROLLOUTS * min(steps, 10) == ROLLOUTS * len(plain.held)
    batch = replay.take(np.arange(len(replay)))
    for number in range(len(replay)):
        observations, actions, _, following = plain.held[number // ROLLOUTS]
        rollout = number % ROLLOUTS
        np.testing.assert_array_equal(batch.actions[:, number], actions[rollout])
        for g in range(2):
            np.testing.assert_array_equal(batch.observations[g][:, number], observations[g][rollout])
            np.testing.assert_array_equal(batch.next_observations[g][:, number], following[g][rollout])
    assert not batch.ended.any()


@pytest.mark.parametrize("steps", [1, 7, 10, 23, 64])
def test_rewards_are_standardised_over_all_that_is_held(steps: int) -> None:
    replay, plain = JointReplay(SIZES, 21, ROLLOUTS, 4), Plain(10)
    play(replay, plain, steps, episode=4)
    rewards = plain.rewards()
    mean, deviation = replay.reward_moments()
    np.testing.assert_allclose(mean, rewards.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, rewards.std(axis=0), rtol=1e-6)
    numbers = np.array([0, len(replay) - 1, 0])
    expected = (rewards[numbers] - rewards.mean(axis=0)) / rewards.std(axis=0)
    np.testing.assert_allclose(replay.take(numbers).rewards.T, expected, rtol=1e-4, atol=1e-6)


def test_a_reward_that_never_changes_is_zero() -> None:
    replay = JointReplay(SIZES, 20, ROLLOUTS, 4)
    seen = [np.zeros((2, 2, 3), np.float32), np.zeros((2, 1, 2), np.float32)]
    for _ in range(3):
        replay.add(seen, np.zeros((2, 3), np.int64), np.full((2, 3), 2.5, np.float32), seen)
    assert not replay.take(np.arange(6)).rewards.any()


def test_shorter_episodes_leave_fewer_but_right_transitions() -> None:
    replay, plain = JointReplay(SIZES, 20, ROLLOUTS, 10), Plain(10)
    play(replay, plain, 40, episode=1)
    held = len(replay) // ROLLOUTS
    assert 6 <= held < 10
    batch = replay.take(np.arange(len(replay)))
    for number in range(len(replay)):
        observations, _, _, following = plain.held[10 - held + number // ROLLOUTS]
        np.testing.assert_array_equal(batch.observations[0][:, number], observations[0][number % ROLLOUTS])
        np.testing.assert_array_equal(batch.next_observations[0][:, number], following[0][number % ROLLOUTS])
    rewards = plain.rewards()[-len(replay) :]
    np.testing.assert_allclose(replay.reward_moments()[1], rewards.std(axis=0), rtol=1e-6)


def test_sampling_is_uniform_over_what_is_held() -> None:
    replay, plain = JointReplay(SIZES, 20, ROLLOUTS, 4), Plain(10)
    play(replay, plain, 13, episode=4)
    drawn = replay.sample((np.arange(40) + 0.5) / 40)
    each_twice = replay.take(np.repeat(np.arange(20), 2))
    np.testing.assert_array_equal(drawn.rewards, each_twice.rewards)


@pytest.mark.parametrize("steps", [3, 10, 37])
def test_it_goes_on_from_a_state(steps: int) -> None:
    replay, again, plain = (
        JointReplay(SIZES, 20, ROLLOUTS, 4),
        JointReplay(SIZES, 20, ROLLOUTS, 4),
        Plain(10),
    )
    play(replay, plain, steps, episode=4)
    again.load_state(deepcopy(replay.state()))
    for each in (replay, again):
        play(each, plain, 5, episode=4, seed=1)
    assert len(replay) == len(again)
    one, other = (each.take(np.arange(len(each))) for each in (replay, again))
    np.testing.assert_array_equal(one.rewards, other.rewards)
    np.testing.assert_array_equal(one.next_observations[1], other.next_observations[1])


def test_an_observation_is_stored_once() -> None:
    replay = JointReplay((86,) * 6 + (84,) * 2, 12_000, 12, 100)
    assert replay.nbytes() < 1.1 * 12_000 * 4 * (6 * 86 + 2 * 84)


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(UsageError, match="replay_transitions: 1 is less than a step of 2 rollouts"):
        JointReplay(SIZES, 1, ROLLOUTS, 4)
    with pytest.raises(CheckpointError, match="replay of 10 steps, expected 20"):
        JointReplay(SIZES, 40, ROLLOUTS, 4).load_state(JointReplay(SIZES, 20, ROLLOUTS, 4).state())


@pytest.mark.parametrize(("steps", "asked", "got"), [(3, 40, 3), (9, 7, 3), (23, 20, 10), (23, 1, 1)])
def test_the_newest_steps_come_in_their_order(steps: int, asked: int, got: int) -> None:
    replay, plain = JointReplay(SIZES, 21, ROLLOUTS, 4), Plain(10)
    play(replay, plain, steps, episode=4)
    batch, followed = replay.newest(asked)
    assert len(followed) == got
    for number, (observations, actions, _, following) in enumerate(plain.held[-got:]):
        here = slice(number * ROLLOUTS, (number + 1) * ROLLOUTS)
        np.testing.assert_array_equal(batch.actions[:, here].T, actions)
        np.testing.assert_array_equal(batch.observations[1][:, here].transpose(0, 1), observations[1])
        np.testing.assert_array_equal(batch.next_observations[1][:, here].transpose(0, 1), following[1])
    ends = [(t + 1) % 4 == 0 for t in range(steps - got, steps)]
    assert followed.tolist() == [not end for end in ends[:-1]] + [False]
