"""What every world offers: agents that observe, act and are rewarded, as a function of seed and actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float32]
Observations = FloatMatrix | list[FloatMatrix]


@dataclass(frozen=True)
class AgentSpec:
    """One agent's place in a world: its name and the sizes of its network's ends."""

    name: str
    observation_size: int
    n_actions: int


@dataclass
class WorldStep:
    """What a world hands back after a reset or a step; ``n`` is its number of agents, dead ones included.

    observations: float32 ``[n, size]`` if all agents have one size, otherwise a list of n arrays
        ``[size_i]``; zeros for agents that are not alive, save one that its environment's own time limit cut
        off in this step, which has its last.
    rewards: float32 ``[n]``; 0 for agents that were not alive before the step.
    terminated: bool ``[n]``, the agent's episode ended in this very step (its death, or its army's victory or
        defeat), so no return follows its reward. False for agents that were gone before.
    alive: bool ``[n]``, the agent stands in the world and can act next, unless ``done``.
    done: the episode is over. truncated: it is over only because the time limit was reached.
    counts: events of this step, summed over the learning army.
    """

    observations: Observations
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    done: bool = False
    truncated: bool = False
    counts: dict[str, float] = field(default_factory=dict)


class World(Protocol):
    """A world is a pure function of ``(seed, actions)``: whatever else acts in it draws from that seed.

    ``step`` takes int64 ``[n]`` and ignores the entries of agents that are not alive. ``restore`` rebuilds an
    episode exactly from its seed and its actions so far, int64 ``[t, n]``: so a world is checkpointed.

    With ``rollouts`` above 1 the world is that many copies in lock-step: observations, rewards and actions
    then have an axis of rollouts behind that of the agents.
    """

    @property
    def rollouts(self) -> int: ...

    @property
    def agents(self) -> Sequence[AgentSpec]: ...

    @property
    def default_action(self) -> int: ...

    @property
    def episode_steps(self) -> int: ...

    def reset(self, seed: int) -> WorldStep: ...

    def step(self, actions: NDArray[np.int64]) -> WorldStep: ...

    def restore(self, seed: int, actions: NDArray[np.int64]) -> WorldStep: ...

    def episode_summary(self) -> dict[str, float]: ...

    def render(self) -> NDArray[np.uint8]: ...


def mean_over_rollouts(rewards: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[n]`` of rewards ``[n]`` or ``[n, rollouts]``."""
    return rewards if rewards.ndim == 1 else rewards.mean(axis=1)
