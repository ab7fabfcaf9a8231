"""Which agent lives on which device, over which link, and when it is on: the `devices` section, dealt out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.catalog import device_profile
from devices.spec import AvailabilitySpec, DeviceProfile
from f2a2_sim.randomness import Streams
from f2a2_sim.scenario.schema import FleetGroup, Scenario
from network.profiles import resolve_link
from network.spec import LinkSpec


@dataclass(frozen=True)
class FleetPlan:
    """The devices of all agents; every tuple has one entry per agent.

    ``group`` is each agent's index in ``devices.fleet`` (int64 ``[n]``), ``link_names`` what reports call
    its link.
    """

    group: NDArray[np.int64]
    profiles: tuple[DeviceProfile, ...]
    links: tuple[LinkSpec, ...]
    link_names: tuple[str, ...]
    availability: tuple[AvailabilitySpec, ...]


def plan_fleet(scenario: Scenario, n_agents: int) -> FleetPlan:
    """Deal the devices out; depends on the scenario (its seed, if shuffled) and on nothing else.

    Raises ValueError for a name that is in neither the catalogue nor the scenario.
    """
    fleet = scenario.devices.fleet
    group = np.repeat(np.arange(len(fleet)), group_sizes([g.share for g in fleet], n_agents))
    if scenario.devices.assignment == "shuffled":
        group = np.random.default_rng(Streams(scenario.seed, 0).seed_for("fleet")).permutation(group)
    profiles = [device_profile(g.profile, scenario.devices.custom_profiles) for g in fleet]
    links = [group_link(scenario, g) for g in fleet]
    availability = [g.availability or scenario.devices.availability for g in fleet]
    order = group.tolist()
    return FleetPlan(
        group=group.astype(np.int64),
        profiles=tuple(profiles[g] for g in order),
        links=tuple(links[g][1] for g in order),
        link_names=tuple(links[g][0] for g in order),
        availability=tuple(availability[g] for g in order),
    )


def group_sizes(shares: Sequence[float], n_agents: int) -> list[int]:
    """Agents per group in proportion to ``shares``, by largest remainders; they sum to ``n_agents``."""
    exact = [share * n_agents for share in shares]
    sizes = [int(part + 1e-9) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (sizes[i] - exact[i], i))
    for i in by_remainder[: n_agents - sum(sizes)]:
        sizes[i] += 1
    return sizes


def group_link(scenario: Scenario, group: FleetGroup) -> tuple[str, LinkSpec]:
    """Name and link of a group's agents: its own, or else `network.link`."""
    network = scenario.network
    if group.link is None:
        return network.link.profile or "network.link", network.link.spec
    if group.link in network.custom_links:
        return group.link, network.custom_links[group.link].spec
    return group.link, resolve_link(group.link)
