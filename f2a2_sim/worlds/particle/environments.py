"""The particle worlds as PettingZoo parallel environments: one rollout, with a time limit."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from f2a2_sim.worlds.particle.base import Observations, Rules
from f2a2_sim.worlds.particle.picture import draw_discs
from f2a2_sim.worlds.particle.rover_tower import RoverTower
from f2a2_sim.worlds.particle.treasure_collection import TreasureCollection

_SIDE = 512  # of a picture, in pixels

Seen = dict[str, NDArray[np.float64]]


class ParticleEnv(ParallelEnv):  # type: ignore[misc]
    """Nobody is ever terminated; after ``max_cycles`` steps (None: as many as MAAC plays) all are truncated.

    Observations are float64 and unscaled, rewards are raw, as in MAAC. ``reset`` without a seed goes on with
    the random numbers at hand.
    """

    def __init__(self, rules: Rules, max_cycles: int | None = None, render_mode: str | None = None) -> None:
        if max_cycles is not None and max_cycles < 1:
            raise ValueError(f"max_cycles = {max_cycles}: expected at least 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode = {render_mode!r}: expected None or 'rgb_array'")
        self.metadata = {"name": rules.name, "render_modes": ["rgb_array"], "render_fps": 10}
        self.max_cycles = rules.episode_steps if max_cycles is None else max_cycles
        self.render_mode = render_mode
        self.possible_agents = list(rules.agents)
        self.agents: list[str] = []
        self.observation_spaces = {
            name: Box(-np.inf, np.inf, (size,), np.float64)
            for name, size in zip(rules.agents, rules.observation_sizes, strict=True)
        }
        self.action_spaces = {name: Discrete(rules.n_actions) for name in rules.agents}
        self._rules = rules
        self._draws = np.random.default_rng()
        self._cycle = 0

    def observation_space(self, agent: str) -> Box:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, dict[str, Any]]]:
        if seed is not None:
            self._draws = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self._cycle = 0
        return self._by_name(self._rules.reset([self._draws])), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[Seen, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        names = self.agents
        if not names:
            return {}, {}, {}, {}, {}
        chosen = np.array([[actions[name] for name in names]], dtype=np.int64)
        observations, rewards = self._rules.step(chosen)
        self._cycle += 1
        over = self._cycle >= self.max_cycles
        if over:
            self.agents = []
        return (
            self._by_name(observations),
            dict(zip(names, rewards[0].tolist(), strict=True)),
            dict.fromkeys(names, False),
            dict.fromkeys(names, over),
            {name: {} for name in names},
        )

    def render(self) -> NDArray[np.uint8] | None:
        """RGB picture, uint8 ``[512, 512, 3]``; None without a render mode."""
        return None if self.render_mode is None else draw_discs(self._rules.discs(), _SIDE)

    def close(self) -> None:
        pass

    def _by_name(self, observations: Observations) -> Seen:
        rows = (row for of_role in observations for row in of_role[0])
        return dict(zip(self.possible_agents, rows, strict=True))


def ctc(max_cycles: int | None = None, render_mode: str | None = None) -> ParticleEnv:
    """Cooperative Treasure Collection: ``collector_0`` to ``_5`` and ``deposit_0``, ``_1``; 100 steps."""
    return ParticleEnv(TreasureCollection(), max_cycles, render_mode)


def rover_tower(max_cycles: int | None = None, render_mode: str | None = None) -> ParticleEnv:
    """Rover Tower: ``rover_0`` to ``_3`` and ``tower_0`` to ``_3``; 25 steps."""
    return ParticleEnv(RoverTower(), max_cycles, render_mode)
