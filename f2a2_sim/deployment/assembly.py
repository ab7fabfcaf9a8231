"""Puts one agent together from the simulation's parts, on a real clock, processor and network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from f2a2_sim.deployment.clock import RunClock, WallAgenda
from f2a2_sim.deployment.hearsay import Hearsay
from f2a2_sim.deployment.labour import Labour
from f2a2_sim.deployment.links import AgentLinks
from f2a2_sim.deployment.messages import Welcome
from f2a2_sim.deployment.notes import Notes
from f2a2_sim.deployment.policies import Policies
from f2a2_sim.deployment.remote import AgentCargo, CopyCargo, RemoteWorld
from f2a2_sim.errors import RunError
from f2a2_sim.learners.base import joint_information
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.randomness import Streams
from f2a2_sim.scenario.fleet import plan_fleet
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_population
from f2a2_sim.simulator.exchange import Exchange
from f2a2_sim.simulator.parts import IntArray, Setting
from f2a2_sim.simulator.population import Fleet, Population
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.simulator.training import Training
from f2a2_sim.worlds.base import AgentSpec
from network.carrier import SimulatedCarrier
from network.zmq_carrier import ZmqCarrier


@dataclass
class AgentParts:
    """What agent ``me`` is made of."""

    me: int
    scenario: Scenario
    world: RemoteWorld
    sees_all: bool
    """Whether the world tells it everybody's observations and actions."""
    streams: Streams
    agenda: WallAgenda
    carrier: ZmqCarrier
    population: Population
    fleet: Fleet
    row: int
    """Its own, in its fleet."""
    recorder: Notes
    presence: Presence
    labour: Labour
    exchange: Exchange
    training: Training
    policies: Policies | None
    """Of the others, where learners know each other's."""
    hearsay: Hearsay | None
    """Of the others' steps, where learners know those by message."""

    @property
    def n_agents(self) -> int:
        return self.carrier.n_agents

    @property
    def updates(self) -> int:
        """Updates that it has made."""
        return int(self.training.updates[self.me])

    def peers(self) -> IntArray:
        """Those whom the agent sends something to: its neighbours, or everybody where policies are told."""
        if self.policies is None:
            neighbours: IntArray = self.carrier.out_neighbours(self.me)
            return neighbours
        everybody = np.arange(self.n_agents)
        others: IntArray = everybody[everybody != self.me]
        return others


def assemble(
    me: int,
    welcome: Welcome,
    start: NDArray[Any] | None,
    clock: RunClock,
    links: AgentLinks,
    session: int,
    emulate_network: bool,
) -> AgentParts:
    """The agent at the beginning of the run that the world has welcomed it to.

    ``start``: parameters ``[P]`` to begin with, or those of every agent ``[n, P]``, if not those of the seed.
    Raises RunError for another shape.
    """
    scenario = Scenario.model_validate(yaml.safe_load(welcome.scenario))
    n = len(welcome.action_counts)
    streams = Streams(scenario.seed, dense_ids=n)
    agenda = WallAgenda(clock)
    carrier = ZmqCarrier(
        n,
        me,
        scenario.network.topology,
        streams,
        links.inbox,
        links.outbox,
        session,
        scenario.consensus.max_age_s,
        _emulator(scenario, n) if emulate_network else None,
    )
    sizes = zip(welcome.observation_sizes, welcome.action_counts, strict=True)
    specs = [AgentSpec(f"agent_{k}", size, count) for k, (size, count) in enumerate(sizes)]
    world = RemoteWorld(specs, welcome.rollouts)
    population = build_population(scenario, world, carrier, streams, torch.device("cpu"), here=np.array([me]))
    fleet, row = population.fleet_of(me)
    if start is not None:
        own = fleet.learner.parameters
        if start.dtype != np.float32 or start.shape not in (own.shape[1:], own.shape):
            raise RunError(f"agent {me}: the run starts from {start.shape} parameters, not {own.shape[1:]}")
        fleet.start = torch.from_numpy(np.array(start))
        fleet.begin(np.arange(len(own)))
    hearsay = None
    if scenario.learner.information == "network":
        assert isinstance(fleet.learner, JointFleet)
        hearsay = Hearsay(me, specs, population, fleet.learner.replay)
        population.knowledge = hearsay
    copies = None if fleet.consensus is None else CopyCargo(fleet.consensus)
    carrier.cargo = AgentCargo(copies, hearsay)
    timeline_agents = scenario.record.timeline_agents if scenario.record.timeline_events else 0
    recorder = Notes(timeline_agents)
    presence = Presence(np.ones(n, dtype=np.bool_))
    setting = Setting(scenario, population, carrier, streams, agenda, recorder, Stopwatch())
    labour = Labour(population, agenda, recorder)
    exchange = Exchange(setting, presence, labour)
    training = Training(setting, labour, exchange)
    exchange.when_mixed(training.mixed)
    exchange.when_behind(training.catch_up)
    policies = None
    if isinstance(fleet.learner, JointFleet) and fleet.learner.moa is None:
        timeout_s = scenario.deployment.lockstep_timeout_s
        policies = Policies(fleet.learner, me, timeout_s, scenario.world.mode == "lockstep")
    return AgentParts(
        me=me,
        scenario=scenario,
        world=world,
        sees_all=joint_information(scenario.learner.name) and hearsay is None,
        streams=streams,
        agenda=agenda,
        carrier=carrier,
        population=population,
        fleet=fleet,
        row=row,
        recorder=recorder,
        presence=presence,
        labour=labour,
        exchange=exchange,
        training=training,
        policies=policies,
        hearsay=hearsay,
    )


def _emulator(scenario: Scenario, n: int) -> SimulatedCarrier:
    """The simulated network of the same scenario and seed, with random streams of its own."""
    streams = Streams(scenario.seed, dense_ids=n)
    plan = plan_fleet(scenario, n)
    return SimulatedCarrier(n, scenario.network.topology, plan.links, streams, scenario.network.partitions)
