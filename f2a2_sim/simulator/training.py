"""When an agent learns: every few steps of the world an update, and after every few updates a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from f2a2_sim.simulator.exchange import Exchange
from f2a2_sim.simulator.parts import IntArray, Setting, Worker


class Training:
    """Each agent's turn to update, and its turn to exchange."""

    def __init__(self, context: Setting, computing: Worker, exchange: Exchange) -> None:
        n = context.n_agents
        self._population = context.population
        self._intervals = context.streams.family("interval")
        self._computing = computing
        self._exchange = exchange
        self._every_steps = context.scenario.learner.update_every_steps
        self._interval = context.scenario.consensus.interval
        self._waits = context.scenario.consensus.wait == "neighbours"
        self._exchanges = context.scenario.consensus.scheme != "none"
        self.updates = np.zeros(n, dtype=np.int64)
        """Updates that each agent has finished."""
        self._ticks = np.zeros(n, dtype=np.int64)
        self._updating = np.zeros(n, dtype=np.bool_)
        self._owed = np.zeros(n, dtype=np.bool_)
        self._updates_to_round = np.zeros(n, dtype=np.int64)

    def start(self) -> None:
        """Draw when each agent's first round is."""
        self._updates_to_round[:] = self._draw_intervals(np.arange(len(self.updates)))

    def tick(self, agents: IntArray) -> None:
        """One more step of the world has passed; those whose turn it is start an update."""
        self._ticks[agents] += 1
        due = agents[self._ticks[agents] % self._every_steps == 0]
        if due.size == 0:
            return
        due = due[self._population.can_update(due)]
        waiting = [agent for agent in due.tolist() if self._exchange.waits(agent)]
        self._owed[waiting] = True
        free = ~self._updating[due] & ~self._owed[due]
        self._request(due[free])

    def _request(self, agents: IntArray) -> None:
        if agents.size:
            self._updating[agents] = True
            self._computing.request_updates(agents)

    def update_done(self, agent: int) -> None:
        self._updating[agent] = False
        self.updates[agent] += 1
        if not self._exchanges:
            return
        self._updates_to_round[agent] -= 1
        if self._updates_to_round[agent] <= 0 or self._exchange.is_behind(agent):
            self._begin_round(agent)

    def _begin_round(self, agent: int) -> None:
        self._count_anew(agent)
        self._exchange.begin(agent)

    def _count_anew(self, agent: int) -> None:
        self._updates_to_round[agent] = self._draw_intervals(np.array([agent]))[0]

    def catch_up(self, agent: int) -> None:
        """An agent that is behind joins its neighbours' round, at once or after the update under way."""
        if self._exchange.is_behind(agent) and not self._updating[agent]:
            self._begin_round(agent)

    def join(self, agent: int) -> None:
        """An agent is active again. If it waits for neighbours, it is they who call the next round."""
        if self._waits:
            self._count_anew(agent)

    def mixed(self, agent: int) -> None:
        """The agent's round is over: an update that came due while it waited follows now."""
        if self._owed[agent]:
            self._owed[agent] = False
            self._request(np.array([agent]))
        else:
            self.catch_up(agent)

    def owes(self, agent: int) -> bool:
        """Whether an update came due while the agent waited for its neighbours, and waits for that."""
        return bool(self._owed[agent])

    def is_updating(self, agent: int) -> bool:
        """Whether it has asked for an update that is not done yet."""
        return bool(self._updating[agent])

    def forget(self, agent: int) -> None:
        """A crash: no update is under way or owed."""
        self._updating[agent] = False
        self._owed[agent] = False

    def _draw_intervals(self, agents: IntArray) -> IntArray:
        """Updates until each agent's next round: N(mean, std) rounded, at least 1."""
        interval = self._interval
        if interval.std_updates == 0:
            return np.full(len(agents), max(1, round(interval.mean_updates)), dtype=np.int64)
        normal = self._intervals.normal(agents)[:, 0]
        drawn = np.rint(interval.mean_updates + interval.std_updates * normal)
        return np.maximum(drawn, 1).astype(np.int64)

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _ARRAYS}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name in _ARRAYS:
            getattr(self, name)[...] = state[name]


_ARRAYS = ("updates", "_ticks", "_updating", "_owed", "_updates_to_round")
