"""Agents that come, go and come back: the world's side of joining, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment.roll import Roll
from f2a2_sim.deployment.world_links import WorldLinks
from f2a2_sim.scenario.load import dump_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import Seats
from network.errors import EndpointError
from network.keys import agent_name
from network.wire import Message


class Attendance:
    """Keeps the `Roll` up to date."""

    def __init__(
        self,
        scenario: Scenario,
        world: Seats,
        roll: Roll,
        links: WorldLinks,
        clock: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._scenario = scenario
        self._world = world
        self._roll = roll
        self._links = links
        self._clock = clock
        self._log = log
        self.run_id = ""
        """What agents are told of which run this is."""
        self.starts: list[NDArray[np.float32]] | None = None
        """Parameters that each agent begins with, where those are of another run."""

    # ------------------------------------------------------------ what agents say of themselves

    def on_hello(self, message: Message) -> None:
        """An agent is there, for the first time or again."""
        hello = say.read(say.Hello, message)
        if hello is None:
            return
        agent, roll, world = message.sender, self._roll, self._world
        try:
            self._links.check_endpoint(hello.endpoint)
        except EndpointError as error:
            self.refuse(agent, str(error))
            return
        known = roll.endpoints.get(agent)
        welcome = say.Welcome(
            scenario=dump_scenario(self._scenario),
            run_id=self.run_id,
            run_s=self._clock(),
            observation_sizes=[spec.observation_size for spec in world.agents],
            action_counts=[spec.n_actions for spec in world.agents],
            rollouts=world.rollouts,
        )
        start = {} if self.starts is None else {"start": self.starts[agent]}
        self._links.say(agent, "welcome", welcome, start)
        roll.endpoints[agent] = hello.endpoint
        if known != hello.endpoint or roll.absent[agent]:
            if known is not None:
                self._log(f"{agent_name(agent)} is back at {hello.endpoint}, with {hello.updates} updates")
            self.heard_of(agent, silently=True)
            if not roll.missing:
                self.tell_roster()
        elif not roll.missing:
            self.tell_roster([agent])

    def on_ready(self, message: Message) -> None:
        """An agent's links to its peers stand."""
        self._roll.ready.add(message.sender)

    def on_ping(self, message: Message) -> None:
        """An agent asks for the time."""
        ping = say.read(say.Ping, message)
        if ping is not None:
            self._links.say(message.sender, "pong", say.Pong(asked_s=ping.asked_s, run_s=self._clock()))
            self.heard_of(message.sender)

    def refuse(self, agent: int, why: str) -> None:
        """It cannot take part."""
        self._links.say(agent, "refuse", say.Refuse(why=why))

    # ------------------------------------------------------------ who is there

    def lose(self, agent: int, why: str) -> None:
        """The agent is not waited for any more."""
        roll = self._roll
        if not roll.absent[agent]:
            roll.absent[agent] = True
            roll.lost_at_s[agent] = time.monotonic()
            self._log(f"{agent_name(agent)} is absent: {why}")
            self.tell_roster()

    def lose_silent(self, after_s: float) -> None:
        """Those who have not been heard for so long."""
        silent = time.monotonic() - self._roll.heard_s > after_s
        for agent in np.flatnonzero(silent & ~self._roll.absent).tolist():
            self.lose(agent, f"silent for {after_s:g} s")

    def heard_of(self, agent: int, silently: bool = False) -> None:
        """An agent takes part, perhaps again; ``silently``: the caller says so."""
        roll = self._roll
        if roll.absent[agent] and agent in roll.endpoints:
            roll.absent[agent] = False
            now_s = time.monotonic()
            gone_s = now_s - roll.lost_at_s.pop(agent, now_s)
            roll.off_s[agent] += gone_s
            if not silently:
                self._log(f"{agent_name(agent)} takes part again after {gone_s:.1f} s")
                self.tell_roster()

    def tell_roster(self, agents: list[int] | None = None) -> None:
        """Tell ``agents``, or everybody, where all are, and who is there."""
        roster = say.Roster(
            endpoints={str(agent): endpoint for agent, endpoint in self._roll.endpoints.items()},
            absent=np.flatnonzero(self._roll.absent).tolist(),
        )
        for agent in agents if agents is not None else sorted(self._roll.endpoints):
            self._links.say(agent, "roster", roster)


def names(agents: list[int]) -> str:
    """Some of them, in words."""
    some = ", ".join(agent_name(agent) for agent in agents[:10])
    return some + (f" and {len(agents) - 10} more" if len(agents) > 10 else "")
