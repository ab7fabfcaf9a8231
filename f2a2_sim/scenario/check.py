"""Whether a scenario can run at all: its world, names, graph, traces, and the memory of its devices.

What the schema can tell from the values alone it has told; this needs files, graphs and network shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from devices.availability import AvailabilityModel
from devices.catalog import device_profile
from devices.memory import DeviceMemoryError, MemoryDemand, check_memory
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import Learner, joint_information, make_fleet
from f2a2_sim.randomness import Streams
from f2a2_sim.scenario.fleet import FleetPlan, group_link, plan_fleet
from f2a2_sim.scenario.problems import Problem, ScenarioProblems
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.scenario.yaml_source import KeyPath, YamlSource, dotted
from f2a2_sim.simulator.build import build_world, fleet_setup, fleets_of, starting_parameters
from f2a2_sim.worlds.base import World
from network.carrier import SimulatedCarrier
from network.errors import LinkError, NetworkSpecError

GIB = 1024.0**3


@dataclass
class _Findings:
    """Collects problems, each at the line of the key that it is about."""

    scenario: Scenario
    source: YamlSource
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(self.source.place(path), dotted(path), None, message, ""))

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Turn an error of the block into a problem at that key, or at the nearer one that it names."""
        try:
            yield
        except NetworkSpecError as error:
            section = ("network", "link") if isinstance(error, LinkError) else ("network",)
            self.add((*section, *error.key.split(".")), str(error))
        except UsageError as error:
            self.add(_leading_key(str(error)) or path, str(error))
        except ValueError as error:
            self.add(path, str(error))


def check_scenario(
    scenario: Scenario, source: YamlSource | None = None, machine_memory_bytes: float | None = None
) -> None:
    """Raise ScenarioProblems that lists everything that would stop the run from starting.

    ``source`` is where the scenario was read from, for the lines in the messages. With
    ``machine_memory_bytes`` all agents together must fit the machine that simulates them.
    """
    label = f"scenario {scenario.name}"
    found = _Findings(scenario, source if source is not None else YamlSource(label, None))
    world = None
    with found.at("world"):
        world = build_world(scenario)
    _check_names(found)
    if world is not None and not found.problems:
        _check_feasible(found, world, machine_memory_bytes)
    if found.problems:
        raise ScenarioProblems(found.source.label, found.problems)


def _check_names(found: _Findings) -> None:
    scenario = found.scenario
    for name in scenario.devices.custom_profiles:
        with found.at("devices", "custom_profiles", name):
            device_profile(name, scenario.devices.custom_profiles)
    for index, group in enumerate(scenario.devices.fleet):
        with found.at("devices", "fleet", index, "profile"):
            if group.profile not in scenario.devices.custom_profiles:
                device_profile(group.profile, scenario.devices.custom_profiles)
        with found.at("devices", "fleet", index, "link"):
            group_link(scenario, group)


def _check_feasible(found: _Findings, world: World, machine_memory_bytes: float | None) -> None:
    scenario, n_agents = found.scenario, len(world.agents)
    plan = plan_fleet(scenario, n_agents)
    streams = Streams(scenario.seed, n_agents)
    with found.at("devices", "availability"):
        AvailabilityModel(plan.availability, streams.family("churn"))
    carrier = None
    with found.at("network"):
        carrier = SimulatedCarrier(
            n_agents, scenario.network.topology, plan.links, streams, scenario.network.partitions
        )
    if carrier is not None:
        with found.at("learner"):
            total_bytes = _check_memory(found, world, plan, carrier)
            if machine_memory_bytes is not None and total_bytes > machine_memory_bytes:
                found.add(
                    ("learner", "replay_transitions"),
                    f"the learners of {n_agents} agents take {total_bytes / GIB:.1f} GiB, but this machine "
                    "has "
                    f"{machine_memory_bytes / GIB:.1f} GiB; lower replay_transitions or world.agents, or "
                    "store the "
                    "replay as float16",
                )


def _check_memory(found: _Findings, world: World, plan: FleetPlan, carrier: SimulatedCarrier) -> float:
    """Compare every group's device with the largest learner and the fullest mailbox among its agents.

    Returns what the learners of all agents take together, in bytes.
    """
    copies = np.bincount(carrier.graph.receiver, minlength=len(world.agents))
    learners = []
    worst: dict[int, MemoryDemand] = {}
    total_bytes = 0.0
    for ids in fleets_of(found.scenario, world):
        learner = _small_fleet(found.scenario, world, ids)
        learners.append(learner)
        for agent in ids.tolist():
            demand = memory_demand(found.scenario, learner, int(copies[agent]))
            total_bytes += demand.total_bytes - demand.mailbox_bytes - demand.activation_bytes
            group = int(plan.group[agent])
            if group not in worst or demand.total_bytes > worst[group].total_bytes:
                worst[group] = demand
    if joint_information(found.scenario.learner.name):  # one replay serves the whole fleet
        total_bytes -= (len(world.agents) - 1) * learners[0].memory_bytes()["replay"]
    if found.scenario.learner.start_from is not None:
        sizes = [learner.parameters.shape[1] for learner in learners]
        with found.at("learner", "start_from"):
            starting_parameters(found.scenario, len(world.agents), sizes)
    for group, demand in worst.items():
        profile = plan.profiles[int(np.flatnonzero(plan.group == group)[0])]
        try:
            check_memory(profile, demand)
        except DeviceMemoryError as error:
            found.add(("devices", "fleet", group, "profile"), str(error))
    return total_bytes


def memory_demand(scenario: Scenario, learner: Learner, neighbours: int) -> MemoryDemand:
    """What one agent of a fleet keeps in memory, with the newest copy of each of ``neighbours``."""
    needs = learner.memory_bytes()
    shared = learner.shared_parameters()
    copies = 0 if scenario.consensus.scheme == "none" else neighbours
    item_bytes = 8 if scenario.consensus.scheme == "push_sum" else shared.element_size()
    return MemoryDemand(
        parameters_bytes=needs["parameters"] + needs["consensus"],
        optimiser_bytes=needs["optimiser"],
        replay_bytes=needs["replay"],
        mailbox_bytes=copies * shared.shape[1] * item_bytes,
        activation_bytes=needs["activations"],
    )


def _small_fleet(scenario: Scenario, world: World, ids: NDArray[np.int64]) -> Learner:
    """A learner of that fleet's shape: of one agent, or of all where the learner sees all."""
    seeds = [0] * len(ids) if joint_information(scenario.learner.name) else [0]
    try:
        return make_fleet(scenario.learner, fleet_setup(scenario, world, ids, seeds))
    except (MemoryError, RuntimeError) as error:  # numpy's and torch's words for memory that cannot be had
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise UsageError(
            f"learner.replay_transitions = {scenario.learner.replay_transitions}: the learner of one agent "
            "does not "
            f"fit this machine's memory ({str(error).splitlines()[0]}); lower it"
        ) from error


def _leading_key(message: str) -> KeyPath | None:
    """The dotted key that a message begins with, as in ``world.agents = 3: expected ...``."""
    match = re.match(r"([a-z_]+(?:\.[a-z_0-9]+)+)\b", message)
    return tuple(match[1].split(".")) if match else None
