"""Small parallel environments, well and badly behaved, named by tests as 'module:callable'."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from pettingzoo import ParallelEnv

NOT_CALLABLE = 3


class Leavers(ParallelEnv):
    """Agents of three kinds of observation leave at steps 1 (a, terminated), 2 (b, cut off), never (c).

    Rewards: the action taken, plus 0.5 for c if its reset draw is even. The dead get no reward entry.
    """

    def __init__(self, silent: bool = False, limit: int = 5, render_mode: str | None = None) -> None:
        self.possible_agents = ["a", "b", "c"]
        self.agents: list[str] = []
        self.render_mode = render_mode
        self._silent = silent
        self._limit = limit
        spaces: dict[str, Space[Any]] = {
            "a": Box(0, 255, (2, 2), np.uint8),
            "b": Discrete(3, start=1),
            "c": MultiBinary(2),
        }
        self._spaces = spaces

    def observation_space(self, agent: str) -> Space[Any]:
        return self._spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        return Discrete(4, start=1) if agent == "b" else Discrete(3)

    def _see(self) -> dict[str, Any]:
        everything = {
            "a": np.full((2, 2), self._t, np.uint8),
            "b": 1 + self._t % 3,
            "c": np.array([1, self._luck]),
        }
        return {name: everything[name] for name in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = list(self.possible_agents)
        self._t = 0
        self._luck = int(np.random.default_rng(seed).integers(2))
        return self._see(), {name: {"ignored": 1} for name in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        assert set(actions) == set(self.agents)
        assert all(type(a) is int for a in actions.values())
        self._t += 1
        seen = {}
        rewards = {name: float(action) for name, action in actions.items()}
        if "c" in rewards:
            rewards["c"] += 0.5 * (1 - self._luck)
        ended = dict.fromkeys(self.agents, False)
        cut = {name: self._t >= self._limit for name in self.agents}
        seen = self._see()
        if self._t == 1:
            ended["a"] = not self._silent
            self.agents.remove("a")
        if self._t == 2:
            cut["b"] = True
            self.agents.remove("b")
        if self._t == 1 and self._silent:
            del rewards["a"], seen["a"]
        if self._t >= self._limit:
            self.agents = []
        return seen, rewards, ended, cut, {}

    def render(self) -> Any:
        return np.full((4, 6, 3), self._t, np.uint8)


class Odd(Leavers):
    """Leavers with one thing wrong."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self._wrong = wrong
        if wrong == "dict":
            self._spaces["a"] = Dict({"x": Discrete(2)})
        if wrong == "nobody":
            self.possible_agents = []
        if wrong == "refuses":
            raise RuntimeError("no licence")

    def action_space(self, agent: str) -> Space[Any]:
        wrong = {"continuous": Box(-1, 1, (2,)), "many": MultiDiscrete([2, 2])}
        return wrong.get(self._wrong, super().action_space(agent))

    def step(self, actions: dict[str, int]) -> Any:
        result = super().step(actions)
        if self._wrong == "stranger":
            self.agents.append("z")
        if self._wrong == "shape":
            result[0]["b"], result[0]["c"] = 1, np.zeros(5)
        if self._wrong == "blind":
            del result[0]["c"]
        if self._wrong == "falls":
            raise ZeroDivisionError("oops")
        return result


class Same(Leavers):
    """Two agents of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["b", "c"]
        self._spaces["b"] = Discrete(2, start=1)


def not_an_environment() -> dict[str, int]:
    return {}
