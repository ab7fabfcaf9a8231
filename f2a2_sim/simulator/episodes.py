"""The world's episodes: observations to the devices, actions to the world, and the step that follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from f2a2_sim.simulator.agenda import LATE
from f2a2_sim.simulator.computing import Computing
from f2a2_sim.simulator.parts import Context, IntArray
from f2a2_sim.simulator.play import Play
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.switching import Switching
from f2a2_sim.simulator.training import Training


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

        self.play = Play(context.parts.world, context.parts.streams, context.stopwatch)
        self._ready = np.zeros(n, dtype=np.bool_)
        self._awaited: set[int] = set()
        self._latest_arrival_s = 0.0
        self._due_s = math.inf
        context.agenda.handle({"observe": self._on_observe, "world_step": self._on_world_step})

    def begin(self) -> None:
        """Begin the next episode, now."""
        self.play.begin_episode()
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
        self._agenda.at(self._due_s, "world_step", self.play.env_steps, priority=LATE)

    # -- from the world to the agents ----------------------------------------------------------------

    def _on_observe(self, _subject: int, _detail: int) -> None:
        """Observations reach the devices: they store what happened, learn if it is time, and act."""
        play, population = self.play, self._parts.population
        step = play.step
        active = self._presence.active()
        self._hear()
        if play.steps > 0:
            remembering = np.flatnonzero(play.acted & active)
            self._computing.compute_updates_of(population.about_to_remember(remembering))
            with self._stopwatch.part("learning"):
                population.observe(step.observations)
                population.remember(remembering, step.rewards, step.terminated, play.played[-1])
        else:
            self._computing.compute_updates_of(population.about_to_remember(np.empty(0, dtype=np.int64)))
            population.observe(step.observations)
            population.begin_episode(play.env_steps)
        if self._silent_after_death:
            for agent in np.flatnonzero(step.terminated & ~self._presence.silent).tolist():
                self._switching.fall_silent(agent)
            active &= ~self._presence.silent
        if not step.done:
            self._request_actions(np.flatnonzero(step.alive & active))
        if play.steps > 0:
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
        self._computing.request_actions(actors, self.play.env_steps, drop_stale=not self._lockstep)

    def _skip_or_wait(self) -> None:
        """Nobody can act: the world waits for the first device to come back."""
        availability, n = self._parts.availability, len(self._ready)
        back_s = min((availability.next_change_s(agent) for agent in range(n)), default=math.inf)
        if self.play.step.alive.any() and math.isfinite(back_s):
            self._agenda.at(back_s, "world_step", self.play.env_steps, priority=LATE)
        elif not self.play.step.alive.any():
            self._agenda.at(self._agenda.now_s, "world_step", self.play.env_steps)

    # -- from the agents to the world ----------------------------------------------------------------

    def act_done(self, agent: int, number: int) -> None:
        """The action leaves for the world, if that still waits for it."""
        if number != self.play.env_steps or not self.play.step.alive[agent]:
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
        self.play.acted[agent] = False
        self._no_longer_awaited(agent)

    def _no_longer_awaited(self, agent: int) -> None:
        if agent in self._awaited:
            self._awaited.discard(agent)
            if not self._awaited:
                time_s = max(self._latest_arrival_s, self._agenda.now_s)
                self._agenda.at(time_s, "world_step", self.play.env_steps, priority=LATE)

    def _on_world_step(self, number: int, _detail: int) -> None:
        play = self.play
        if number != play.env_steps:
            return
        chosen = play.step.alive & self._ready
        self._computing.compute_acts()
        actions = play.default_actions()
        actions[chosen] = self._parts.population.actions[chosen]
        self._awaited = set()
        play.take_step(actions, chosen)
        if not play.step.done and play.env_steps % self._scenario.record.every_steps == 0:
            self._record(False)
        self._schedule_observation()
        if not self._lockstep and not play.step.done:
            self._schedule_realtime_step()

    def _end(self) -> None:
        self._record(True)
        why = self.play.why_over(self._scenario.duration)
        if why is not None:
            self._stop(why)
        else:
            self.begin()

    # -- checkpoints ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        state = self.play.state()
        state["arrays"]["_ready"] = self._ready
        return {
            **state,
            "due_s": self._due_s,
            "latest_arrival_s": self._latest_arrival_s,
            "awaited": sorted(self._awaited),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.play.load_state(state)
        self._due_s = float(state["due_s"])
        self._latest_arrival_s = float(state["latest_arrival_s"])
        self._awaited = set(state["awaited"])
        self._ready[...] = state["arrays"]["_ready"]
