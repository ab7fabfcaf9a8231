"""The joint replay against a plain list of everything that was ever added."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.learners.joint.replay import JointFleetReplay, padded_observations

N, SIZE, ACTIONS, ROLLOUTS = 3, 2, 4, 2
DTYPES = (torch.float32, torch.float16)


def added(replay: JointFleetReplay, rng: np.random.Generator, steps: int) -> list[list[dict[str, Any]]]:
    """Add random steps; what each agent ought to hold, oldest first."""
    held: list[list[dict[str, Any]]] = [[] for _ in range(N)]
    seen = rng.standard_normal((N, ROLLOUTS, SIZE)).astype(np.float32)
    for number in range(steps):
        rows = np.flatnonzero(rng.random(N) < 0.7)
        step: dict[str, Any] = {
            "observations": seen,
            "actions": rng.integers(0, ACTIONS, (N, ROLLOUTS)),
            "logits": rng.standard_normal((N, ROLLOUTS, ACTIONS)).astype(np.float32),
            "rewards": rng.standard_normal((N, ROLLOUTS)).astype(np.float32),
            "next_observations": rng.standard_normal((N, ROLLOUTS, SIZE)).astype(np.float32),
            "terminal": rng.random(N) < 0.3,
        }
        replay.add(rows, **step)
        step["number"] = number
        for row in rows.tolist():
            held[row].append(step)
        broken = rng.random() < 0.2
        seen = rng.standard_normal(seen.shape).astype(np.float32) if broken else step["next_observations"]
    return held


def same(replay: JointFleetReplay, row: int, numbers: np.ndarray, expected: list[tuple[dict, int]]) -> None:
    read = replay.gather(slice(row, row + 1), numbers[None])
    for at, (step, rollout) in enumerate(expected):
        for name, shown in (
            ("observations", read.observations),
            ("next_observations", read.next_observations),
        ):
            kept = torch.from_numpy(step[name][:, rollout]).to(shown.dtype)
            torch.testing.assert_close(shown[0, :, at], kept, rtol=0, atol=0)
        np.testing.assert_array_equal(read.actions[0, :, at], step["actions"][:, rollout])
        np.testing.assert_array_equal(read.logits[0, at], step["logits"][row, rollout])
        assert float(read.rewards[0, at]) == step["rewards"][row, rollout]
        assert bool(read.ended[0, at]) == step["terminal"][row]


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 40),
    kept=st.integers(2, 12),
    dtype=st.sampled_from(DTYPES),
)
def test_holds_the_newest_of_each_agent(seed: int, steps: int, kept: int, dtype: torch.dtype) -> None:
    replay = JointFleetReplay(N, SIZE, ACTIONS, kept * ROLLOUTS, ROLLOUTS, dtype=dtype)
    held = added(replay, np.random.default_rng(seed), steps)
    for row, all_steps in enumerate(held):
        count = int(replay.count[row])
        assert count % ROLLOUTS == 0
        newest = all_steps[len(all_steps) - count // ROLLOUTS :]
        assert len(newest) <= kept
        promised = [step for step in all_steps if step["number"] >= steps - kept]
        assert len(newest) >= len(promised)
        if count == 0:
            continue
        expected = [(step, rollout) for step in newest for rollout in range(ROLLOUTS)]
        middle = (np.arange(count) + 0.5) / count
        same(replay, row, replay.sample(np.array([row]), middle[None])[0], expected)
        same(replay, row, replay.newest(np.array([row]), count)[0], expected)
        rewards = np.array([step["rewards"][row] for step in newest], dtype=np.float64)
        mean, deviation = replay.reward_moments(slice(row, row + 1))
        np.testing.assert_allclose(mean, rewards.mean(), atol=1e-9)
        np.testing.assert_allclose(deviation, rewards.std(), atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keeps_all_that_it_promises(dtype: torch.dtype) -> None:
    """Unbroken episodes of eight steps or more, everybody there: exactly ``transitions`` are held."""
    replay = JointFleetReplay(N, SIZE, ACTIONS, 200 * ROLLOUTS, ROLLOUTS, dtype=dtype)
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((N, ROLLOUTS, SIZE)).astype(np.float32)
    nothing = np.zeros((N, ROLLOUTS))
    for step in range(900):
        following = rng.standard_normal(seen.shape).astype(np.float32)
        logits = np.zeros((N, ROLLOUTS, ACTIONS), dtype=np.float32)
        replay.add(
            np.arange(N),
            seen,
            nothing.astype(np.int64),
            logits,
            nothing.astype(np.float32),
            following,
            np.zeros(N, bool),
        )
        seen = rng.standard_normal(seen.shape).astype(np.float32) if step % 10 == 9 else following
        assert replay.count.tolist() == [min(step + 1, 200) * ROLLOUTS] * N


def test_older_steps_stand_in() -> None:
    """Of agents that one knows late, the step that it knows; of those it does not know, zeros."""
    replay = JointFleetReplay(N, SIZE, ACTIONS, 40, ROLLOUTS, with_ages=True)
    rng = np.random.default_rng(3)
    seen = rng.standard_normal((12, N, ROLLOUTS, SIZE)).astype(np.float32)
    actions = rng.integers(1, ACTIONS, (12, N, ROLLOUTS))
    ages = np.array([[-1, 1, 2] if t % 2 else [0, 3, -1] for t in range(12)], dtype=np.int8)
    for t in range(3, 11):
        known = np.tile(ages[t], (N, 1)), np.tile(ages[t + 1], (N, 1))
        nothing = np.zeros((N, ROLLOUTS, ACTIONS), dtype=np.float32)
        rewards = np.zeros((N, ROLLOUTS), dtype=np.float32)
        replay.add(np.arange(N), seen[t], actions[t], nothing, rewards, seen[t + 1], np.zeros(N, bool), known)
    numbers = replay.newest(np.array([1]), 6 * ROLLOUTS)
    read = replay.gather(slice(1, 2), numbers)
    assert read.fresh is not None and read.next_fresh is not None
    for at in range(6 * ROLLOUTS):
        t, rollout = 5 + at // ROLLOUTS, at % ROLLOUTS
        for j in range(N):
            now, after = ages[t, j], ages[t + 1, j]
            expected = np.zeros(SIZE) if now < 0 else seen[t - now, j, rollout]
            following = np.zeros(SIZE) if after < 0 else seen[t + 1 - after, j, rollout]
            np.testing.assert_array_equal(read.observations[0, j, at], expected)
            np.testing.assert_array_equal(read.next_observations[0, j, at], following)
            assert int(read.actions[0, j, at]) == (0 if now < 0 else actions[t - now, j, rollout])
            assert bool(read.fresh[0, j, at]) == (now == 0)
            assert bool(read.next_fresh[0, j, at]) == (after == 0)


def test_histories_are_the_steps_before() -> None:
    """Of the episode alone: with seven steps an episode, as far back as it goes and no further."""
    replay = JointFleetReplay(N, SIZE, ACTIONS, 40 * ROLLOUTS, ROLLOUTS)
    rng = np.random.default_rng(3)
    steps: list[tuple[np.ndarray, np.ndarray, int]] = []
    for t in range(21):
        seen = following if t % 7 else rng.standard_normal((N, ROLLOUTS, SIZE)).astype(np.float32)  # noqa: F821
        following = rng.standard_normal(seen.shape).astype(np.float32)
        actions = rng.integers(0, ACTIONS, (N, ROLLOUTS))
        nothing = np.zeros((N, ROLLOUTS, ACTIONS), dtype=np.float32)
        rewards = np.zeros((N, ROLLOUTS), dtype=np.float32)
        replay.add(np.arange(N), seen, actions, nothing, rewards, following, np.zeros(N, bool))
        steps.append((seen, actions, t % 7))
    numbers = replay.newest(np.array([0]), 21 * ROLLOUTS)
    for after in (False, True):
        read = replay.histories(slice(0, 1), numbers, 4, after)
        for at in range(21 * ROLLOUTS):
            t, rollout = at // ROLLOUTS, at % ROLLOUTS
            last = t if after else t - 1
            length = int(read.lengths[0, at])
            assert length == min(4, steps[t][2] + after)
            for back in range(length):
                seen, actions, _ = steps[last - back]
                np.testing.assert_array_equal(read.observations[0, :, at, 3 - back], seen[:, rollout])
                np.testing.assert_array_equal(read.actions[0, :, at, 3 - back], actions[:, rollout])


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_continues(dtype: torch.dtype) -> None:
    first, second = (JointFleetReplay(N, SIZE, ACTIONS, 16, ROLLOUTS, dtype=dtype) for _ in range(2))
    rng = np.random.default_rng(5)
    added(first, rng, 30)
    state = {k: (v.clone() if isinstance(v, torch.Tensor) else np.copy(v)) for k, v in first.state().items()}
    second.load_state(state)
    for replay in (first, second):
        added(replay, np.random.default_rng(6), 9)
    for name, value in first.state().items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(second.state()[name]), err_msg=name)
    with pytest.raises(CheckpointError, match="expected"):
        JointFleetReplay(N, SIZE, ACTIONS, 8, ROLLOUTS).load_state(state)


def test_what_float16_cannot_hold_is_said() -> None:
    replay = JointFleetReplay(N, SIZE, ACTIONS, 16, ROLLOUTS, dtype=torch.float16)
    seen = np.full((N, ROLLOUTS, SIZE), 65520.0, dtype=np.float32)
    step = np.zeros((N, ROLLOUTS), dtype=np.int64), np.zeros((N, ROLLOUTS, ACTIONS), dtype=np.float32)
    with pytest.raises(UsageError, match="replay_dtype: float16 cannot hold"):
        replay.add(np.arange(N), seen, *step, np.zeros((N, ROLLOUTS), np.float32), seen, np.zeros(N, bool))
    assert replay.count.tolist() == [0] * N


def test_forgetting_is_of_one_agent_alone() -> None:
    replay = JointFleetReplay(N, SIZE, ACTIONS, 40, ROLLOUTS)
    added(replay, np.random.default_rng(1), 10)
    before = replay.count.copy()
    replay.clear(np.array([1]))
    assert replay.count.tolist() == [before[0], 0, before[2]]
    assert replay.reward_moments(slice(1, 2))[1] == 0


def test_too_small_is_said() -> None:
    with pytest.raises(UsageError, match="replay_transitions: 3 is less than one step of 4 rollouts"):
        JointFleetReplay(N, SIZE, ACTIONS, 3, 4)


def test_observations_are_padded() -> None:
    padded = padded_observations([np.ones((2, 3), np.float32), np.full((2, 1), 2.0, np.float32)], 2)
    assert padded.tolist() == [[[1, 1, 1]] * 2, [[2, 0, 0]] * 2]


def test_what_follows_what_in_the_newest_steps() -> None:
    """A transition is followed where the agent remembers the next step and that begins where it ended."""
    replay = JointFleetReplay(N, SIZE, ACTIONS, 40, ROLLOUTS)
    held = added(replay, np.random.default_rng(4), 30)
    for row, all_steps in enumerate(held):
        count = int(replay.count[row])
        steps = all_steps[len(all_steps) - count // ROLLOUTS :]
        numbers = replay.newest(np.array([row]), count)
        followed = replay.gather(slice(row, row + 1), numbers).followed
        expected = [
            after["number"] == step["number"] + 1
            and np.array_equal(after["observations"], step["next_observations"])
            for step, after in pairwise(steps)
        ]
        assert True in expected and False in expected
        by_rollout = [[goes_on] * ROLLOUTS for goes_on in [*expected, False]]
        assert followed.view(-1, ROLLOUTS).tolist() == by_rollout


@pytest.mark.parametrize("kept", [20, 100, 500])
def test_episodes_of_one_step_leave_room_for_all_that_is_promised(kept: int) -> None:
    replay = JointFleetReplay(N, SIZE, ACTIONS, kept * ROLLOUTS, ROLLOUTS)
    rng = np.random.default_rng(0)
    for _ in range(3 * kept):  # whose next observation is never the one that the next step begins with
        one(replay, rng.standard_normal((2, N, ROLLOUTS, SIZE)))
    assert (replay.count == kept * ROLLOUTS).all()


def test_the_oldest_that_an_agent_knew_is_still_there() -> None:
    """127 steps before the oldest step held: what lies there must not have been written over."""
    kept = 20
    replay = JointFleetReplay(N, SIZE, ACTIONS, kept * ROLLOUTS, ROLLOUTS, with_ages=True)
    steps = np.arange(200.0)[:, None, None, None] * np.ones((N, ROLLOUTS, SIZE))
    for number in range(199):
        age = np.where(np.eye(N, dtype=np.bool_), 0, min(number, 127)).astype(np.int8)
        one(replay, steps[number : number + 2], ages=(age, age))
    read = replay.gather(slice(0, 1), replay.newest(np.array([0]), kept * ROLLOUTS))
    now = read.observations[0, 0, :, 0].numpy()
    assert set(now.tolist()) == set(np.arange(199.0 - kept, 199.0).tolist())
    np.testing.assert_array_equal(read.observations[0, 1, :, 0].numpy(), now - 127)


Ages = tuple[np.ndarray, np.ndarray]


def one(replay: JointFleetReplay, seen: np.ndarray, ages: Ages | None = None) -> None:
    """Everybody remembers a step that leads from the first to the second of ``seen``."""
    replay.add(
        np.arange(N),
        observations=seen[0].astype(np.float32),
        actions=np.zeros((N, ROLLOUTS), np.int64),
        logits=np.zeros((N, ROLLOUTS, ACTIONS), np.float32),
        rewards=np.zeros((N, ROLLOUTS), np.float32),
        next_observations=seen[1].astype(np.float32),
        terminal=np.zeros(N, np.bool_),
        ages=ages,
    )
