"""What agents lately saw the others do: per observer, a ring of the newest steps of all rollouts.

A step holds, per rollout, everybody's observation and action as one row of numbers: the observation, padded,
and the action as one of ``n_actions`` ones.  The steps before it in the same episode, as far as the observer
has seen them, are the history from which a mental state is read.  Every observer has a ring of its own: one
that misses a step (its device is off) has a gap there, and its neighbours have not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.stacked import zeros

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RecentPairs:
    """The newest ``m`` joint steps of ``b`` observers, newest first; every rollout has its own."""

    steps: Tensor  # what the others saw and did [b, others, m, observation + actions]
    actions: Tensor  # int64 [b, others, m]
    held: Tensor  # bool [b, others, m]: there is such a pair
    fresh: Tensor  # bool [b, 1, m]: of a step that `RecentSteps.all_is_old` was not yet said of
    histories: Tensor  # before the newest m' [b, history, others, m', observation + actions], oldest first
    lengths: Tensor  # int64 [b, 1, m']: as many of the last of these as belong to the episode


class RecentSteps:
    """Rings of ``k`` observers with room for ``joint_steps`` joint steps and what came before the oldest.

    ``others`` int64 ``[k, others]`` says whom each observer models, out of ``n`` agents.
    """

    def __init__(
        self, others: Tensor, n: int, rollouts: int, width: int, joint_steps: int, history: int, like: Tensor
    ) -> None:
        k = others.shape[0]
        self.slots = -(-joint_steps // rollouts) + history
        self.history = history
        self.rollouts = rollouts
        self._others = others
        by_rollout = (k, self.slots, rollouts)
        self._steps = zeros((*by_rollout, n, width), like.dtype, like.device)
        self._actions = torch.zeros((*by_rollout, n), dtype=torch.int16, device=like.device)
        self._known = torch.zeros((*by_rollout, n), dtype=torch.bool, device=like.device)
        self._lengths = torch.zeros(by_rollout, dtype=torch.int64, device=like.device)
        self._running = np.zeros((k, rollouts), dtype=np.int64)  # steps of the episode so far, up to history
        self._newest = np.zeros(k, dtype=np.int64)
        self._count = np.zeros(k, dtype=np.int64)
        self._unread = np.zeros(k, dtype=np.int64)

    def add(
        self, rows: IntArray, steps: Tensor, actions: Tensor, known: Tensor, new_episode: BoolArray
    ) -> None:
        """A step that ``rows`` have seen.

        ``steps`` is ``[rollouts, n, width]``, ``actions`` and ``known`` ``[rollouts, n]``, or all with ``r``
        in front.  In rollouts of ``new_episode`` ``[rollouts]`` an episode begins with it, for those too who
        do not see it.
        """
        self._running[:, new_episode] = 0
        slot = (self._newest[rows] + 1) % self.slots
        device = self._steps.device
        at, into = torch.from_numpy(rows).to(device), torch.from_numpy(slot).to(device)
        self._steps[at, into] = steps
        self._actions[at, into] = actions.to(torch.int16)
        self._known[at, into] = known
        self._lengths[at, into] = torch.from_numpy(self._running[rows]).to(device)
        self._running[rows] = np.minimum(self._running[rows] + 1, self.history)
        self._newest[rows] = slot
        for counter in (self._count, self._unread):
            counter[rows] = np.minimum(counter[rows] + 1, self.slots)

    def holds_pairs(self, rows: IntArray) -> BoolArray:
        """Which rows have seen a step at all ``[r]``."""
        return np.asarray(self._count[rows] > 0)

    def newest(self, run: slice, joint_steps: int, with_history: int) -> RecentPairs:
        """The newest ``joint_steps`` of neighbouring observers, the newest ``with_history`` with theirs."""
        device = self._steps.device
        number = np.arange(joint_steps)
        age, rollout = number // self.rollouts, torch.from_numpy(number % self.rollouts).to(device)
        held = torch.from_numpy(age < self._count[run, None]).to(device)
        fresh = torch.from_numpy(age < self._unread[run, None]).to(device)
        slot = torch.from_numpy((self._newest[run, None] - age) % self.slots).to(device)
        row = torch.arange(run.start, run.stop, device=device)
        by_row, others = row.view(-1, 1, 1), self._others[run].unsqueeze(2)
        places = (by_row, slot.unsqueeze(1), rollout, others)
        return RecentPairs(
            steps=self._steps[places],
            actions=self._actions[places].long(),
            held=self._known[places] & held.unsqueeze(1),
            fresh=fresh.unsqueeze(1),
            histories=self._before(row, slot[:, :with_history], rollout[:with_history], others),
            lengths=self._lengths[row.view(-1, 1), slot, rollout][:, None, :with_history],
        )

    def all_is_old(self, rows: IntArray) -> None:
        """What ``rows`` hold has been learnt from."""
        self._unread[rows] = 0

    def present(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Of the step to come: histories ``[r, n, rollouts, history, width]``, lengths ``[r, n, rollouts]``.

        (If a new episode begins with it, its lengths are 0.)
        """
        device = self._steps.device
        row = torch.from_numpy(rows).to(device)
        slot = torch.from_numpy((self._newest[rows, None] + 1) % self.slots).to(device)
        n = self._steps.shape[3]
        every = torch.arange(n, device=device).view(1, n, 1)
        rollout = torch.arange(self.rollouts, device=device)
        histories = self._before(row, slot.expand(-1, self.rollouts), rollout, every)
        lengths = torch.from_numpy(self._running[rows]).to(device)
        return histories.permute(0, 2, 3, 1, 4), lengths.unsqueeze(1).expand(-1, n, -1)

    def clear(self, rows: IntArray) -> None:
        """Forget everything of ``rows``."""
        for counter in (self._running, self._newest, self._count, self._unread):
            counter[rows] = 0

    def nbytes(self) -> int:
        """Memory of all rings."""
        tensors = (self._steps, self._actions, self._known, self._lengths)
        return sum(t.numel() * t.element_size() for t in tensors)

    def state(self) -> dict[str, Any]:
        """Views of everything."""
        return {name: getattr(self, f"_{name}") for name in _SAVED}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of rings of the same sizes."""
        for name in _SAVED:
            mine = getattr(self, f"_{name}")
            if isinstance(mine, Tensor):
                mine.copy_(torch.as_tensor(state[name]))
            else:
                mine[...] = np.asarray(state[name])

    def _before(self, row: Tensor, slot: Tensor, rollout: Tensor, others: Tensor) -> Tensor:
        """``[b, history, others, m, width]`` before the steps in ``slot`` ``[b, m]``, oldest first."""
        back = torch.arange(self.history, 0, -1, device=slot.device).view(1, -1, 1, 1)
        earlier = (slot[:, None, None, :] - back) % self.slots
        return self._steps[row.view(-1, 1, 1, 1), earlier, rollout, others.unsqueeze(1)]


_SAVED = ("steps", "actions", "known", "lengths", "running", "newest", "count", "unread")
