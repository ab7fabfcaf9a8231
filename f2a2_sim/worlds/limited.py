"""A world whose observations stay within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.worlds.base import AgentSpec, World, WorldStep


class LimitedObservations:
    """Another world, every number that its agents observe clipped to ``[-limit, limit]``.

    For worlds that mark what is not there by a number far away from all others: networks that standardise
    their inputs by a batch's moments can then hardly tell these others apart.
    """

    def __init__(self, world: World, limit: float) -> None:
        self._world = world
        self._limit = limit

    @property
    def rollouts(self) -> int:
        return self._world.rollouts

    @property
    def agents(self) -> Sequence[AgentSpec]:
        return self._world.agents

    @property
    def default_action(self) -> int:
        return self._world.default_action

    @property
    def episode_steps(self) -> int:
        return self._world.episode_steps

    def reset(self, seed: int) -> WorldStep:
        return self._limited(self._world.reset(seed))

    def step(self, actions: NDArray[np.int64]) -> WorldStep:
        return self._limited(self._world.step(actions))

    def restore(self, seed: int, actions: NDArray[np.int64]) -> WorldStep:
        return self._limited(self._world.restore(seed, actions))

    def episode_summary(self) -> dict[str, float]:
        return self._world.episode_summary()

    def render(self) -> NDArray[np.uint8]:
        return self._world.render()

    def _limited(self, step: WorldStep) -> WorldStep:
        seen = step.observations
        if isinstance(seen, list):
            return replace(step, observations=[np.clip(own, -self._limit, self._limit) for own in seen])
        return replace(step, observations=np.clip(seen, -self._limit, self._limit))
