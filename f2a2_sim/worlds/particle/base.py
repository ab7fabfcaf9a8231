"""What the particle worlds share: random draws, what they hand back, and the protocol of their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from f2a2_sim.worlds.particle.physics import FloatArray, IntArray

Observations = tuple[FloatArray, ...]
"""One array ``[B, agents of the role, observation size]`` a role, roles in the order of the agents."""

HALF_SIDE = 1.0
"""Agents start within ±1 on both axes. Nothing holds them there: the plane has no walls."""

NONE = -1
"""No treasure held, no message heard: the index of the row of zeros that ends a table of one-hot rows."""


class Draws(Protocol):
    """A rollout's random numbers: numpy's ``Generator`` or its legacy ``RandomState``.

    The rules draw in the order of the original code, so that ``RandomState(seed)`` gives the very episodes
    that the original plays after ``numpy.random.seed(seed)``.
    """

    def uniform(self, low: float, high: float, size: Any = None) -> Any: ...

    def choice(self, a: int, size: Any = None) -> Any: ...

    def shuffle(self, x: list[int]) -> None: ...


class Discs(NamedTuple):
    """What a picture shows, in this order: place ``[n, 2]``, radius ``[n]``, RGB from 0 to 1 ``[n, 3]``."""

    position: FloatArray
    radius: FloatArray
    colour: FloatArray


class Rules(Protocol):
    """A particle world for B rollouts at a time, stepped together.

    ``reset`` takes one stream of random numbers a rollout and thereby decides B. ``step`` takes the agents'
    actions, int64 ``[B, A]``, and gives observations and rewards ``[B, A]``. Episodes have no end of their
    own; ``episode_steps`` is the length that MAAC uses. ``state``, a dataclass of arrays, is there after the
    first ``reset``, and all that changes besides the streams.
    """

    name: str
    agents: tuple[str, ...]
    observation_sizes: tuple[int, ...]
    n_actions: int
    episode_steps: int
    state: Any

    def reset(self, streams: Sequence[Draws]) -> Observations: ...

    def step(self, actions: IntArray) -> tuple[Observations, FloatArray]: ...

    def discs(self, rollout: int = 0) -> Discs: ...


def choose(draws: Draws, n: int, size: Any = None) -> Any:
    """What ``draws.choice(n, size)`` gives, in a quarter of its time: it asks for these very numbers."""
    if isinstance(draws, np.random.Generator):
        return draws.integers(n, size=size)
    if isinstance(draws, np.random.RandomState):
        return draws.randint(n, size=size)
    return draws.choice(n, size)


def one_hot_rows(n: int) -> FloatArray:
    """Table ``[n + 1, n]`` of the n one-hot rows and, at index NONE, a row of zeros."""
    return np.vstack([np.eye(n), np.zeros(n)])
