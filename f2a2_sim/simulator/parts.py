"""What a simulation is put together from, and what all flows of one have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from devices.availability import AvailabilityModel
from devices.compute import ComputeModel, Work
from devices.energy import PowerModel
from devices.unit import ComputeUnits
from f2a2_sim.randomness import Streams
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.agenda import Agenda, Handler
from f2a2_sim.simulator.population import Population
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.worlds.base import World
from network.carrier import SimulatedCarrier
from network.protocol import Carrier

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


class Clock(Protocol):
    """The time, and what is to happen later: the agenda of a simulation, or a real clock's."""

    now_s: float

    def handle(self, handlers: Mapping[str, Handler]) -> None: ...

    def at(
        self, time_s: float, kind: str, subject: int = 0, detail: int = 0, priority: int = ...
    ) -> None: ...


class Worker(Protocol):
    """Who computes: modelled devices, or the processor that this runs on."""

    def request_updates(self, agents: IntArray) -> None: ...

    def request_mix(self, agent: int, work: Work) -> None: ...


@dataclass(frozen=True)
class Setting:
    """What training and exchanging need, in virtual time or on real machines."""

    scenario: Scenario
    population: Population
    carrier: Carrier
    streams: Streams
    agenda: Clock
    recorder: Recorder
    stopwatch: Stopwatch

    @property
    def n_agents(self) -> int:
        return self.population.n_agents


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

    @property
    def setting(self) -> Setting:
        """The part of it that does not know whether time is virtual."""
        parts = self.parts
        return Setting(
            parts.scenario,
            parts.population,
            parts.carrier,
            parts.streams,
            self.agenda,
            self.recorder,
            self.stopwatch,
        )
