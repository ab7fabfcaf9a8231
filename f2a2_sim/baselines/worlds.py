"""The particle worlds as `ParallelEpisodes`: all rollouts of a training are one batch of the rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.errors import UsageError
from f2a2_sim.randomness import Streams
from f2a2_sim.worlds.particle import RULES
from f2a2_sim.worlds.particle.base import Observations as RoleObservations
from f2a2_sim.worlds.particle.base import Rules


def rules_of(world: str) -> Rules:
    """The rules of that name; UsageError if there are none."""
    if world not in RULES:
        raise UsageError(
            f"world {world}: the baselines are trained in {' or '.join(RULES)}; name one of these"
        )
    return RULES[world]()


class ParticleEpisodes:
    """``rollouts`` copies of a particle world; each draws from a generator of its own.

    Every number observed is clipped to ``[-limit, limit]``, if there is a limit. The roles of these
    worlds are just the groups of neighbouring agents with equal observations.
    """

    def __init__(self, rules: Rules, rollouts: int, streams: Streams, limit: float | None = None) -> None:
        self.rules = rules
        self._limit = limit
        self._generators = [
            np.random.default_rng(streams.seed_for("rollout", number)) for number in range(rollouts)
        ]
        self._begun = False

    @property
    def observation_sizes(self) -> tuple[int, ...]:
        return self.rules.observation_sizes

    @property
    def n_actions(self) -> int:
        return self.rules.n_actions

    @property
    def rollouts(self) -> int:
        return len(self._generators)

    def reset(self) -> list[NDArray[np.float32]]:
        """Begin an episode in all rollouts."""
        self._begun = True
        return self._shown(self.rules.reset(self._generators))

    def step(self, actions: NDArray[np.int64]) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
        observations, rewards = self.rules.step(actions)
        return self._shown(observations), rewards.astype(np.float32)

    def state(self) -> dict[str, Any]:
        """The rules' arrays (None before the first episode), and the generators' states."""
        return {
            "rules": dict(vars(self.rules.state)) if self._begun else None,
            "generators": [generator.bit_generator.state for generator in self._generators],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        if state["rules"] is not None:
            self.reset()
            for name, value in state["rules"].items():
                setattr(self.rules.state, name, np.array(value))
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = saved

    def _shown(self, observations: RoleObservations) -> list[NDArray[np.float32]]:
        if self._limit is not None:
            observations = tuple(np.clip(seen, -self._limit, self._limit) for seen in observations)
        return [seen.astype(np.float32) for seen in observations]
