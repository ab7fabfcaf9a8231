"""What the devices compute and when; the arithmetic itself is put off until somebody needs its result.

* An action that a device has begun to choose is computed before the world or an update needs it,
* an update that a device has begun is computed when the first of those under way is finished.

Work that overlaps in virtual time is so computed as one batch. Neither changes any result: a device computes
one thing at a time, so nobody reads its parameters in between, and what an update uses (its replay) is closed
while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from devices.compute import Work
from devices.unit import ACT, LEARN, Run
from f2a2_sim.simulator.batteries import Batteries
from f2a2_sim.simulator.parts import Context, FloatArray, IntArray
from f2a2_sim.simulator.population import STATISTICS

_UPDATE = 0
_MIX = 1


class Computing:
    """Requests for work, its events, and what of it has yet to be computed.

    Whoever asks for work is told when it is done: see :meth:`when_done`.
    """

    def __init__(self, context: Context, batteries: Batteries) -> None:
        self._agenda = context.agenda
        self._parts = context.parts
        self._units = context.parts.units
        self._population = context.parts.population
        self._recorder = context.recorder
        self._stopwatch = context.stopwatch
        self._batteries = batteries
        self._recorded_agents = context.scenario.record.timeline_agents
        self._begun_acts: dict[int, None] = {}
        self._begun_updates: dict[int, None] = {}
        self._computed_updates: set[int] = set()
        self._statistics = dict.fromkeys(STATISTICS, 0.0)
        self._statistics_count = 0
        context.agenda.handle({"work": self._on_work})

    def when_done(
        self, act: Callable[[int, int], None], update: Callable[[int], None], mix: Callable[[int], None]
    ) -> None:
        """Who is told of finished work: of an action (agent, step), an update, a consensus step (agent)."""
        self._act_done, self._update_done, self._mix_done = act, update, mix

    # -- asking for work -----------------------------------------------------------------------------

    def request_actions(self, agents: IntArray, step: int, drop_stale: bool) -> None:
        """Let each of ``agents`` choose an action for that step of the world, older ones dropped if asked."""
        durations = self._durations(agents, acting=True).tolist()
        for agent, duration_s in zip(agents.tolist(), durations, strict=True):
            if drop_stale:
                self._units.discard_pending(agent, ACT)
            self._request(agent, ACT, duration_s, step)

    def request_updates(self, agents: IntArray) -> None:
        durations = self._durations(agents, acting=False).tolist()
        for agent, duration_s in zip(agents.tolist(), durations, strict=True):
            self._request(agent, LEARN, duration_s, _UPDATE)

    def request_mix(self, agent: int, work: Work) -> None:
        """The averaging of one consensus step."""
        duration_s = float(self._parts.compute.duration_s(np.array([agent]), work)[0])
        self._request(agent, LEARN, duration_s, _MIX)

    def _request(self, agent: int, kind: int, duration_s: float, token: int) -> None:
        run = self._units.request(agent, kind, self._agenda.now_s, duration_s, token)
        if run is not None:
            self._begin(agent, run)

    def _durations(self, agents: IntArray, acting: bool) -> FloatArray:
        population, compute = self._population, self._parts.compute
        if len(population.fleets) == 1:
            fleet = population.fleets[0]
            return compute.duration_s(agents, fleet.act_work if acting else fleet.update_work)
        durations = np.empty(len(agents))
        for fleet, _, positions in population.split(agents):
            work = fleet.act_work if acting else fleet.update_work
            durations[positions] = compute.duration_s(agents[positions], work)
        return durations

    # -- doing it ------------------------------------------------------------------------------------

    def _begin(self, agent: int, run: Run) -> None:
        """A device starts (or goes on with) a piece of work."""
        self._agenda.at(run.finish_s, "work", agent)
        if run.kind == ACT:
            self._begun_acts[agent] = None
        elif run.token == _UPDATE and agent not in self._computed_updates:
            self._begun_updates[agent] = None
        self._batteries.draw_changed(agent, busy=True)

    def _on_work(self, agent: int, _detail: int) -> None:
        """A piece of work is done."""
        units, now_s = self._units, self._agenda.now_s
        if not units.is_due(agent, now_s):
            return
        done = units.running(agent)
        assert done is not None
        if done.kind == LEARN:
            if done.token == _UPDATE:
                if agent in self._begun_updates:
                    self._compute_updates()
            elif agent in self._begun_acts:
                self.compute_acts()  # chosen with the parameters from before this consensus step
        following = units.finished(agent, now_s)
        if following is not None:
            self._begin(agent, following)
        else:
            self._batteries.draw_changed(agent, busy=False)
        if agent < self._recorded_agents:
            self._recorder.event(agent, "act" if done.kind == ACT else "learn", done.start_s, now_s)
        if done.kind == ACT:
            self._act_done(agent, done.token)
        elif done.token == _UPDATE:
            self._computed_updates.discard(agent)
            self._update_done(agent)
        else:
            self._mix_done(agent)

    def pause(self, agent: int) -> None:
        """The device stops; its work is kept."""
        self._units.pause(agent, self._agenda.now_s)

    def resume(self, agent: int) -> None:
        """The device goes on with what it has been kept from."""
        run = self._units.resume(agent, self._agenda.now_s)
        if run is not None:
            self._begin(agent, run)

    def crash(self, agent: int) -> None:
        """The device loses its work, finished or not."""
        self._begun_acts.pop(agent, None)
        self._begun_updates.pop(agent, None)
        self._computed_updates.discard(agent)
        self._units.crash(agent, self._agenda.now_s)

    # -- computing it --------------------------------------------------------------------------------

    def compute_acts(self) -> None:
        """Compute every action that has been begun."""
        if self._begun_acts:
            agents = np.array(sorted(self._begun_acts))
            self._begun_acts = {}
            with self._stopwatch.part("consensus"):
                self._population.settle_before_reading()
            with self._stopwatch.part("learning"):
                self._population.act(agents)

    def compute_updates_of(self, agents: IntArray) -> None:
        """Before these agents' replay changes, compute the updates that they have begun."""
        if self._begun_updates and any(agent in self._begun_updates for agent in agents.tolist()):
            self._compute_updates()

    def _compute_updates(self) -> None:
        """Compute every update that has been begun, in one batch."""
        self.compute_acts()
        agents = np.array(sorted(self._begun_updates))
        self._begun_updates = {}
        self._computed_updates.update(agents.tolist())
        with self._stopwatch.part("consensus"):
            self._population.settle()
        with self._stopwatch.part("learning"):
            sums = self._population.update(agents)
        for name, value in sums.items():
            self._statistics[name] += value
        self._statistics_count += len(agents)

    def mean_statistics(self) -> dict[str, float]:
        """Of the updates computed since :meth:`forget_statistics`; NaN if there were none."""
        count = self._statistics_count
        return {name: (value / count if count else math.nan) for name, value in self._statistics.items()}

    def forget_statistics(self) -> None:
        self._statistics = dict.fromkeys(STATISTICS, 0.0)
        self._statistics_count = 0

    # -- checkpoints ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "begun_acts": list(self._begun_acts),
            "begun_updates": list(self._begun_updates),
            "computed_updates": sorted(self._computed_updates),
            "statistics": self._statistics,
            "statistics_count": self._statistics_count,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._begun_acts = dict.fromkeys(state["begun_acts"])
        self._begun_updates = dict.fromkeys(state["begun_updates"])
        self._computed_updates = set(state["computed_updates"])
        self._statistics = dict(state["statistics"])
        self._statistics_count = int(state["statistics_count"])
