"""A world whose agents see the same in other numbers: clipped, and compressed where they are large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.worlds.base import AgentSpec, World, WorldStep

Kind = TypeVar("Kind", bound=np.floating)


@dataclass(frozen=True)
class ObservationTransform:
    """Every number x is clipped to ``[-limit, limit]``, and then it is ``scale`` asinh(x / ``scale``).

    Networks standardise their inputs by a batch's moments. Where a world marks what is not there by a number
    far away from all others, these can hardly be told apart without a limit. A scale keeps differences
    between numbers much smaller than itself as they are, and makes those between large ones logarithmic: what
    is near is seen clearly, and how far the rest is can still be told. None: without.
    """

    limit: float | None = None
    scale: float | None = None

    def __call__(self, seen: NDArray[Kind]) -> NDArray[Kind]:
        """Numbers of the same kind and shape; ``seen`` itself if there is nothing to do."""
        if self.limit is not None:
            seen = np.clip(seen, -self.limit, self.limit)
        if self.scale is not None:
            seen = (self.scale * np.arcsinh(seen / self.scale)).astype(seen.dtype)
        return seen


class TransformedObservations:
    """Another world, whose agents observe what it shows through a transform."""

    def __init__(self, world: World, transform: ObservationTransform) -> None:
        self._world = world
        self._transform = transform

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
        return self._transformed(self._world.reset(seed))

    def step(self, actions: NDArray[np.int64]) -> WorldStep:
        return self._transformed(self._world.step(actions))

    def restore(self, seed: int, actions: NDArray[np.int64]) -> WorldStep:
        return self._transformed(self._world.restore(seed, actions))

    def episode_summary(self) -> dict[str, float]:
        return self._world.episode_summary()

    def render(self) -> NDArray[np.uint8]:
        return self._world.render()

    def _transformed(self, step: WorldStep) -> WorldStep:
        seen = step.observations
        if isinstance(seen, list):
            return replace(step, observations=[self._transform(own) for own in seen])
        return replace(step, observations=self._transform(seen))
