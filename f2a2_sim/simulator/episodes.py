"""The world's episodes: observations to the devices, actions to the world, and the step that follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from f2a2_sim.simulator.agenda import LATE
from f2a2_sim.simulator.computing import Computing
from f2a2_sim.simulator.parts import Context, IntArray
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.switching import Switching
from f2a2_sim.simulator.training import Training
from f2a2_sim.worlds.base import WorldStep, mean_over_rollouts

_COUNTED = ("hits", "kills", "deaths")


class Episodes:
    """One world, one step after the other, until a limit of the scenario is reached.

    ``tell`` is called when an agent (its number, that of the step) has seen and chosen, for the others to
    hear of it, and ``hear`` before that is needed. ``record`` is called where a row of metrics is due (True:
    at the end of an episode), ``stop`` with the reason when the last step has been taken.
    """

    def __init__(
        self,
        context: Context,
        presence: Presence,
        computing: Computing,
        training: Training,
        switching: Switching,
        tell: Callable[[int, int], None],
        hear: Callable[[], None],
        record: Callable[[bool], None],
        stop: Callable[[str], None],
    ) -> None:
        n = context.n_agents
        self._parts = context.parts
        self._agenda = context.agenda
        self._stopwatch = context.stopwatch
        self._scenario = context.scenario
        self._presence = presence
        self._computing = computing
        self._training = training
        self._switching = switching
        self._tell = tell
        self._hear = hear
        self._record = record
        self._stop = stop
        self._lockstep = context.scenario.world.mode == "lockstep"
        self._silent_after_death = context.scenario.world.after_death == "silent"

        self.number = -1
        self.steps = 0
        """Steps of the world in this episode."""
        self.env_steps = 0
        """Steps of the world in the whole run."""
        self.step: WorldStep
        """What the world showed last."""
        self.returns = np.zeros(n)
        """Of this episode; with several rollouts, their mean."""
        self.lifetime_returns = np.zeros(n)
        """Of all finished episodes together."""
        self.counts = dict.fromkeys(_COUNTED, math.nan)
        self.actions_taken = np.zeros(n, dtype=np.int64)
        self.missed = np.zeros(n, dtype=np.int64)
        """Steps at which each agent was alive, and its action was not there."""
        self._seed = 0
        self._actions: list[IntArray] = []
        self._acted = np.zeros(n, dtype=np.bool_)
        self._ready = np.zeros(n, dtype=np.bool_)
        self._awaited: set[int] = set()
        self._latest_arrival_s = 0.0
        self._due_s = math.inf
        context.agenda.handle({"observe": self._on_observe, "world_step": self._on_world_step})

    def begin(self) -> None:
        """Begin the next episode, now."""
        self.number += 1
        self.steps = 0
        self._seed = self._parts.streams.seed_for("episode", self.number)
        self._actions = []
        self.returns[:] = 0.0
        self.counts = dict.fromkeys(_COUNTED, math.nan)
        self._acted[:] = False
        with self._stopwatch.part("world"):
            self.step = self._parts.world.reset(self._seed)
        self._switching.wake()
        self._schedule_observation()
        if not self._lockstep:
            self._schedule_realtime_step()

    def _schedule_observation(self) -> None:
        self._agenda.at(self._agenda.now_s + self._scenario.world.observation_latency_s, "observe")

    def _schedule_realtime_step(self) -> None:
        period_s = self._scenario.world.period_s
        assert period_s is not None
        self._due_s = self._agenda.now_s + period_s
        self._agenda.at(self._due_s, "world_step", self.env_steps, priority=LATE)

    # -- from the world to the agents ----------------------------------------------------------------

    def _on_observe(self, _subject: int, _detail: int) -> None:
        """Observations reach the devices: they store what happened, learn if it is time, and act."""
        step, population = self.step, self._parts.population
        active = self._presence.active()
        self._hear()
        if self.steps > 0:
            remembering = np.flatnonzero(self._acted & active)
            self._computing.compute_updates_of(population.about_to_remember(remembering))
            with self._stopwatch.part("learning"):
                population.observe(step.observations)
                population.remember(remembering, step.rewards, step.terminated, self._actions[-1])
        else:
            self._computing.compute_updates_of(population.about_to_remember(np.empty(0, dtype=np.int64)))
            population.observe(step.observations)
            population.begin_episode(self.env_steps)
        if self._silent_after_death:
            for agent in np.flatnonzero(step.terminated & ~self._presence.silent).tolist():
                self._switching.fall_silent(agent)
            active &= ~self._presence.silent
        if not step.done:
            self._request_actions(np.flatnonzero(step.alive & active))
        if self.steps > 0:
            self._training.tick(np.flatnonzero(active))
        if step.done:
            self._end()

    def _request_actions(self, actors: IntArray) -> None:
        """Let every actor choose an action; in lockstep the world then waits for all of them."""
        self._ready[:] = False
        self._latest_arrival_s = self._agenda.now_s
        if self._lockstep:
            self._awaited = set(actors.tolist())
            if not self._awaited:
                self._skip_or_wait()
                return
        self._computing.request_actions(actors, self.env_steps, drop_stale=not self._lockstep)

    def _skip_or_wait(self) -> None:
        """Nobody can act: the world waits for the first device to come back."""
        availability, n = self._parts.availability, len(self._ready)
        back_s = min((availability.next_change_s(agent) for agent in range(n)), default=math.inf)
        if self.step.alive.any() and math.isfinite(back_s):
            self._agenda.at(back_s, "world_step", self.env_steps, priority=LATE)
        elif not self.step.alive.any():
            self._agenda.at(self._agenda.now_s, "world_step", self.env_steps)

    # -- from the agents to the world ----------------------------------------------------------------

    def act_done(self, agent: int, number: int) -> None:
        """The action leaves for the world, if that still waits for it."""
        if number != self.env_steps or not self.step.alive[agent]:
            return
        self._tell(agent, number)
        arrival_s = self._agenda.now_s + self._scenario.world.action_latency_s
        if not self._lockstep:
            self._ready[agent] = arrival_s <= self._due_s
            return
        self._ready[agent] = True
        self._latest_arrival_s = max(self._latest_arrival_s, arrival_s)
        self._no_longer_awaited(agent)

    def left(self, agent: int) -> None:
        """The agent is active no more: the world neither takes its action nor waits for it."""
        self._ready[agent] = False
        self._acted[agent] = False
        self._no_longer_awaited(agent)

    def _no_longer_awaited(self, agent: int) -> None:
        if agent in self._awaited:
            self._awaited.discard(agent)
            if not self._awaited:
                time_s = max(self._latest_arrival_s, self._agenda.now_s)
                self._agenda.at(time_s, "world_step", self.env_steps, priority=LATE)

    def _on_world_step(self, number: int, _detail: int) -> None:
        if number != self.env_steps:
            return
        alive, world = self.step.alive, self._parts.world
        chosen = alive & self._ready
        actions = np.full_like(self._parts.population.actions, world.default_action)
        self._computing.compute_acts()
        actions[chosen] = self._parts.population.actions[chosen]
        self.missed += alive & ~chosen
        self.actions_taken += chosen
        with self._stopwatch.part("world"):
            self.step = world.step(actions)
        self._acted = chosen
        self._awaited = set()
        self._actions.append(actions)
        self.returns += mean_over_rollouts(self.step.rewards)
        for name in _COUNTED:
            if name in self.step.counts:
                old = self.counts[name]
                self.counts[name] = (0.0 if math.isnan(old) else old) + self.step.counts[name]
        self.steps += 1
        self.env_steps += 1
        if not self.step.done and self.env_steps % self._scenario.record.every_steps == 0:
            self._record(False)
        self._schedule_observation()
        if not self._lockstep and not self.step.done:
            self._schedule_realtime_step()

    def _end(self) -> None:
        self.lifetime_returns += self.returns
        self._record(True)
        duration = self._scenario.duration
        if duration.episodes is not None and self.number + 1 >= duration.episodes:
            self._stop("the last episode is over")
        elif duration.env_steps is not None and self.env_steps >= duration.env_steps:
            self._stop("the limit of world steps is reached")
        else:
            self.begin()

    # -- checkpoints ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The world itself is the seed and the actions of the present episode."""
        return {
            "episode": self.number,
            "episode_step": self.steps,
            "env_steps": self.env_steps,
            "seed": self._seed,
            "actions": np.array(self._actions).reshape(-1, *self._parts.population.actions.shape),
            "counts": self.counts,
            "due_s": self._due_s,
            "latest_arrival_s": self._latest_arrival_s,
            "awaited": sorted(self._awaited),
            "arrays": {name: getattr(self, name) for name in _ARRAYS},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.number = int(state["episode"])
        self.steps = int(state["episode_step"])
        self.env_steps = int(state["env_steps"])
        self._seed = int(state["seed"])
        self._actions = list(np.array(state["actions"]))
        self.counts = {name: float(value) for name, value in state["counts"].items()}
        self._due_s = float(state["due_s"])
        self._latest_arrival_s = float(state["latest_arrival_s"])
        self._awaited = set(state["awaited"])
        for name in _ARRAYS:
            getattr(self, name)[...] = state["arrays"][name]
        self.step = self._parts.world.restore(self._seed, np.array(state["actions"]))


_ARRAYS = ("returns", "lifetime_returns", "actions_taken", "missed", "_acted", "_ready")
