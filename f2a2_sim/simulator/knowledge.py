"""Which of the others' steps an agent has heard of, where observations and actions are messages.

With ``learner.information: network`` what agent j saw and did in a step reaches agent i in a message, late
or never. A transition from step t to t + 1 is therefore remembered one step later, with what has come by
then: of every j the newest step known up to t, and up to t + 1. What comes later is of use for later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

_NEVER = -1
_OLDEST = 127  # steps; what is older counts as unknown


def version_of(step: int) -> int:
    """What stands for the message about a step of the world among the versions of parameters: below 0."""
    return -1 - step


def step_of(versions: IntArray) -> IntArray:
    """The steps of such messages."""
    return -1 - versions


@dataclass(frozen=True)
class Ages:
    """How many steps old i's knowledge of j is, int8 ``[n, n]``; -1: i knows nothing of j in this episode."""

    now: NDArray[np.int8]  # at step t
    following: NDArray[np.int8]  # at step t + 1, where knowledge of just that step is 0


class Knowledge:
    """Of n agents in one episode; steps are counted over the whole run."""

    def __init__(self, n: int) -> None:
        self._newest = np.full((3, n, n), _NEVER, dtype=np.int64)  # before t, at t, at t + 1
        self._step = 0  # t, of the transition that is to be remembered next
        self._first = 0  # of the episode

    def begin_episode(self, step: int) -> None:
        """Nothing is known of an episode whose first observation has this number."""
        self._newest[:] = _NEVER
        self._step = self._first = step

    def hear(self, receivers: IntArray, senders: IntArray, steps: IntArray) -> None:
        """Messages ``[m]`` about steps; those of former episodes are of no use."""
        slot = np.clip(steps - self._step + 1, 0, 2)
        of_use = (steps >= self._first) & (steps <= self._step + 1)
        where = (slot[of_use], receivers[of_use], senders[of_use])
        np.maximum.at(self._newest, where, steps[of_use])

    def forget(self, agent: int) -> None:
        """A crash: the agent knows nothing any more."""
        self._newest[:, agent] = _NEVER

    def ages(self) -> Ages:
        """For the transition from the present step t; the next call is about t + 1."""
        t = self._step
        every = np.arange(self._newest.shape[1])
        self._newest[1][every, every] = t
        known = np.maximum(self._newest[0], self._newest[1])
        self._newest[0] = known
        self._newest[1] = self._newest[2]
        self._newest[2] = _NEVER
        self._step += 1
        following = np.maximum(known, self._newest[1])
        following[every, every] = t + 1
        return Ages(_age(t, known), _age(t + 1, following))

    def complete(self, transition: tuple[Any, ...]) -> None:
        """Called after `ages`, with what is about to be remembered: everybody's steps are in it already."""

    def state(self) -> dict[str, Any]:
        return {"newest": self._newest, "step": self._step, "first": self._first}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._newest[...] = state["newest"]
        self._step, self._first = int(state["step"]), int(state["first"])


def _age(step: int, known: IntArray) -> NDArray[np.int8]:
    age = step - known
    return np.where((known == _NEVER) | (age > _OLDEST), -1, age).astype(np.int8)
