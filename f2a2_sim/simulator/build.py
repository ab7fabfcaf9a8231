"""Puts a simulation together from a scenario."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from devices.availability import AvailabilityModel
from devices.compute import ComputeModel
from devices.energy import PowerModel
from devices.unit import ComputeUnits
from f2a2_sim.consensus.group import ConsensusGroup
from f2a2_sim.learners.base import FleetSetup, make_fleet
from f2a2_sim.randomness import Streams
from f2a2_sim.scenario.fleet import plan_fleet
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.parts import Parts
from f2a2_sim.simulator.population import Fleet, Population
from f2a2_sim.worlds.base import World
from f2a2_sim.worlds.factory import make_world
from network.carrier import SimulatedCarrier
from network.topology import is_redrawn


def build_world(scenario: Scenario) -> World:
    """The world of a scenario."""
    world = scenario.world
    return make_world(
        world.env,
        agents=world.agents,
        map_size=world.map_size,
        opponent=world.opponent,
        episode_steps=world.episode_steps,
        default_action=world.default_action,
        env_args=world.env_args,
    )


def build(scenario: Scenario, device: torch.device) -> Parts:
    """Everything of a run, at time zero. ``device`` is where learning is computed."""
    world = build_world(scenario)
    n = len(world.agents)
    streams = Streams(scenario.seed, dense_ids=n)
    plan = plan_fleet(scenario, n)
    carrier = SimulatedCarrier(
        n,
        scenario.network.topology,
        plan.links,
        streams,
        scenario.network.partitions,
        max_age_s=scenario.consensus.max_age_s,
    )
    availability = AvailabilityModel(plan.availability, streams.family("churn"))
    return Parts(
        scenario=scenario,
        world=world,
        population=build_population(scenario, world, carrier, streams, device),
        compute=ComputeModel(plan.profiles, scenario.devices.jitter, streams.family("jitter")),
        units=ComputeUnits(n),
        power=PowerModel(plan.profiles),
        availability=availability,
        carrier=carrier,
        streams=streams,
        profile_names=[profile.name for profile in plan.profiles],
        link_names=list(plan.link_names),
    )


def build_population(
    scenario: Scenario, world: World, carrier: SimulatedCarrier, streams: Streams, device: torch.device
) -> Population:
    """The agents of a run, those of equal shape in one fleet."""
    specs = list(world.agents)
    n = len(specs)
    if scenario.consensus.common_init:
        seeds = [streams.seed_for("weights")] * n
    else:
        seeds = [streams.seed_for("weights", 1 + agent) for agent in range(n)]
    fixed_graph = not is_redrawn(scenario.network.topology)
    degrees = np.array([len(carrier.out_neighbours(agent)) for agent in range(n)])
    shapes = sorted({(spec.observation_size, spec.n_actions) for spec in specs})
    fleets = []
    for shape in shapes:
        ids = np.array([i for i, s in enumerate(specs) if (s.observation_size, s.n_actions) == shape])
        own_seeds = [seeds[agent] for agent in ids.tolist()]
        learner = make_fleet(scenario.learner, fleet_setup(scenario, shape, own_seeds, n, device))
        consensus = None
        if scenario.consensus.scheme != "none":
            consensus = ConsensusGroup(scenario.consensus, learner, degrees[ids], fixed_graph)
        fleets.append(Fleet(ids, learner, consensus, learner.act_work(), learner.update_work()))
    return Population(fleets, seeds, streams)


def fleet_setup(
    scenario: Scenario,
    shape: tuple[int, int],
    seeds: Sequence[int],
    army_size: int,
    device: torch.device | None = None,
) -> FleetSetup:
    """What the learner of agents of one shape (observation size, number of actions) is made of."""
    consensus = scenario.consensus
    return FleetSetup(
        observation_size=shape[0],
        n_actions=shape[1],
        seeds=seeds,
        army_size=army_size,
        shared=consensus.shared,
        beta=consensus.beta if consensus.scheme == "paper" else 0.0,
        penalty_step=consensus.penalty_step,
        device=device or torch.device("cpu"),
    )
