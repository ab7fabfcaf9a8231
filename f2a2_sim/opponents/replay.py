"""Replay of whole steps of many units, kept in a ring by time, from which n-step transitions are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 100  # battle's views hold 0, 1 and tenths of a hit point of ten: hundredths, exact as integers


@dataclass(frozen=True)
class Batch:
    """``b`` transitions of up to n steps: from ``observations`` by ``actions`` to ``later``.

    returns float32 ``[b]``: the discounted rewards on the way. bootstrap float32 ``[b]``: what the value of
    ``later`` counts for, discount to the power of the steps made, 0 where the unit's episode ended.
    """

    observations: NDArray[np.uint8]
    actions: NDArray[np.int64]
    returns: NDArray[np.float32]
    later: NDArray[np.uint8]
    bootstrap: NDArray[np.float32]


class StepReplay:
    """The last ``slots`` slots of ``units`` units; one slot a step, and one for where a round ends.

    Observations are held as uint8 hundredths. A slot in which a unit did not act (dead, or the round over) is
    not drawn from, but may be what a transition leads to.
    """

    def __init__(self, slots: int, units: int, observation_size: int) -> None:
        self._observations = np.zeros((slots, units, observation_size), dtype=np.uint8)
        self._actions = np.zeros((slots, units), dtype=np.uint8)
        self._rewards = np.zeros((slots, units), dtype=np.float32)
        self._acted = np.zeros((slots, units), dtype=np.bool_)
        self._ended = np.zeros((slots, units), dtype=np.bool_)
        self._written = 0

    @property
    def written(self) -> int:
        """Slots written since the beginning."""
        return self._written

    def add(
        self,
        observations: NDArray[np.float32],
        actions: NDArray[np.int64],
        rewards: NDArray[np.float32],
        acted: NDArray[np.bool_],
        ended: NDArray[np.bool_],
    ) -> None:
        """Append a step: what the units saw, did and got; who acted; whose episode ended by it."""
        slot = self._written % len(self._actions)
        self._observations[slot] = quantise(observations)
        self._actions[slot] = actions
        self._rewards[slot] = rewards
        self._acted[slot] = acted
        self._ended[slot] = ended
        self._written += 1

    def close_round(self, observations: NDArray[np.float32]) -> None:
        """Append where a round ended: nobody acts from here."""
        nobody = np.zeros(self._actions.shape[1], dtype=np.bool_)
        none = np.zeros(len(nobody), dtype=np.int64)
        self.add(observations, none, none.astype(np.float32), nobody, nobody)

    def draw(self, size: int, steps: int, discount: float, rng: np.random.Generator) -> Batch:
        """``size`` transitions of up to ``steps`` steps, uniformly with replacement."""
        slots, units = self._actions.shape
        oldest = max(0, self._written - slots)
        newest = self._written - steps  # every step of a transition and its end are written
        times = np.empty(0, dtype=np.int64)
        who = np.empty(0, dtype=np.int64)
        while len(times) < size:
            more_times = rng.integers(oldest, newest, 2 * size)
            more_who = rng.integers(0, units, 2 * size)
            drawn = self._acted[more_times % slots, more_who]
            times = np.concatenate([times, more_times[drawn]])
            who = np.concatenate([who, more_who[drawn]])
        times, who = times[:size], who[:size]
        returns = np.zeros(size, dtype=np.float32)
        weight = np.ones(size, dtype=np.float32)
        reached = times.copy()
        going = np.ones(size, dtype=np.bool_)
        ended = np.zeros(size, dtype=np.bool_)
        for step in range(steps):
            slot = (times + step) % slots
            going = going & self._acted[slot, who]
            returns[going] += weight[going] * self._rewards[slot[going], who[going]]
            weight[going] *= np.float32(discount)
            reached[going] = times[going] + step + 1
            ended |= going & self._ended[slot, who]
            going = going & ~ended
        return Batch(
            observations=self._observations[times % slots, who],
            actions=self._actions[times % slots, who].astype(np.int64),
            returns=returns,
            later=self._observations[reached % slots, who],
            bootstrap=np.where(ended, np.float32(0.0), weight),
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        return {
            "observations": self._observations,
            "actions": self._actions,
            "rewards": self._rewards,
            "acted": self._acted,
            "ended": self._ended,
            "written": np.array([self._written], dtype=np.int64),
        }

    def load_state(self, state: dict[str, NDArray[np.generic]]) -> None:
        for name in ("observations", "actions", "rewards", "acted", "ended"):
            getattr(self, f"_{name}")[...] = state[name]
        self._written = int(state["written"][0])


def quantise(observations: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Observations in 0..1 as uint8 hundredths."""
    return np.rint(observations * LEVELS).astype(np.uint8)
