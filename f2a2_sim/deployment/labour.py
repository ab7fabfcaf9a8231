"""The work of an agent on the processor that it runs on: the same requests as of a modelled device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from devices.compute import Work
from f2a2_sim.deployment.clock import WallAgenda
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.simulator.parts import IntArray
from f2a2_sim.simulator.population import STATISTICS, Population


class Labour:
    """What has been asked for and not been done; acting comes before averaging, and that before updates."""

    def __init__(self, population: Population, agenda: WallAgenda, recorder: Recorder) -> None:
        self._population = population
        self._agenda = agenda
        self._recorder = recorder
        self._acts: list[tuple[IntArray, int]] = []
        self._mixes: list[int] = []
        self._updates: list[int] = []
        self._statistics = dict.fromkeys(STATISTICS, 0.0)
        self._count = 0
        self.busy_s = {"act": 0.0, "learn": 0.0, "mix": 0.0}
        """Seconds spent so far."""
        self.update_s: list[float] = []
        """Seconds of each update since they were last taken."""
        self.may_update: Callable[[], bool] = lambda: True
        """Whether updates that have been asked for may be made now."""

    def when_done(
        self, act: Callable[[int, int], None], update: Callable[[int], None], mix: Callable[[int], None]
    ) -> None:
        """Who is told of finished work: of an action (agent, step), an update, a consensus step (agent)."""
        self._act_done, self._update_done, self._mix_done = act, update, mix

    def request_actions(self, agents: IntArray, step: int) -> None:
        self._acts.append((agents, step))

    def request_updates(self, agents: IntArray) -> None:
        self._updates.extend(agents.tolist())

    def request_mix(self, agent: int, work: Work) -> None:
        self._mixes.append(agent)

    @property
    def owes(self) -> bool:
        """Whether updates that have been asked for wait until they may be made."""
        return bool(self._updates)

    def act(self) -> None:
        """Choose the actions that have been asked for."""
        while self._acts:
            agents, step = self._acts.pop(0)
            self._act(agents)
            for agent in agents.tolist():
                self._act_done(agent, step)

    def work_off(self) -> None:
        """Do all that has been asked for, and what follows from it."""
        while True:
            self.act()
            if self._mixes:
                agent = self._mixes.pop(0)
                began = time.perf_counter()
                self._mix_done(agent)
                self.busy_s["mix"] += self._done(agent, "learn", began)
            elif self._updates and self.may_update():
                agents = np.array(sorted(self._updates))
                self._updates = []
                self._update(agents)
                for agent in agents.tolist():
                    self._update_done(agent)
            else:
                return

    def _act(self, agents: IntArray) -> None:
        began = time.perf_counter()
        self._population.settle_before_reading()
        self._population.act(agents)
        self.busy_s["act"] += self._done(int(agents[0]), "act", began)

    def _update(self, agents: IntArray) -> None:
        began = time.perf_counter()
        self._population.settle()
        settled = time.perf_counter()
        sums = self._population.update(agents)
        update_s = self._done(int(agents[0]), "learn", settled)
        self.busy_s["mix"] += settled - began
        self.busy_s["learn"] += update_s
        self.update_s.append(update_s)
        for name, value in sums.items():
            self._statistics[name] += value
        self._count += len(agents)

    def _done(self, agent: int, kind: str, began: float) -> float:
        """How long something took that has just ended; it is put on record, and it is later now."""
        took_s = time.perf_counter() - began
        self._agenda.look()
        self._recorder.event(agent, kind, self._agenda.now_s - took_s, self._agenda.now_s)
        return took_s

    def take_statistics(self) -> tuple[dict[str, float], int, list[float]]:
        """Sums over the updates since this was last called, how many there were, and how long each took."""
        taken = self._statistics, self._count, self.update_s
        self._statistics, self._count, self.update_s = dict.fromkeys(STATISTICS, 0.0), 0, []
        return taken


def mean_of(sums: list[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Means of many agents' statistics; NaN where there were no updates."""
    count = sum(n for _, n in sums)
    return {name: (sum(s[name] for s, n in sums if n) / count if count else math.nan) for name in STATISTICS}
