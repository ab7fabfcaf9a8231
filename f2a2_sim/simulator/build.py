"""Puts a simulation together from a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from devices.availability import AvailabilityModel
from devices.compute import ComputeModel, Work
from devices.energy import PowerModel
from devices.unit import ComputeUnits
from f2a2_sim.consensus.group import ConsensusGroup
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import FleetSetup, joint_information, make_fleet
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.joint.replay import padded_observations
from f2a2_sim.randomness import Streams
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.fleet import plan_fleet
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_policies
from f2a2_sim.simulator.knowledge import Knowledge
from f2a2_sim.simulator.parts import Parts
from f2a2_sim.simulator.population import Fleet, Population
from f2a2_sim.worlds.base import AgentSpec, World
from f2a2_sim.worlds.factory import make_world
from network.carrier import SimulatedCarrier
from network.protocol import Carrier
from network.topology import is_redrawn

_UNCOUNTED = Work(0.0, 0.0, 0)  # of agents that live here: what they take is measured


class Seats(Protocol):
    """Who plays in a world: all that the agents' side has to know of it."""

    @property
    def agents(self) -> Sequence[AgentSpec]: ...

    @property
    def rollouts(self) -> int: ...


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
        rollouts=world.rollouts,
        observation_limit=world.observation_limit,
    )


def build(scenario: Scenario, device: torch.device, resuming: bool = False) -> Parts:
    """Everything of a run, at time zero. ``device`` is where learning is computed.

    ``resuming``: a state will be loaded, so that `learner.start_from` need not be there any more.
    """
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
    population = build_population(scenario, world, carrier, streams, device, resuming)
    if scenario.learner.start_from is not None and not resuming:
        sizes = [fleet.learner.parameters.shape[1] for fleet in population.fleets]
        starts = starting_parameters(scenario, n, sizes)
        for fleet, start in zip(population.fleets, starts, strict=True):
            fleet.start = start
            fleet.begin(np.arange(len(fleet.ids)))
    return Parts(
        scenario=scenario,
        world=world,
        population=population,
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
    scenario: Scenario,
    world: Seats,
    carrier: Carrier,
    streams: Streams,
    device: torch.device,
    resuming: bool = False,
    here: NDArray[np.int64] | None = None,
) -> Population:
    """The agents of a run, those of equal shape in one fleet; ``here``: those that live in this process.

    Learners with joint critics hold everybody's policy, so their fleet is whole wherever its agents live.
    """
    specs = list(world.agents)
    n = len(specs)
    if scenario.consensus.common_init:
        seeds = [streams.seed_for("weights")] * n
    else:
        seeds = [streams.seed_for("weights", 1 + agent) for agent in range(n)]
    fixed_graph = not is_redrawn(scenario.network.topology)
    fleets = []
    for members in fleets_of(scenario, world):
        ids = members
        if here is not None and not joint_information(scenario.learner.name):
            ids = np.intersect1d(members, here)
        if ids.size == 0:
            continue
        own_seeds = [seeds[agent] for agent in ids.tolist()]
        learner = make_fleet(scenario.learner, fleet_setup(scenario, world, ids, own_seeds, device))
        consensus = None
        if scenario.consensus.scheme != "none":
            degrees = np.array([np.isin(carrier.out_neighbours(a), members).sum() for a in ids.tolist()])
            consensus = ConsensusGroup(scenario.consensus, learner, degrees, fixed_graph, len(members))
        if isinstance(learner, JointFleet) and learner.moa is not None and not resuming:
            moa = learner.moa.config
            learner.gather(*random_trajectories(scenario, moa.trajectories, moa.trajectory_steps, streams))
        works = (_UNCOUNTED, _UNCOUNTED) if here is not None else (learner.act_work(), learner.update_work())
        fleets.append(Fleet(ids, learner, consensus, *works, members=members))
    knowledge = Knowledge(n) if scenario.learner.information == "network" else None
    return Population(fleets, seeds, streams, world.rollouts, knowledge)


def random_trajectories(
    scenario: Scenario, count: int, steps: int, streams: Streams
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Uniformly random play: observations ``[count, steps, n, size]``, actions ``[count, steps, n]``.

    Every rollout gives one trajectory an episode, from its beginning; after an end it goes on with the next.
    """
    world = build_world(scenario)
    n, rollouts = len(world.agents), world.rollouts
    n_actions = np.array([agent.n_actions for agent in world.agents])
    choice = streams.family("trajectories")
    seen, chosen = [], []
    for episode in range(-(-count // rollouts)):
        state = world.reset(streams.seed_for("trajectories", episode))
        for step in range(steps):
            if state.done:
                state = world.reset(streams.seed_for("trajectories", episode + (step + 1) * count))
            actions = choice.integers(np.arange(n), n_actions, rollouts)
            seen.append(padded_observations(state.observations, rollouts))
            chosen.append(actions)
            state = world.step(actions if rollouts > 1 else actions[:, 0])
    shape = (-1, steps, n, rollouts)
    observations = np.stack(seen).reshape(*shape, seen[0].shape[-1]).transpose(0, 3, 1, 2, 4)
    actions = np.stack(chosen).reshape(shape).transpose(0, 3, 1, 2)
    flat = observations.reshape(-1, *observations.shape[2:]), actions.reshape(-1, *actions.shape[2:])
    return np.ascontiguousarray(flat[0][:count]), np.ascontiguousarray(flat[1][:count])


def fleets_of(scenario: Scenario, world: Seats) -> list[NDArray[np.int64]]:
    """Agents by fleet: those with networks of equal shape, or all where the learner sees all.

    Raises UsageError if agents that learn together have different numbers of actions.
    """
    specs = list(world.agents)
    if joint_information(scenario.learner.name):
        counts = sorted({spec.n_actions for spec in specs})
        if len(counts) > 1:
            raise UsageError(
                f"learner.name = {scenario.learner.name}: needs agents with equally many actions, but this "
                f"world's have {counts}; use f2a2_isac"
            )
        return [np.arange(len(specs))]
    for key, more in (
        (f"world.rollouts = {world.rollouts}", world.rollouts > 1),
        ("learner.information = network", scenario.learner.information == "network"),
    ):
        if more:  # of the package's own learners the scenario's schema says so
            raise UsageError(f"{key}: {scenario.learner.name} has no joint critics; leave it out")
    shapes = [(spec.observation_size, spec.n_actions) for spec in specs]
    return [
        np.array([i for i, own in enumerate(shapes) if own == shape]) for shape in sorted(set(shapes))
    ]


def starting_parameters(scenario: Scenario, agents: int, sizes: Sequence[int]) -> list[torch.Tensor]:
    """What `starts_of` finds for each fleet; ``sizes`` are the numbers of parameters P expected.

    Raises UsageError if there is no such run, or its networks have other shapes.
    """
    starts = starts_of(scenario, agents)
    theirs = [start.shape[-1] for start in starts]
    if theirs != list(sizes):
        raise UsageError(
            f"learner.start_from = {scenario.learner.start_from}: its agents have {theirs} parameters and "
            f"this scenario's {list(sizes)} (a number for each shape of agent); expected a run with the same "
            "world, learner.hidden_size and learner.hidden_layers"
        )
    return starts


def starts_of(scenario: Scenario, agents: int) -> list[torch.Tensor]:
    """The parameters in the newest checkpoint of the run `learner.start_from`, of each fleet: their mean
    ``[P]``; with joint critics, whose agents have actors of their own, those of each agent ``[n, P]``.

    Raises UsageError if there is no such run, or it has not as many ``agents`` where that matters.
    """
    run_dir = str(scenario.learner.start_from)
    folder = RunFolder.open(Path(run_dir))
    policies = read_policies(folder, find_checkpoint(folder))
    if not joint_information(scenario.learner.name):
        return [policy.mean(dim=0) for policy in policies]
    if [len(policy) for policy in policies] != [agents]:
        raise UsageError(
            f"learner.start_from = {run_dir}: has {sum(map(len, policies))} agents and this scenario "
            f"{agents}; expected as many: with {scenario.learner.name} each begins as its counterpart stands"
        )
    return policies


def fleet_setup(
    scenario: Scenario,
    world: Seats,
    ids: NDArray[np.int64],
    seeds: Sequence[int],
    device: torch.device | None = None,
) -> FleetSetup:
    """What the learner of a fleet, agents ``ids``, is made of; ``seeds`` are as many as it is to hold."""
    consensus, specs = scenario.consensus, list(world.agents)
    sizes = tuple(spec.observation_size for spec in specs)
    return FleetSetup(
        observation_size=max(sizes[agent] for agent in ids.tolist()),
        n_actions=specs[int(ids[0])].n_actions,
        seeds=seeds,
        army_size=len(specs),
        shared=consensus.shared,
        beta=consensus.beta if consensus.scheme == "paper" else 0.0,
        penalty_step=consensus.penalty_step,
        dual_decay=consensus.dual_decay,
        observation_sizes=sizes,
        rollouts=world.rollouts,
        device=device or torch.device("cpu"),
    )
