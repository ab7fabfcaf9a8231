"""Replay rings against a plain list of transitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.replay import FleetReplay

AGENTS = 3


def make_replay(capacity: int, dtype: torch.dtype = torch.float32, size: int = 2) -> FleetReplay:
    return FleetReplay(AGENTS, capacity, size, 2, dtype, torch.device("cpu"))


def add(
    replay: FleetReplay, rows: list[int], observation: Any, following: Any, terminal: Any, tag: Any
) -> None:
    """Transitions whose action, reward and logits all tell ``tag``."""
    r = len(rows)
    tags = torch.as_tensor(np.broadcast_to(np.asarray(tag, dtype=np.int64), (r,)).copy())
    replay.add(
        np.array(rows),
        torch.as_tensor(np.asarray(observation, dtype=np.float32).reshape(r, -1)),
        tags,
        tags.float().unsqueeze(1).repeat(1, 2),
        tags.float(),
        torch.as_tensor(np.asarray(following, dtype=np.float32).reshape(r, -1)),
        np.broadcast_to(np.asarray(terminal), (r,)).copy(),
    )


def held(replay: FleetReplay, row: int) -> list[tuple[int, tuple[float, ...], tuple[float, ...] | None]]:
    """(tag, o, o' or None) of every transition of ``row``, oldest first, read as an update reads them."""
    count = int(replay.count[row])
    if count == 0:
        return []
    uniforms = (np.arange(count) + 0.5)[None] / count
    frames = torch.from_numpy(replay.sample(np.array([row]), uniforms))
    gathered = replay.gather(slice(row, row + 1), frames)
    now, following = (torch.empty(1, count, replay.observations.shape[2]) for _ in range(2))
    replay.observe(gathered.now, now)
    replay.observe(gathered.following, following)
    assert torch.equal(gathered.actions.squeeze(-1).float(), gathered.rewards)
    assert torch.equal(gathered.logits, gathered.rewards.unsqueeze(-1).repeat(1, 1, 2))
    return [
        (
            int(gathered.actions[0, i, 0]),
            tuple(now[0, i].tolist()),
            None if gathered.ended[0, i] else tuple(following[0, i].tolist()),
        )
        for i in range(count)
    ]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 9))
def test_ring_holds_the_newest_transitions_exactly(data: st.DataObject, capacity: int) -> None:
    """Whatever mixture of unbroken steps, gaps, time limits and deaths, for each agent on its own.

    A ring of ``capacity + 1`` frames holds the longest run of newest transitions that fits: an unbroken
    step takes one frame, and the end of a piece that did not end in a terminal step one more.
    """
    replay = make_replay(capacity)
    model: list[list[tuple[int, tuple[float, ...], tuple[float, ...] | None]]] = [[] for _ in range(AGENTS)]
    current = {row: (0.0, float(row)) for row in range(AGENTS)}
    fresh = 100.0
    for tag in range(1, data.draw(st.integers(1, 40)) + 1):
        rows = sorted(data.draw(st.sets(st.integers(0, AGENTS - 1), min_size=1)))
        for row in rows:
            if data.draw(st.integers(0, 4)) == 0:
                fresh += 1
                current[row] = (fresh, float(row))
        terminal = [data.draw(st.integers(0, 4)) == 0 for _ in rows]
        observations = [current[row] for row in rows]
        following = []
        for _ in rows:
            fresh += 1
            following.append((fresh, 0.5))
        add(replay, rows, observations, following, terminal, tag)
        for row, o, after, ended in zip(rows, observations, following, terminal, strict=True):
            model[row].append((tag, o, None if ended else after))
            current[row] = after
    for row in range(AGENTS):
        mine = held(replay, row)
        assert mine == model[row][len(model[row]) - len(mine) :]
        assert len(mine) == fits(model[row], capacity + 1)


def fits(transitions: list[tuple[int, tuple[float, ...], tuple[float, ...] | None]], frames: int) -> int:
    """How many of the newest transitions fit into ``frames`` frames."""
    count = used = 0
    for position in reversed(range(len(transitions))):
        _, _, after = transitions[position]
        last = position == len(transitions) - 1
        shares = not last and after == transitions[position + 1][1]
        used += 1 if after is None or shares else 2
        if used > frames:
            break
        count += 1
    return count


def test_unbroken_episode_fills_the_whole_capacity() -> None:
    replay = make_replay(10)
    for step in range(37):
        add(replay, [1], [step, 0], [step + 1, 0], False, step)
    assert [tag for tag, _, _ in held(replay, 1)] == list(range(27, 37))
    assert replay.count.tolist() == [0, 10, 0]


def test_time_limit_keeps_its_last_observation_and_death_needs_none() -> None:
    replay = make_replay(10)
    add(replay, [0], [1, 0], [2, 0], False, 1)
    add(replay, [0], [2, 0], [3, 0], False, 2)  # cut off here by the time limit
    add(replay, [0], [7, 0], [8, 0], True, 3)  # dies
    add(replay, [0], [8, 0], [9, 0], False, 4)  # a new episode, by chance from the same observation
    assert held(replay, 0) == [
        (1, (1.0, 0.0), (2.0, 0.0)),
        (2, (2.0, 0.0), (3.0, 0.0)),
        (3, (7.0, 0.0), None),
        (4, (8.0, 0.0), (9.0, 0.0)),
    ]


def test_sampling_is_uniform_over_the_own_transitions() -> None:
    replay = make_replay(4)
    for step in range(6):
        add(replay, [0, 2], [[step, 0], [step, 2]], [[step + 1, 0], [step + 1, 2]], False, [step, 10 + step])
    uniforms = np.linspace(0, 1, 400, endpoint=False)[None].repeat(2, axis=0)
    frames = replay.sample(np.array([2, 0]), uniforms)
    for position, row in enumerate((2, 0)):
        tags = replay.actions[row, torch.from_numpy(frames[position])]
        values, counts = torch.unique(tags, return_counts=True)
        assert values.tolist() == [10 * (row == 2) + step for step in range(2, 6)]
        assert counts.tolist() == [100] * 4


def test_clear_forgets_one_agent() -> None:
    replay = make_replay(4)
    for step in range(6):
        add(replay, [0, 1], [[step, 0], [step, 1]], [[step + 1, 0], [step + 1, 1]], False, step)
    before = held(replay, 1)
    replay.clear(np.array([0]))
    assert (held(replay, 0), held(replay, 1)) == ([], before)
    add(replay, [0], [6, 0], [7, 0], False, 9)
    assert held(replay, 0) == [(9, (6.0, 0.0), (7.0, 0.0))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-60000, 60000, width=32), min_size=2, max_size=2))
def test_float16_error_bound(values: list[float]) -> None:
    """Half precision: relative error at most 2**-11, absolute at most 2**-25 near zero."""
    replay = make_replay(4, torch.float16)
    add(replay, [0], values, values, False, 0)
    ((_, observation, following),) = held(replay, 0)
    assert observation == following
    for exact, stored in zip(values, observation, strict=True):
        assert abs(stored - exact) <= max(2.0**-11 * abs(exact), 2.0**-25)


def test_continuing_step_is_recognised_in_float16() -> None:
    replay = make_replay(4, torch.float16)
    values = np.random.default_rng(0).random((8, 2))
    for step in range(7):
        add(replay, [0], values[step], values[step + 1], False, step)
    assert [tag for tag, _, _ in held(replay, 0)] == [3, 4, 5, 6]


def test_float16_overflow_is_an_error_that_names_the_remedy() -> None:
    replay = make_replay(4, torch.float16)
    with pytest.raises(UsageError, match=r"replay_dtype.*float32"):
        add(replay, [0], [70000, 0], [0, 0], False, 0)


def test_memory_of_the_papers_army() -> None:
    """500,000 transitions of battle in float16 fit in 1 GB (counted for 1/100 of them)."""
    replay = FleetReplay(10, 500, 845, 21, torch.float16, torch.device("cpu"))
    assert 0.85e9 < 100 * replay.nbytes() < 1.0e9
