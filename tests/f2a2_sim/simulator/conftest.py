"""Small but complete simulations: real world, real learners, real network, a few seconds at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from f2a2_sim.results.recorder import Recorder
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build
from f2a2_sim.simulator.simulation import Simulation
from f2a2_sim.simulator.stopwatch import Stopwatch

BASE: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "duration": {"episodes": 2},
    "world": {"env": "battle", "agents": 12, "episode_steps": 30},
    "learner": {"hidden_size": 8, "batch_size": 8, "replay_transitions": 2400, "update_every_steps": 2},
    "consensus": {"scheme": "paper", "interval": {"mean_updates": 2, "std_updates": 1}},
    "devices": {
        "fleet": [{"profile": "board", "share": 1.0}],
        "jitter": {"kind": "none"},
        "custom_profiles": {
            "board": {
                "kind": "cpu_board",
                "peak_flops": 1e9,
                "efficiency": 1.0,
                "memory_bandwidth_bytes_per_s": 1e9,
                "memory_bytes": 8_000_000_000,
                "launch_overhead_s": 1e-5,
                "idle_power_w": 2.0,
                "active_power_w": 5.0,
            }
        },
    },
    "network": {
        "topology": {"kind": "ring"},
        "link": {"latency": {"kind": "constant", "value_s": 0.01}, "bandwidth_bps": 1e8},
    },
    "record": {"every_steps": 10, "tensorboard": False, "baseline_episodes": 0},
}

CHURNING: dict[str, Any] = {
    "devices": {
        "jitter": {"kind": "lognormal", "sigma": 0.3},
        "availability": {"kind": "churn", "mean_on_s": 0.3, "mean_off_s": 0.1, "on_drop": "crash"},
    },
    "network": {
        "topology": {"kind": "ring_plus_random", "share": 0.2, "redraw": "every_round"},
        "link": {
            "latency": {"kind": "lognormal", "median_s": 0.02, "sigma": 0.7},
            "loss": {"kind": "gilbert_elliott", "p_good_to_bad": 0.1, "p_bad_to_good": 0.3, "loss_bad": 0.8},
            "queue_packets": 3,
            "duplication_probability": 0.05,
        },
    },
}
"""Everything that can go wrong at once: loss, bursts, full queues, duplicates, jitter, crashes."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        mapping = isinstance(value, Mapping) and isinstance(old, Mapping) and "kind" not in value
        result[key] = merged(old, value) if mapping else value  # type: ignore[arg-type]
    return result


def scenario_of(*changes: Mapping[str, Any]) -> Scenario:
    """The base scenario with changes laid over it, a mapping with a `kind` replaced whole."""
    result: Mapping[str, Any] = BASE
    for change in changes:
        result = merged(result, change)
    return Scenario.model_validate(result)


def simulation_of(scenario: Scenario) -> Simulation:
    """A simulation at time zero, not started."""
    record = scenario.record
    recorder = Recorder(record.timeline_agents, record.timeline_events)
    return Simulation(build(scenario, torch.device("cpu")), recorder, Stopwatch(), lambda text: None)


def finish(simulation: Simulation) -> Simulation:
    while simulation.ended is None:
        simulation.step()
    return simulation


Simulate = Callable[..., Simulation]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Run the base scenario with changes to its end."""

    def run(*changes: Mapping[str, Any]) -> Simulation:
        simulation = simulation_of(scenario_of(*changes))
        simulation.start()
        return finish(simulation)

    yield run
