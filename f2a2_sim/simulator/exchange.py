"""Rounds of consensus: an agent sends its copy, waits for its neighbours if it has to, and combines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from devices.compute import Work
from f2a2_sim.simulator.knowledge import version_of
from f2a2_sim.simulator.parts import IntArray, Setting, Worker
from f2a2_sim.simulator.presence import Presence

_NOBODY: IntArray = np.empty(0, dtype=np.int64)


def mix_work(copies: int, message_bytes: int) -> Work:
    """Cost of averaging so many neighbours' copies with one's own, and of what the scheme does with it."""
    numbers = message_bytes / 4
    return Work(2.0 * numbers * (copies + 2), 4.0 * numbers * (copies + 5), copies + 3)


class Exchange:
    """Messages from their sending to their use, and the waits for them."""

    def __init__(self, context: Setting, presence: Presence, computing: Worker) -> None:
        self._agenda = context.agenda
        self._carrier = context.carrier
        self._population = context.population
        self._recorder = context.recorder
        self._stopwatch = context.stopwatch
        self._presence = presence
        self._computing = computing
        self._waits = context.scenario.consensus.wait == "neighbours"
        self._wait_timeout_s = context.scenario.consensus.wait_timeout_s
        self._ahead = 1 if context.scenario.world.mode == "lockstep" else 0
        self._recorded_agents = context.scenario.record.timeline_agents
        self._mix_works: dict[tuple[int, int], Work] = {}
        self.round = np.zeros(context.n_agents, dtype=np.int64)
        """Number of each agent's newest round, from 1; 0 before the first."""
        self._heard_round = np.zeros(context.n_agents, dtype=np.int64)
        self._in_round = np.zeros(context.n_agents, dtype=np.bool_)
        self._highest_round = 0
        self._waiting_since_s: dict[int, float] = {}
        self._next_mail_s = math.inf
        context.agenda.handle({"mail": self._on_mail, "wait_timeout": self._on_wait_timeout})

    def when_mixed(self, mixed: Callable[[int], None]) -> None:
        """Who is told that an agent's consensus step has been decided, and its device is free again."""
        self._mixed = mixed

    def when_behind(self, behind: Callable[[int], None]) -> None:
        """Who is told that an agent has heard of a later round than its own (see `is_behind`)."""
        self._behind = behind

    def is_behind(self, agent: int) -> bool:
        """Whether an agent that waits for neighbours, and is in no round now, has a copy of a later one.

        Rounds are counted in own updates, and a device that was off has made fewer. If it did not join its
        neighbours' round it would stay out of step for good: they would wait for it in vain, and it would
        average nobody's copies. In lockstep all make as many updates, some a little later than others: there
        a copy of the very next round says nothing.
        """
        known = self.round[agent] + self._ahead
        return bool(self._waits and self._heard_round[agent] > known and not self._in_round[agent])

    def waits(self, agent: int) -> bool:
        """Whether the agent has sent its copy and still waits for its neighbours'."""
        return agent in self._waiting_since_s

    # -- a round -------------------------------------------------------------------------------------

    def begin(self, agent: int) -> None:
        """Send the agent's copy to its neighbours, and combine what it has (now, or when all is there)."""
        carrier, now_s = self._carrier, self._agenda.now_s
        self.round[agent] = max(self.round[agent] + 1, self._heard_round[agent])
        number = int(self.round[agent])
        fleet, row = self._population.fleet_of(agent)
        assert fleet.consensus is not None
        with self._stopwatch.part("network"):
            if number > self._highest_round:
                self._highest_round = number
                carrier.redraw(number)
            neighbours = carrier.out_neighbours(agent)
            in_flight = carrier.versions_in_flight() if fleet.consensus.is_full else _NOBODY
        with self._stopwatch.part("consensus"):
            degree = len(self._population.senders_in(fleet, neighbours))  # others discard what they get
            versions = fleet.consensus.publish(
                np.array([row]), np.array([degree]), np.array([number]), in_flight
            )
        self._broadcast(agent, versions, fleet.consensus.message_bytes)
        if not self._waits:
            self._request_mix(agent, degree)
            return
        self._in_round[agent] = True
        self._waiting_since_s[agent] = now_s
        if self._wait_timeout_s is not None:
            self._agenda.at(now_s + self._wait_timeout_s, "wait_timeout", agent, number)
        self.drain()
        self._recheck([agent])  # the draining may have ended the wait already
        self._schedule_mail()

    def _broadcast(self, agent: int, versions: IntArray, size_bytes: int) -> None:
        with self._stopwatch.part("network"):
            sends = self._carrier.broadcast(self._agenda.now_s, np.array([agent]), versions, size_bytes)
        if agent < self._recorded_agents and not self._recorder.timeline_full:
            started = np.isfinite(sends.tx_start_s)
            self._recorder.events(
                sends.sender[started],
                "send",
                sends.tx_start_s[started],
                sends.tx_end_s[started],
                sends.receiver[started],
                size_bytes,
            )

    def tell_step(self, agent: int, step: int) -> None:
        """Send the neighbours what the agent has seen and chosen, if they can know it in no other way."""
        size_bytes = self._population.step_message_bytes(agent)
        if size_bytes is not None:
            self._broadcast(agent, np.array([version_of(step)]), size_bytes)

    def hear_steps(self) -> None:
        """Hand over what has arrived by now, if steps are told by messages."""
        if self._population.step_message_bytes(0) is not None:
            self.drain()

    def _request_mix(self, agent: int, copies: int) -> None:
        fleet, _ = self._population.fleet_of(agent)
        assert fleet.consensus is not None
        key = (copies, fleet.consensus.message_bytes)
        if key not in self._mix_works:
            self._mix_works[key] = mix_work(*key)
        self._computing.request_mix(agent, self._mix_works[key])

    def mix_done(self, agent: int) -> None:
        """The averaging has taken its time: decide which copies it uses."""
        self.drain()
        fleet, row = self._population.fleet_of(agent)
        assert fleet.consensus is not None
        with self._stopwatch.part("consensus"):
            neighbours = self._population.senders_in(fleet, self._carrier.in_neighbours(agent))
            ages = fleet.consensus.combine(row, self._agenda.now_s, int(self.round[agent]), neighbours)
        self._recorder.ages(ages)
        self._in_round[agent] = False
        self._mixed(agent)

    def drain(self) -> None:
        """Put everything that has arrived by now into its mailbox, and end the waits for it."""
        with self._stopwatch.part("network"):
            arrived = self._carrier.drain(self._agenda.now_s, self._presence.active())
        if len(arrived.receiver) == 0:
            return
        with self._stopwatch.part("consensus"):
            rounds = self._population.deliver(
                arrived.receiver, arrived.sender, arrived.version, arrived.sent_s
            )
        if not self._recorder.timeline_full and bool((arrived.receiver < self._recorded_agents).any()):
            self._recorder.events(
                arrived.receiver, "receive", arrived.arrival_s, arrived.arrival_s, arrived.sender
            )
        if self._waits:
            np.maximum.at(self._heard_round, arrived.receiver, rounds)
            receivers = sorted(set(arrived.receiver.tolist()))
            self._recheck(receivers)
            for agent in receivers:
                if self._heard_round[agent] > self.round[agent]:
                    self._behind(agent)

    # -- waiting for neighbours ----------------------------------------------------------------------

    def _release_if_complete(self, agent: int) -> None:
        """End the wait of an agent that has a copy of its round from every active neighbour."""
        fleet, row = self._population.fleet_of(agent)
        assert fleet.consensus is not None
        presence = self._presence
        senders = self._carrier.in_neighbours(agent)
        senders = senders[presence.powered[senders] & ~presence.silent[senders]]
        senders = self._population.senders_in(fleet, senders)
        if fleet.consensus.has_round(row, senders, int(self.round[agent])):
            self._end_wait(agent, len(senders))

    def _end_wait(self, agent: int, copies: int) -> None:
        since_s = self._waiting_since_s.pop(agent)
        if agent < self._recorded_agents:
            self._recorder.event(agent, "wait", since_s, self._agenda.now_s)
        self._request_mix(agent, copies)

    def _recheck(self, agents: Iterable[int]) -> None:
        """See whether any of these agents waits no longer."""
        for agent in agents:
            if agent in self._waiting_since_s and self._presence.is_active(agent):
                self._release_if_complete(agent)

    def _schedule_mail(self) -> None:
        """While anybody waits, wake up at every arrival."""
        if not self._waiting_since_s:
            return
        arrival_s, now_s = self._carrier.next_arrival_s(), self._agenda.now_s
        if math.isfinite(arrival_s) and (arrival_s < self._next_mail_s or self._next_mail_s <= now_s):
            self._next_mail_s = arrival_s
            self._agenda.at(max(arrival_s, now_s), "mail")

    def _on_mail(self, _subject: int, _detail: int) -> None:
        self._next_mail_s = math.inf
        self.drain()
        self._schedule_mail()

    def wait_anew(self) -> None:
        """After a process has come back: who waited for neighbours begins to wait now."""
        now_s = self._agenda.now_s
        for agent in list(self._waiting_since_s):
            self._waiting_since_s[agent] = now_s
            if self._wait_timeout_s is not None:
                number = int(self.round[agent])
                self._agenda.at(now_s + self._wait_timeout_s, "wait_timeout", agent, number)

    def _on_wait_timeout(self, agent: int, number: int) -> None:
        if agent in self._waiting_since_s and int(self.round[agent]) == number:
            self._end_wait(agent, len(self._carrier.in_neighbours(agent)))

    # -- agents that come and go ---------------------------------------------------------------------

    def stop_sending(self, agent: int) -> None:
        """A device goes off: messages that wait for its transmitter are dropped."""
        with self._stopwatch.part("network"):
            self._carrier.sender_off(self._agenda.now_s, np.array([agent]))

    def left(self) -> None:
        """Somebody is active no more: who waited for nobody else goes on."""
        self._recheck(list(self._waiting_since_s))

    def forget(self, agent: int) -> None:
        """A crash: the agent waits for nothing."""
        self._in_round[agent] = False
        self._waiting_since_s.pop(agent, None)

    # -- checkpoints ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "heard_round": self._heard_round,
            "in_round": self._in_round,
            "highest_round": self._highest_round,
            "waiting_since_s": self._waiting_since_s,
            "next_mail_s": self._next_mail_s,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.round[...] = state["round"]
        self._heard_round[...] = state["heard_round"]
        self._in_round[...] = state["in_round"]
        self._highest_round = int(state["highest_round"])
        self._waiting_since_s = {int(a): float(t) for a, t in state["waiting_since_s"].items()}
        self._next_mail_s = float(state["next_mail_s"])
