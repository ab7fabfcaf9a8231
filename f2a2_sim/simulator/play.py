"""A world that is played: its present episode, and what its steps add up to; simulated or deployed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.randomness import Streams
from f2a2_sim.scenario.schema import DurationConfig
from f2a2_sim.simulator.parts import BoolArray, IntArray
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.worlds.base import World, WorldStep, mean_over_rollouts

COUNTED = ("hits", "kills", "deaths")


class Play:
    """One world, one step after the other; n agents."""

    def __init__(self, world: World, streams: Streams, stopwatch: Stopwatch) -> None:
        n = len(world.agents)
        self._world = world
        self._streams = streams
        self._stopwatch = stopwatch
        self.episode = -1
        """Number of the present episode, from 0; -1 before the first."""
        self.steps = 0
        """Steps of the world in this episode."""
        self.env_steps = 0
        """Steps of the world in the whole run."""
        self.step: WorldStep
        """What the world showed last."""
        self.played: list[IntArray] = []
        """The actions that it took in this episode, each ``[n]``; with several rollouts ``[n, rollouts]``."""
        self.returns = np.zeros(n)
        """Of this episode; with several rollouts, their mean."""
        self.lifetime_returns = np.zeros(n)
        """Of all finished episodes together."""
        self.counts = dict.fromkeys(COUNTED, math.nan)
        """Events of this episode; NaN where the world has no such thing."""
        self.actions_taken = np.zeros(n, dtype=np.int64)
        self.missed = np.zeros(n, dtype=np.int64)
        """Steps at which each agent was alive, and its action was not there."""
        self.acted = np.zeros(n, dtype=np.bool_)
        """Whose action the last step took."""
        self._seed = 0

    @property
    def finished_episodes(self) -> int:
        return self.episode + (1 if self.episode >= 0 and self.step.done else 0)

    def begin_episode(self) -> None:
        self.episode += 1
        self.steps = 0
        self._seed = self._streams.seed_for("episode", self.episode)
        self.played = []
        self.returns[:] = 0.0
        self.counts = dict.fromkeys(COUNTED, math.nan)
        self.acted[:] = False
        with self._stopwatch.part("world"):
            self.step = self._world.reset(self._seed)

    def default_actions(self) -> IntArray:
        """What the world takes of those whose action is not there."""
        n, rollouts = len(self.acted), self._world.rollouts
        shape = (n,) if rollouts == 1 else (n, rollouts)
        return np.full(shape, self._world.default_action, dtype=np.int64)

    def take_step(self, actions: IntArray, acted: BoolArray) -> None:
        """Let the world take ``actions``, of which those of ``acted`` ``[n]`` have been chosen."""
        self.missed += self.step.alive & ~acted
        self.actions_taken += acted
        self.acted = acted
        with self._stopwatch.part("world"):
            self.step = self._world.step(actions)
        self.played.append(actions)
        self.returns += mean_over_rollouts(self.step.rewards)
        for name in COUNTED:
            if name in self.step.counts:
                old = self.counts[name]
                self.counts[name] = (0.0 if math.isnan(old) else old) + self.step.counts[name]
        self.steps += 1
        self.env_steps += 1
        if self.step.done:
            self.lifetime_returns += self.returns

    def why_over(self, duration: DurationConfig) -> str | None:
        """Which limit of episodes or steps the run has reached at the end of an episode; None if none."""
        if duration.episodes is not None and self.episode + 1 >= duration.episodes:
            return "the last episode is over"
        if duration.env_steps is not None and self.env_steps >= duration.env_steps:
            return "the limit of world steps is reached"
        return None

    def metrics(self, episode_end: bool) -> dict[str, Any]:
        """Its columns of ``metrics.parquet``."""
        outcome = self._world.episode_summary() if episode_end else {}
        return {
            "env_steps": self.env_steps,
            "episode": self.episode,
            "episode_step": self.steps,
            "episode_end": episode_end,
            "return_mean_per_agent": float(self.returns.mean()),
            **self.counts,
            "alive": int(self.step.alive.sum()),
            "win": float(outcome.get("win", math.nan)),
            "missed_deadlines": int(self.missed.sum()),
        }

    def of_devices(self) -> dict[str, NDArray[Any]]:
        """Its columns of ``tables/devices.parquet``."""
        return {
            "agent": np.arange(len(self.missed)),
            "name": np.array([agent.name for agent in self._world.agents]),
            "actions": self.actions_taken,
            "missed_deadlines": self.missed,
            "return_mean": self.lifetime_returns / max(self.finished_episodes, 1),
        }

    def state(self) -> dict[str, Any]:
        """The world itself is the seed and the actions of the present episode."""
        return {
            "episode": self.episode,
            "episode_step": self.steps,
            "env_steps": self.env_steps,
            "seed": self._seed,
            "actions": np.array(self.played).reshape(-1, *self.default_actions().shape),
            "counts": self.counts,
            "arrays": self._arrays(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.episode = int(state["episode"])
        self.steps = int(state["episode_step"])
        self.env_steps = int(state["env_steps"])
        self._seed = int(state["seed"])
        self.played = list(np.array(state["actions"]))
        self.counts = {name: float(value) for name, value in state["counts"].items()}
        for name, array in self._arrays().items():
            array[...] = state["arrays"][name]
        self.step = self._world.restore(self._seed, np.array(state["actions"]))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "returns": self.returns,
            "lifetime_returns": self.lifetime_returns,
            "actions_taken": self.actions_taken,
            "missed": self.missed,
            "_acted": self.acted,
        }
