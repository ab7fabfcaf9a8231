"""The simulator's driver: what happens to devices, agents, messages and the world, in virtual time.

Events are plain data on an :class:`Agenda`. Costly arithmetic is put off until somebody needs its
result, so that work which overlaps in virtual time is computed as one batch:

* an action that a device has begun to choose is computed before the world or an update needs it,
* an update that a device has begun is computed when the first of those under way is finished.

Neither changes any result: a device computes one thing at a time, so nobody reads its parameters
in between, and what an update uses (its replay) is closed while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.availability import AvailabilityModel
from devices.compute import ComputeModel, Work
from devices.energy import PowerModel
from devices.unit import ACT, LEARN, ComputeUnits, Run
from f2a2_sim.randomness import Streams
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.agenda import LATE, Agenda
from f2a2_sim.simulator.population import STATISTICS, Population
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.worlds.base import World, WorldStep
from network.carrier import SimulatedCarrier

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

UPDATE = 0
MIX = 1

_COUNTED = ("hits", "kills", "deaths")
_NOBODY: IntArray = np.empty(0, dtype=np.int64)


@dataclass
class Parts:
    """What a simulation is put together from; see ``build.py``."""

    scenario: Scenario
    world: World
    population: Population
    compute: ComputeModel
    units: ComputeUnits
    power: PowerModel
    availability: AvailabilityModel
    carrier: SimulatedCarrier
    streams: Streams
    profile_names: list[str]
    link_names: list[str]


@dataclass
class Tally:
    """Sums since the last row of metrics, and over the run."""

    statistics: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATISTICS, 0.0))
    statistics_count: int = 0
    updates: int = 0
    missed_deadlines: int = 0


class Simulation:
    """One run in virtual time: :meth:`start` or :meth:`load_state`, then :meth:`step` until ``ended``."""

    def __init__(
        self, parts: Parts, recorder: Recorder, stopwatch: Stopwatch, log: Callable[[str], None]
    ) -> None:
        self.parts = parts
        self.scenario = parts.scenario
        self.recorder = recorder
        self.stopwatch = stopwatch
        self._log = log
        self.agenda = Agenda()
        self.agenda.handle(
            {
                "observe": self._on_observe,
                "world_step": self._on_world_step,
                "work": self._on_work,
                "toggle": self._on_toggle,
                "battery": self._on_battery,
                "mail": self._on_mail,
                "wait_timeout": self._on_wait_timeout,
            }
        )
        n = parts.population.n_agents
        self.n_agents = n
        self.ended: str | None = None
        """Why the run is over; None while it is not."""

        config = self.scenario
        self._lockstep = config.world.mode == "lockstep"
        self._silent_after_death = config.world.after_death == "silent"
        self._default_action = parts.world.default_action
        self._exchanges = config.consensus.scheme != "none"
        self._waits = config.consensus.wait == "neighbours"
        self._has_battery = parts.power.has_battery.tolist()
        self._mix_works: dict[tuple[int, int], Work] = {}

        self.episode = -1
        self.episode_step = 0
        self.env_steps = 0
        self._episode_seed = 0
        self._episode_actions: list[IntArray] = []
        self._step: WorldStep
        self._returns = np.zeros(n)
        self._lifetime_returns = np.zeros(n)
        self._counts = dict.fromkeys(_COUNTED, math.nan)

        self._powered = parts.availability.initially_on()
        self._silent = np.zeros(n, dtype=np.bool_)
        self._off_s = np.zeros(n)
        self._off_since_s = np.where(self._powered, math.inf, 0.0)
        self._battery_generation = np.zeros(n, dtype=np.int64)

        self._ticks = np.zeros(n, dtype=np.int64)
        self._acted = np.zeros(n, dtype=np.bool_)
        self._ready = np.zeros(n, dtype=np.bool_)
        self._awaited: set[int] = set()
        self._latest_arrival_s = 0.0
        self._world_due_s = math.inf
        self._unevaluated_acts: dict[int, None] = {}
        self._unevaluated_updates: dict[int, None] = {}
        self._computed_updates: set[int] = set()
        self._learning = np.zeros(n, dtype=np.bool_)
        self._owed = np.zeros(n, dtype=np.bool_)

        self._round = np.zeros(n, dtype=np.int64)
        self._updates_to_round = np.zeros(n, dtype=np.int64)
        self._highest_round = 0
        self._waiting_since_s: dict[int, float] = {}
        self._next_mail_s = math.inf

        self._updates = np.zeros(n, dtype=np.int64)
        self._actions_taken = np.zeros(n, dtype=np.int64)
        self._missed = np.zeros(n, dtype=np.int64)
        self._tally = Tally()

    # -- running -----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.agenda.now_s

    def start(self) -> None:
        """Begin a new run at time zero."""
        every = np.arange(self.n_agents)
        self._updates_to_round[:] = self._draw_intervals(every)
        for agent in range(self.n_agents):
            if not self._powered[agent]:
                self.parts.units.pause(agent, 0.0)
            else:
                self._schedule_battery(agent, busy=False)
            self._schedule_toggle(agent)
        self._begin_episode()

    def step(self) -> None:
        """Carry out the next event, or end the run if its limit of virtual time comes first."""
        limit_s = self.scenario.duration.virtual_time_s
        due_s = self.agenda.next_time_s()
        if math.isinf(due_s):
            self.stop("nothing is left to happen: every device is off for good")
        elif limit_s is not None and due_s > limit_s:
            self.stop("the limit of virtual time is reached")
        else:
            self.agenda.step()

    def stop(self, reason: str) -> None:
        """End the run where it is."""
        if self.ended is None:
            self.ended = reason

    # -- the world ---------------------------------------------------------------------------------

    def _begin_episode(self) -> None:
        self.episode += 1
        self.episode_step = 0
        self._episode_seed = self.parts.streams.seed_for("episode", self.episode)
        self._episode_actions = []
        self._returns[:] = 0.0
        self._counts = dict.fromkeys(_COUNTED, math.nan)
        self._acted[:] = False
        with self.stopwatch.part("world"):
            self._step = self.parts.world.reset(self._episode_seed)
        if self._silent.any():
            for agent in np.flatnonzero(self._silent).tolist():
                self._silent[agent] = False
                if self._powered[agent]:
                    self._activate(agent)
        world = self.scenario.world
        self.agenda.at(self.now_s + world.observation_latency_s, "observe")
        if not self._lockstep:
            self._schedule_realtime_step()

    def _schedule_realtime_step(self) -> None:
        period_s = self.scenario.world.period_s
        assert period_s is not None
        self._world_due_s = self.now_s + period_s
        self.agenda.at(self._world_due_s, "world_step", self.env_steps, priority=LATE)

    def _on_observe(self, _subject: int, _detail: int) -> None:
        """Observations reach the devices: they store what happened, learn if it is time, and act."""
        step, population = self._step, self.parts.population
        active = self._powered & ~self._silent
        if self.episode_step > 0:
            remembering = np.flatnonzero(self._acted & active)
            self._settle_updates_of(remembering)
            with self.stopwatch.part("learning"):
                population.observe(step.observations)
                if remembering.size:
                    population.remember(remembering, step.rewards, step.terminated)
        else:
            population.observe(step.observations)
        if self._silent_after_death:
            for agent in np.flatnonzero(step.terminated & ~self._silent).tolist():
                self._fall_silent(agent)
            active &= ~self._silent
        if not step.done:
            self._request_actions(np.flatnonzero(step.alive & active))
        if self.episode_step > 0:
            self._tick(np.flatnonzero(active))
        if step.done:
            self._end_episode()

    def _request_actions(self, actors: IntArray) -> None:
        """Let every actor choose an action; in lockstep the world then waits for all of them."""
        self._ready[:] = False
        self._latest_arrival_s = self.now_s
        if self._lockstep:
            self._awaited = set(actors.tolist())
            if not self._awaited:
                self._skip_or_wait()
                return
        units, now_s = self.parts.units, self.now_s
        durations = self._durations(actors, acting=True).tolist()
        for agent, duration_s in zip(actors.tolist(), durations, strict=True):
            if not self._lockstep:
                units.discard_pending(agent, ACT)
            run = units.request(agent, ACT, now_s, duration_s, self.env_steps)
            if run is not None:
                self._begin_work(agent, run)

    def _skip_or_wait(self) -> None:
        """Nobody can act: the world waits for the first device to come back."""
        back_s = min(
            (self.parts.availability.next_change_s(a) for a in range(self.n_agents)), default=math.inf
        )
        if self._step.alive.any() and math.isfinite(back_s):
            self.agenda.at(back_s, "world_step", self.env_steps, priority=LATE)
        elif not self._step.alive.any():
            self.agenda.at(self.now_s, "world_step", self.env_steps)

    def _on_world_step(self, number: int, _detail: int) -> None:
        if number != self.env_steps:
            return
        step, config = self._step, self.scenario.world
        alive = step.alive
        chosen = alive & self._ready
        actions = np.full(self.n_agents, self._default_action, dtype=np.int64)
        self._evaluate_acts()
        actions[chosen] = self.parts.population.actions[chosen]
        missed = alive & ~chosen
        self._missed += missed
        self._tally.missed_deadlines += int(missed.sum())
        self._actions_taken += chosen
        with self.stopwatch.part("world"):
            self._step = self.parts.world.step(actions)
        self._acted = chosen
        self._awaited = set()
        self._episode_actions.append(actions)
        self._returns += self._step.rewards
        for name in _COUNTED:
            if name in self._step.counts:
                old = self._counts[name]
                self._counts[name] = (0.0 if math.isnan(old) else old) + self._step.counts[name]
        self.episode_step += 1
        self.env_steps += 1
        if not self._step.done and self.env_steps % self.scenario.record.every_steps == 0:
            self._record_row(episode_end=False)
        self.agenda.at(self.now_s + config.observation_latency_s, "observe")
        if not self._lockstep and not self._step.done:
            self._schedule_realtime_step()

    def _end_episode(self) -> None:
        self._lifetime_returns += self._returns
        self._record_row(episode_end=True)
        duration = self.scenario.duration
        if duration.episodes is not None and self.episode + 1 >= duration.episodes:
            self.stop("the last episode is over")
        elif duration.env_steps is not None and self.env_steps >= duration.env_steps:
            self.stop("the limit of world steps is reached")
        else:
            self._begin_episode()

    # -- devices -----------------------------------------------------------------------------------

    def _durations(self, agents: IntArray, acting: bool) -> FloatArray:
        population = self.parts.population
        if len(population.fleets) == 1:
            fleet = population.fleets[0]
            work = fleet.act_work if acting else fleet.update_work
            return self.parts.compute.duration_s(agents, work)
        durations = np.empty(len(agents))
        for fleet, _, positions in population.split(agents):
            work = fleet.act_work if acting else fleet.update_work
            durations[positions] = self.parts.compute.duration_s(agents[positions], work)
        return durations

    def _begin_work(self, agent: int, run: Run) -> None:
        """A device starts (or goes on with) a piece of work."""
        self.agenda.at(run.finish_s, "work", agent)
        if run.kind == ACT:
            self._unevaluated_acts[agent] = None
        elif run.token == UPDATE and agent not in self._computed_updates:
            self._unevaluated_updates[agent] = None
        self._schedule_battery(agent, busy=True)

    def _on_work(self, agent: int, _detail: int) -> None:
        """A piece of work is done."""
        units, now_s = self.parts.units, self.now_s
        if not units.is_due(agent, now_s):
            return
        done = units.running(agent)
        assert done is not None
        if done.kind == LEARN and done.token == UPDATE and agent in self._unevaluated_updates:
            self._evaluate_updates()
        if done.kind == LEARN and done.token == MIX and agent in self._unevaluated_acts:
            self._evaluate_acts()  # chosen with the parameters from before this consensus step
        following = units.finished(agent, now_s)
        if following is not None:
            self._begin_work(agent, following)
        else:
            self._schedule_battery(agent, busy=False)
        if agent < self.scenario.record.timeline_agents:
            self.recorder.event(agent, "act" if done.kind == ACT else "learn", done.start_s, now_s)
        if done.kind == ACT:
            self._act_done(agent, done.token)
        elif done.token == UPDATE:
            self._update_done(agent)
        else:
            self._mix_done(agent)

    def _act_done(self, agent: int, number: int) -> None:
        """The action leaves for the world, if that still waits for it."""
        if number != self.env_steps or not self._step.alive[agent]:
            return
        arrival_s = self.now_s + self.scenario.world.action_latency_s
        if not self._lockstep:
            self._ready[agent] = arrival_s <= self._world_due_s
            return
        self._ready[agent] = True
        self._latest_arrival_s = max(self._latest_arrival_s, arrival_s)
        self._no_longer_awaited(agent)

    def _no_longer_awaited(self, agent: int) -> None:
        if agent in self._awaited:
            self._awaited.discard(agent)
            if not self._awaited:
                time_s = max(self._latest_arrival_s, self.now_s)
                self.agenda.at(time_s, "world_step", self.env_steps, priority=LATE)

    # -- learning ----------------------------------------------------------------------------------

    def _tick(self, agents: IntArray) -> None:
        """One more step of the world has passed; those whose turn it is start an update."""
        self._ticks[agents] += 1
        due = agents[self._ticks[agents] % self.scenario.learner.update_every_steps == 0]
        if due.size == 0:
            return
        due = due[self.parts.population.can_update(due)]
        waiting = [agent for agent in due.tolist() if agent in self._waiting_since_s]
        self._owed[waiting] = True
        free = ~self._learning[due] & ~self._owed[due]
        self._request_updates(due[free])

    def _request_updates(self, agents: IntArray) -> None:
        if agents.size == 0:
            return
        self._learning[agents] = True
        units, now_s = self.parts.units, self.now_s
        durations = self._durations(agents, acting=False).tolist()
        for agent, duration_s in zip(agents.tolist(), durations, strict=True):
            run = units.request(agent, LEARN, now_s, duration_s, UPDATE)
            if run is not None:
                self._begin_work(agent, run)

    def _evaluate_acts(self) -> None:
        """Compute every action that has been begun."""
        if self._unevaluated_acts:
            agents = np.array(sorted(self._unevaluated_acts))
            self._unevaluated_acts = {}
            self._settle_consensus(only_parameters=True)
            with self.stopwatch.part("learning"):
                self.parts.population.act(agents)

    def _evaluate_updates(self) -> None:
        """Compute every update that has been begun, in one batch."""
        self._evaluate_acts()
        agents = np.array(sorted(self._unevaluated_updates))
        self._unevaluated_updates = {}
        self._computed_updates.update(agents.tolist())
        self._settle_consensus(only_parameters=False)
        with self.stopwatch.part("learning"):
            sums = self.parts.population.update(agents)
        for name, value in sums.items():
            self._tally.statistics[name] += value
        self._tally.statistics_count += len(agents)

    def _settle_updates_of(self, agents: IntArray) -> None:
        """Before these agents' replay changes, compute the updates that they have begun."""
        if self._unevaluated_updates and any(a in self._unevaluated_updates for a in agents.tolist()):
            self._evaluate_updates()

    def _settle_consensus(self, only_parameters: bool) -> None:
        with self.stopwatch.part("consensus"):
            if only_parameters:
                self.parts.population.settle_before_reading()
            else:
                self.parts.population.settle()

    def _update_done(self, agent: int) -> None:
        self._computed_updates.discard(agent)
        self._learning[agent] = False
        self._updates[agent] += 1
        self._tally.updates += 1
        if not self._exchanges:
            return
        self._updates_to_round[agent] -= 1
        if self._updates_to_round[agent] <= 0:
            self._updates_to_round[agent] = self._draw_intervals(np.array([agent]))[0]
            self._exchange(agent)

    # -- consensus ---------------------------------------------------------------------------------

    def _draw_intervals(self, agents: IntArray) -> IntArray:
        """Updates until each agent's next round: N(mean, std) rounded, at least 1."""
        interval = self.scenario.consensus.interval
        if interval.std_updates == 0:
            return np.full(len(agents), max(1, round(interval.mean_updates)), dtype=np.int64)
        normal = self.parts.streams.family("interval").normal(agents)[:, 0]
        drawn = np.rint(interval.mean_updates + interval.std_updates * normal)
        return np.maximum(drawn, 1).astype(np.int64)

    def _exchange(self, agent: int) -> None:
        """Send the agent's copy to its neighbours, and combine what it has (now, or when all is there)."""
        carrier, now_s = self.parts.carrier, self.now_s
        self._round[agent] += 1
        number = int(self._round[agent])
        fleet, row = self.parts.population.fleet_of(agent)
        assert fleet.consensus is not None
        with self.stopwatch.part("network"):
            if number > self._highest_round:
                self._highest_round = number
                carrier.redraw()
            neighbours = carrier.out_neighbours(agent)
            in_flight = carrier.versions_in_flight() if fleet.consensus.is_full else _NOBODY
        only = np.array([agent])
        with self.stopwatch.part("consensus"):
            degree = np.array([len(neighbours)])
            versions = fleet.consensus.publish(np.array([row]), degree, np.array([number]), in_flight)
        with self.stopwatch.part("network"):
            size_bytes = fleet.consensus.message_bytes
            sends = carrier.broadcast(now_s, only, versions, size_bytes)
        if agent < self.scenario.record.timeline_agents and not self.recorder.timeline_full:
            started = np.isfinite(sends.tx_start_s)
            self.recorder.events(
                sends.sender[started],
                "send",
                sends.tx_start_s[started],
                sends.tx_end_s[started],
                sends.receiver[started],
                size_bytes,
            )
        if self._waits:
            self._waiting_since_s[agent] = now_s
            timeout_s = self.scenario.consensus.wait_timeout_s
            if timeout_s is not None:
                self.agenda.at(now_s + timeout_s, "wait_timeout", agent, number)
            self._drain()
            self._release_if_complete(agent)
            self._schedule_mail()
        else:
            self._request_mix(agent, len(neighbours))

    def _request_mix(self, agent: int, copies: int) -> None:
        fleet, _ = self.parts.population.fleet_of(agent)
        assert fleet.consensus is not None
        key = (copies, fleet.consensus.message_bytes)
        if key not in self._mix_works:
            numbers = fleet.consensus.message_bytes / 4
            self._mix_works[key] = Work(
                2.0 * numbers * (copies + 2), 4.0 * numbers * (copies + 5), copies + 3
            )
        duration_s = float(self.parts.compute.duration_s(np.array([agent]), self._mix_works[key])[0])
        run = self.parts.units.request(agent, LEARN, self.now_s, duration_s, MIX)
        if run is not None:
            self._begin_work(agent, run)

    def _mix_done(self, agent: int) -> None:
        self._drain()
        population = self.parts.population
        fleet, row = population.fleet_of(agent)
        assert fleet.consensus is not None
        with self.stopwatch.part("consensus"):
            neighbours = population.rows_in(fleet, self.parts.carrier.in_neighbours(agent))
            ages = fleet.consensus.combine(row, self.now_s, int(self._round[agent]), neighbours)
        self.recorder.ages(ages)
        if self._owed[agent]:
            self._owed[agent] = False
            self._request_updates(np.array([agent]))

    def _drain(self) -> None:
        """Put everything that has arrived by now into its mailbox, and end the waits for it."""
        active = self._powered & ~self._silent
        with self.stopwatch.part("network"):
            arrived = self.parts.carrier.drain(self.now_s, active)
        if len(arrived.receiver) == 0:
            return
        population = self.parts.population
        with self.stopwatch.part("consensus"):
            population.deliver(arrived.receiver, arrived.sender, arrived.version, arrived.sent_s)
        if not self.recorder.timeline_full:
            self.recorder.events(
                arrived.receiver, "receive", arrived.sent_s, arrived.arrival_s, arrived.sender
            )
        if self._waiting_since_s:
            self._recheck_waits(arrived.receiver.tolist())

    # -- waiting for neighbours --------------------------------------------------------------------

    def _release_if_complete(self, agent: int) -> None:
        """End the wait of an agent that has a copy of its round from every active neighbour."""
        population = self.parts.population
        fleet, row = population.fleet_of(agent)
        assert fleet.consensus is not None
        senders = self.parts.carrier.in_neighbours(agent)
        senders = senders[self._powered[senders] & ~self._silent[senders]]
        rows = population.rows_in(fleet, senders)
        if fleet.consensus.has_round(row, rows, int(self._round[agent])):
            self._end_wait(agent, len(rows))

    def _end_wait(self, agent: int, copies: int) -> None:
        since_s = self._waiting_since_s.pop(agent)
        if agent < self.scenario.record.timeline_agents:
            self.recorder.event(agent, "wait", since_s, self.now_s)
        self._request_mix(agent, copies)

    def _recheck_waits(self, agents: Iterable[int]) -> None:
        """See whether any of these agents waits no longer."""
        for agent in agents:
            if agent in self._waiting_since_s and self._powered[agent] and not self._silent[agent]:
                self._release_if_complete(agent)

    def _schedule_mail(self) -> None:
        """While anybody waits, wake up at every arrival."""
        if not self._waiting_since_s:
            return
        arrival_s = self.parts.carrier.next_arrival_s()
        if math.isfinite(arrival_s) and (arrival_s < self._next_mail_s or self._next_mail_s <= self.now_s):
            self._next_mail_s = arrival_s
            self.agenda.at(max(arrival_s, self.now_s), "mail")

    def _on_mail(self, _subject: int, _detail: int) -> None:
        self._next_mail_s = math.inf
        self._drain()
        self._schedule_mail()

    def _on_wait_timeout(self, agent: int, number: int) -> None:
        if agent in self._waiting_since_s and int(self._round[agent]) == number:
            self._end_wait(agent, len(self.parts.carrier.in_neighbours(agent)))

    # -- availability ------------------------------------------------------------------------------

    def _schedule_toggle(self, agent: int) -> None:
        change_s = self.parts.availability.next_change_s(agent)
        if math.isfinite(change_s):
            self.agenda.at(change_s, "toggle", agent)

    def _on_toggle(self, agent: int, _detail: int) -> None:
        availability = self.parts.availability
        if availability.next_change_s(agent) != self.now_s:
            return
        on, _ = availability.toggle(agent, self.now_s)
        if on:
            self._switch_on(agent)
        else:
            self._switch_off(agent, crash=availability.on_drop(agent) == "crash")
        self._schedule_toggle(agent)

    def _switch_on(self, agent: int) -> None:
        now_s = self.now_s
        self._drain()
        self._powered[agent] = True
        if agent < self.scenario.record.timeline_agents:
            self.recorder.event(agent, "off", float(self._off_since_s[agent]), now_s)
        self._off_s[agent] += now_s - self._off_since_s[agent]
        self._off_since_s[agent] = math.inf
        self._schedule_battery(agent, busy=False)
        if not self._silent[agent]:
            self._activate(agent)

    def _switch_off(self, agent: int, crash: bool) -> None:
        now_s = self.now_s
        if not self._silent[agent]:
            self._deactivate(agent)
        if crash:
            self._lose_memory(agent)
        self._powered[agent] = False
        self._off_since_s[agent] = now_s
        self._battery_generation[agent] += 1
        self._recheck_waits(list(self._waiting_since_s))

    def _fall_silent(self, agent: int) -> None:
        """Its agent is dead: the device neither learns nor exchanges until the next episode."""
        if self._powered[agent]:
            self._deactivate(agent)
        self._silent[agent] = True
        self._recheck_waits(list(self._waiting_since_s))

    def _activate(self, agent: int) -> None:
        """A device goes on; messages that arrived meanwhile were dropped."""
        if self._waits:
            active = self._powered & ~self._silent
            self._round[agent] = self._round[active].max(initial=self._round[agent])
        run = self.parts.units.resume(agent, self.now_s)
        if run is not None:
            self._begin_work(agent, run)

    def _deactivate(self, agent: int) -> None:
        """A device stops: what has arrived by now it still has, what has not left it is lost."""
        self._drain()
        now_s = self.now_s
        with self.stopwatch.part("network"):
            self.parts.carrier.sender_off(now_s, np.array([agent]))
        self.parts.units.pause(agent, now_s)
        self._ready[agent] = False
        self._acted[agent] = False
        self._no_longer_awaited(agent)

    def _lose_memory(self, agent: int) -> None:
        """A crash: unfinished work, replay, optimiser, duals and mailbox are gone."""
        self._unevaluated_acts.pop(agent, None)
        self._unevaluated_updates.pop(agent, None)
        self._computed_updates.discard(agent)
        self.parts.units.crash(agent, self.now_s)
        self._learning[agent] = False
        self._owed[agent] = False
        self._waiting_since_s.pop(agent, None)
        with self.stopwatch.part("consensus"):
            self.parts.population.crash(agent)

    def _schedule_battery(self, agent: int, busy: bool) -> None:
        """The draw has changed: foresee anew when the battery is empty."""
        if not self._has_battery[agent]:
            return
        self._battery_generation[agent] += 1
        now_s = self.now_s
        on_s = now_s - float(self._off_s[agent])
        lasts_s = self.parts.power.lasts_s(agent, on_s, self.parts.units.busy_time_s(agent, now_s), busy)
        if math.isfinite(lasts_s):
            self.agenda.at(now_s + lasts_s, "battery", agent, int(self._battery_generation[agent]))

    def _on_battery(self, agent: int, generation: int) -> None:
        if int(self._battery_generation[agent]) != generation or not self._powered[agent]:
            return
        self._log(f"device {agent}: battery empty")
        self.parts.availability.retire(agent)
        self._switch_off(agent, crash=False)

    # -- recording ---------------------------------------------------------------------------------

    def _record_row(self, episode_end: bool) -> None:
        self._drain()
        outcome = self.parts.world.episode_summary() if episode_end else {}
        row = self.metrics(win=float(outcome.get("win", math.nan)), episode_end=episode_end)
        self.recorder.row(**row)
        self._tally.statistics = dict.fromkeys(STATISTICS, 0.0)
        self._tally.statistics_count = 0
        if episode_end:
            self.recorder.episode(
                **{name: row[name] for name in _SHARED_WITH_EPISODES},
                return_std=float(self._returns.std()),
                return_min=float(self._returns.min()),
                return_max=float(self._returns.max()),
                steps=self.episode_step,
            )

    def metrics(self, win: float = math.nan, episode_end: bool = False) -> dict[str, Any]:
        """The present values of the columns of ``metrics.parquet``."""
        tally, population, now_s = self._tally, self.parts.population, self.now_s
        count = tally.statistics_count
        means = {name: (value / count if count else math.nan) for name, value in tally.statistics.items()}
        with self.stopwatch.part("consensus"):
            disagreement, dual_norm = population.disagreement(), population.dual_norm()
        fates = self.parts.carrier.counts
        busy_s = self.busy_s()
        on_s = now_s - self.off_s()
        breakdown = self.stopwatch.breakdown_s()
        return {
            "virtual_time_s": now_s,
            "env_steps": self.env_steps,
            "episode": self.episode,
            "episode_step": self.episode_step,
            "episode_end": episode_end,
            "updates": tally.updates,
            "return_mean_per_agent": float(self._returns.mean()),
            **self._counts,
            "alive": int(self._step.alive.sum()),
            "win": win,
            "online": int((self._powered & ~self._silent).sum()),
            **means,
            "dual_norm": dual_norm,
            "disagreement": disagreement,
            "sent": fates.sent,
            "delivered": fates.delivered,
            "lost": fates.lost,
            "queue_dropped": fates.queue_dropped,
            "absent_dropped": fates.absent_dropped,
            "expired": fates.expired,
            "in_flight": fates.in_flight,
            "duplicated": fates.duplicated,
            "bytes_sent": fates.bytes_sent,
            "missed_deadlines": tally.missed_deadlines,
            "utilisation": float(np.mean(busy_s / np.maximum(on_s, 1e-12))) if now_s > 0 else 0.0,
            "energy_j": float(self.parts.power.energy_j(on_s, busy_s).sum()),
            "wall_time_s": self.stopwatch.total_s(),
            **{f"wall_{part}_s": seconds for part, seconds in breakdown.items()},
        }

    def busy_s(self) -> FloatArray:
        """Seconds that each device has computed, ``[n]``."""
        units = self.parts.units
        return units.busy_s(ACT, self.now_s) + units.busy_s(LEARN, self.now_s)

    def off_s(self) -> FloatArray:
        """Seconds that each device has been off, ``[n]``."""
        since_s = np.where(self._powered, self.now_s, self._off_since_s)
        return self._off_s + (self.now_s - since_s)

    def devices_table(self) -> dict[str, Any]:
        """Columns of ``tables/devices.parquet``."""
        units, now_s = self.parts.units, self.now_s
        busy_s, off_s = self.busy_s(), self.off_s()
        on_s = now_s - off_s
        episodes = self.episode + (1 if self.ended is not None and self._step.done else 0)
        return {
            "agent": np.arange(self.n_agents),
            "name": np.array([agent.name for agent in self.parts.world.agents]),
            "profile": np.array(self.parts.profile_names),
            "link": np.array(self.parts.link_names),
            "busy_act_s": units.busy_s(ACT, now_s),
            "busy_learn_s": units.busy_s(LEARN, now_s),
            "off_s": off_s,
            "utilisation": busy_s / np.maximum(on_s, 1e-12),
            "energy_j": self.parts.power.energy_j(on_s, busy_s),
            "battery_empty": self.parts.power.remaining_j(on_s, busy_s) <= 0.0,
            "updates": self._updates,
            "consensus_rounds": self._round,
            "actions": self._actions_taken,
            "missed_deadlines": self._missed,
            "return_mean": self._lifetime_returns / max(episodes, 1),
        }

    def links_table(self) -> dict[str, Any]:
        """Columns of ``tables/links.parquet``."""
        return self.parts.carrier.link_table()

    # -- checkpoints -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that the future depends on; arrays and tensors are views, written out at once."""
        parts = self.parts
        return {
            "agenda": self.agenda.state(),
            "population": parts.population.state(parts.carrier.versions_in_flight()),
            "units": parts.units.state(),
            "compute": parts.compute.state(),
            "availability": parts.availability.state(),
            "carrier": parts.carrier.state(),
            "streams": parts.streams.state(),
            "recorder": self.recorder.state(),
            "stopwatch": self.stopwatch.state(),
            "world": {
                "episode": self.episode,
                "episode_step": self.episode_step,
                "env_steps": self.env_steps,
                "seed": self._episode_seed,
                "actions": np.array(self._episode_actions).reshape(-1, self.n_agents),
                "counts": self._counts,
                "due_s": self._world_due_s,
                "latest_arrival_s": self._latest_arrival_s,
            },
            "arrays": {name: getattr(self, name) for name in _ARRAYS},
            "sets": {
                "awaited": sorted(self._awaited),
                "unevaluated_acts": list(self._unevaluated_acts),
                "unevaluated_updates": list(self._unevaluated_updates),
                "computed_updates": sorted(self._computed_updates),
            },
            "waiting_since_s": self._waiting_since_s,
            "next_mail_s": self._next_mail_s,
            "highest_round": self._highest_round,
            "ended": self.ended,
            "tally": {
                "statistics": self._tally.statistics,
                "statistics_count": self._tally.statistics_count,
                "updates": self._tally.updates,
                "missed_deadlines": self._tally.missed_deadlines,
            },
        }

    def final_state(self) -> dict[str, Any]:
        """What is kept of a run that is over, which nobody can go on with: why, and its policies."""
        return {"ended": self.ended, "population": self.parts.population.policies()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`: the future is the same, bit for bit."""
        parts, world = self.parts, state["world"]
        self.agenda.load_state(state["agenda"])
        parts.population.load_state(state["population"])
        parts.units.load_state(state["units"])
        parts.compute.load_state(state["compute"])
        parts.availability.load_state(state["availability"])
        parts.carrier.load_state(state["carrier"])
        parts.streams.load_state(state["streams"])
        self.recorder.load_state(state["recorder"])
        self.stopwatch.load_state(state["stopwatch"])
        self.episode = int(world["episode"])
        self.episode_step = int(world["episode_step"])
        self.env_steps = int(world["env_steps"])
        self._episode_seed = int(world["seed"])
        self._episode_actions = list(np.array(world["actions"]))
        self._counts = {name: float(value) for name, value in world["counts"].items()}
        self._world_due_s = float(world["due_s"])
        self._latest_arrival_s = float(world["latest_arrival_s"])
        self._step = parts.world.restore(self._episode_seed, np.array(world["actions"]))
        for name in _ARRAYS:
            getattr(self, name)[...] = state["arrays"][name]
        sets = state["sets"]
        self._awaited = set(sets["awaited"])
        self._unevaluated_acts = dict.fromkeys(sets["unevaluated_acts"])
        self._unevaluated_updates = dict.fromkeys(sets["unevaluated_updates"])
        self._computed_updates = set(sets["computed_updates"])
        self._waiting_since_s = {int(a): float(t) for a, t in state["waiting_since_s"].items()}
        self._next_mail_s = float(state["next_mail_s"])
        self._highest_round = int(state["highest_round"])
        self.ended = state["ended"]
        tally = state["tally"]
        self._tally = Tally(
            dict(tally["statistics"]),
            int(tally["statistics_count"]),
            int(tally["updates"]),
            int(tally["missed_deadlines"]),
        )


_SHARED_WITH_EPISODES = (
    "episode",
    "virtual_time_s",
    "env_steps",
    "updates",
    "return_mean_per_agent",
    "hits",
    "kills",
    "deaths",
    "win",
    "disagreement",
)
_ARRAYS = (
    "_returns",
    "_lifetime_returns",
    "_powered",
    "_silent",
    "_off_s",
    "_off_since_s",
    "_battery_generation",
    "_ticks",
    "_acted",
    "_ready",
    "_learning",
    "_owed",
    "_round",
    "_updates_to_round",
    "_updates",
    "_actions_taken",
    "_missed",
)
