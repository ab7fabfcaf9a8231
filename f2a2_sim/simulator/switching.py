"""Devices that go on and off, batteries that run out, agents that fall silent: what follows for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from f2a2_sim.simulator.batteries import Batteries
from f2a2_sim.simulator.computing import Computing
from f2a2_sim.simulator.exchange import Exchange
from f2a2_sim.simulator.parts import Context
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.training import Training


class Switching:
    """Carries out every change of :class:`Presence`. It has no state of its own."""

    def __init__(
        self,
        context: Context,
        presence: Presence,
        batteries: Batteries,
        computing: Computing,
        exchange: Exchange,
        training: Training,
    ) -> None:
        self._context = context
        self._agenda = context.agenda
        self._availability = context.parts.availability
        self._presence = presence
        self._batteries = batteries
        self._computing = computing
        self._exchange = exchange
        self._training = training
        context.agenda.handle({"toggle": self._on_toggle, "battery": self._on_battery})

    def when_left(self, left: Callable[[int], None]) -> None:
        """Who is told that an agent is active no more."""
        self._left = left

    def start(self) -> None:
        """At time zero: pause the devices that are off, and foresee the first changes."""
        for agent in range(self._context.n_agents):
            if self._presence.powered[agent]:
                self._batteries.draw_changed(agent, busy=False)
            else:
                self._computing.pause(agent)
            self._schedule_toggle(agent)

    # -- on and off ----------------------------------------------------------------------------------

    def _schedule_toggle(self, agent: int) -> None:
        change_s = self._availability.next_change_s(agent)
        if math.isfinite(change_s):
            self._agenda.at(change_s, "toggle", agent)

    def _on_toggle(self, agent: int, _detail: int) -> None:
        if self._availability.next_change_s(agent) != self._agenda.now_s:
            return
        on, _ = self._availability.toggle(agent, self._agenda.now_s)
        if on:
            self._switch_on(agent)
        else:
            self._switch_off(agent, crash=self._availability.on_drop(agent) == "crash")
        self._schedule_toggle(agent)

    def _on_battery(self, agent: int, forecast: int) -> None:
        if not self._batteries.holds(agent, forecast) or not self._presence.powered[agent]:
            return
        self._context.log(f"device {agent}: battery empty")
        self._availability.retire(agent)
        self._switch_off(agent, crash=False)

    def _switch_on(self, agent: int) -> None:
        now_s = self._agenda.now_s
        self._exchange.drain()
        since_s = self._presence.switch_on(agent, now_s)
        self._context.recorder.event(agent, "off", since_s, now_s)
        self._batteries.draw_changed(agent, busy=False)
        if not self._presence.silent[agent]:
            self._activate(agent)

    def _switch_off(self, agent: int, crash: bool) -> None:
        if not self._presence.silent[agent]:
            self._deactivate(agent)
        if crash:
            self._lose_memory(agent)
        self._presence.switch_off(agent, self._agenda.now_s)
        self._batteries.forget(agent)
        self._exchange.left()

    def _lose_memory(self, agent: int) -> None:
        """A crash: unfinished work, replay, optimiser, duals and mailbox are gone."""
        self._computing.crash(agent)
        self._training.forget(agent)
        self._exchange.forget(agent)
        with self._context.stopwatch.part("consensus"):
            self._context.parts.population.crash(agent)

    # -- silence -------------------------------------------------------------------------------------

    def fall_silent(self, agent: int) -> None:
        """Its agent is dead: the device neither learns nor exchanges until the next episode."""
        if self._presence.powered[agent]:
            self._deactivate(agent)
            self._batteries.draw_changed(agent, busy=False)
        self._presence.silent[agent] = True
        self._exchange.left()

    def wake(self) -> None:
        """A new episode: nobody is silent any more."""
        for agent in np.flatnonzero(self._presence.silent).tolist():
            self._presence.silent[agent] = False
            if self._presence.powered[agent]:
                self._activate(agent)

    # -- active or not -------------------------------------------------------------------------------

    def _activate(self, agent: int) -> None:
        """An agent takes part again; messages that arrived meanwhile were dropped."""
        self._training.join(agent)
        self._computing.resume(agent)

    def _deactivate(self, agent: int) -> None:
        """An agent stops: what has arrived by now it still has, what has not left it is lost."""
        self._exchange.drain()
        self._exchange.stop_sending(agent)
        self._computing.pause(agent)
        self._left(agent)
