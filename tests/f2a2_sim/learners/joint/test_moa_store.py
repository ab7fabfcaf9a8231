"""Rings of recent steps against plain lists."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2a2_sim.learners.joint.moa_store import RecentSteps

N, OBSERVERS, HISTORY = 3, 2, 2
OTHERS = torch.tensor([[1, 2], [0, 2]])


def make(rollouts: int, joint_steps: int) -> RecentSteps:
    return RecentSteps(OTHERS, N, rollouts, 1, joint_steps, HISTORY, torch.empty(0))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rollouts=st.integers(1, 3), joint_steps=st.integers(1, 7))
def test_newest_pairs_with_the_steps_before_them(
    data: st.DataObject, rollouts: int, joint_steps: int
) -> None:
    """Whatever steps are missed, wherever episodes begin; a value is 100 step + 10 rollout + agent."""
    recent = make(rollouts, joint_steps)
    seen: list[list[tuple[int, list[list[int]]]]] = [[], []]  # per row: (step, steps before it by rollout)
    running: list[list[list[int]]] = [[[] for _ in range(rollouts)] for _ in range(OBSERVERS)]
    read = [0, 0]
    for number in range(1, data.draw(st.integers(1, 14)) + 1):
        rows = sorted(data.draw(st.sets(st.integers(0, OBSERVERS - 1))))
        begins = [data.draw(st.integers(0, 3)) == 0 for _ in range(rollouts)]
        values = 100 * number + 10 * torch.arange(rollouts).view(-1, 1) + torch.arange(N)
        known = values % 7 != 0
        at, steps = np.array(rows, dtype=np.int64), values.unsqueeze(-1).float()
        recent.add(at, steps, values, known, np.array(begins))
        for row in range(OBSERVERS):
            for rollout in np.flatnonzero(begins):
                running[row][rollout] = []
            if row in rows:
                seen[row].append((number, [past[-HISTORY:] for past in running[row]]))
                read[row] += 1
                for past in running[row]:
                    past.append(number)
        if rows and data.draw(st.integers(0, 4)) == 0:
            recent.all_is_old(np.array(rows))
            for row in rows:
                read[row] = 0

    with_history = data.draw(st.integers(1, joint_steps))
    pairs = recent.newest(slice(0, OBSERVERS), joint_steps, with_history)
    histories, lengths = recent.present(np.array([1, 0]))
    for row in range(OBSERVERS):
        entries = [
            (age, rollout, number, past[rollout])
            for age, (number, past) in enumerate(reversed(seen[row]))
            for rollout in range(rollouts)
        ]
        for at, j in enumerate(OTHERS[row].tolist()):
            for m, (age, rollout, number, past) in enumerate(entries[:joint_steps]):
                value = 100 * number + 10 * rollout + j
                assert pairs.steps[row, at, m].item() == pairs.actions[row, at, m].item() == value
                assert pairs.held[row, at, m].item() == (value % 7 != 0)
                assert pairs.fresh[row, 0, m].item() == (age < read[row])
                if m < with_history:
                    length = int(pairs.lengths[row, 0, m])
                    before = pairs.histories[row, HISTORY - length :, at, m, 0].tolist()
                    assert before == [100 * s + 10 * rollout + j for s in past]
            assert not pairs.held[row, at, len(entries) :].any()
        for rollout in range(rollouts):
            past = running[row][rollout][-HISTORY:]
            for j in range(N):
                length = int(lengths[1 - row, j, rollout])
                before = histories[1 - row, j, rollout, HISTORY - length :, 0].tolist()
                assert before == [100 * s + 10 * rollout + j for s in past]


def test_observers_may_see_different_things() -> None:
    recent = make(1, 2)
    values = torch.tensor([[[10, 11, 12]], [[20, 21, 22]]])
    recent.add(np.array([1, 0]), values.unsqueeze(-1).float(), values, values > 0, np.array([True]))
    pairs = recent.newest(slice(0, 2), 1, 1)
    assert pairs.actions.squeeze(-1).tolist() == [[21, 22], [10, 12]]


def test_clear_forgets_one_observer() -> None:
    recent = make(1, 2)
    values = torch.tensor([[10, 11, 12]])
    recent.add(np.array([0, 1]), values.unsqueeze(-1).float(), values, values > 0, np.array([True]))
    recent.clear(np.array([0]))
    assert recent.holds_pairs(np.array([1, 0])).tolist() == [True, False]
    assert recent.newest(slice(0, 2), 2, 1).held.flatten(1).sum(dim=1).tolist() == [0, 2]
    assert recent.present(np.array([0, 1]))[1][:, 0, 0].tolist() == [0, 1]
