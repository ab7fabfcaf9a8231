"""What a simulation is put together from, and what all flows of one have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.availability import AvailabilityModel
from devices.compute import ComputeModel
from devices.energy import PowerModel
from devices.unit import ComputeUnits
from f2a2_sim.randomness import Streams
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.agenda import Agenda
from f2a2_sim.simulator.population import Population
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.worlds.base import World
from network.carrier import SimulatedCarrier

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass
class Parts:
    """The models of one run at time zero; see ``build.py``."""

    scenario: Scenario
    world: World
    population: Population
    compute: ComputeModel
    units: ComputeUnits
    power: PowerModel
    availability: AvailabilityModel
    carrier: SimulatedCarrier
    streams: Streams
    profile_names: list[str]
    link_names: list[str]


@dataclass(frozen=True)
class Context:
    """What every flow of a simulation needs: the models, the clock, and where to write things down."""

    parts: Parts
    agenda: Agenda
    recorder: Recorder
    stopwatch: Stopwatch
    log: Callable[[str], None]

    @property
    def scenario(self) -> Scenario:
        return self.parts.scenario

    @property
    def n_agents(self) -> int:
        return self.parts.population.n_agents
