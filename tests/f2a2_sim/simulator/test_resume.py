"""A run that is saved anywhere and taken up again ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from f2a2_sim.simulator.packing import pack, unpack
from f2a2_sim.simulator.simulation import Simulation
from tests.f2a2_sim.simulator.conftest import CHURNING, finish, scenario_of, simulation_of

VARIANTS: dict[str, dict[str, Any]] = {
    "everything goes wrong": CHURNING,
    "gossip, realtime, silent dead": {
        **CHURNING,
        "consensus": {"scheme": "gossip"},
        "world": {"mode": "realtime", "period_s": 0.01, "after_death": "silent", "opponent": "iql"},
    },
    "push-sum, pauses": {
        "consensus": {"scheme": "push_sum"},
        "devices": {"availability": {"kind": "churn", "mean_on_s": 0.2, "mean_off_s": 0.1}},
        "network": {"link": {"loss": {"kind": "bernoulli", "probability": 0.3}}},
    },
    "waiting for neighbours": {
        **CHURNING,
        "consensus": {"wait": "neighbours", "wait_timeout_s": 0.05, "max_age_s": 0.2},
        "network": {**CHURNING["network"], "topology": {"kind": "complete"}},
    },
    "joint critics, three rollouts": {
        "world": {"env": "rover_tower", "agents": 8, "rollouts": 3, "episode_steps": 30},
        "learner": {
            "name": "f2a2_sac",
            "update_every_steps": 6,
            "batch_size": 6,
            "replay_transitions": 60,
            "hidden_size": 8,
        },
        "consensus": {"shared": "attention"},
        **CHURNING,
    },
    "on policy": {
        "world": {"env": "rover_tower", "agents": 8, "rollouts": 3, "episode_steps": 25},
        "learner": {"name": "f2a2_coma", "batch_size": 8, "replay_transitions": 60, "hidden_size": 8},
        "consensus": {"shared": "critic"},
        **CHURNING,
    },
    "the others' steps by message": {
        "world": {
            "env": "rover_tower",
            "agents": 8,
            "rollouts": 2,
            "episode_steps": 25,
            "mode": "realtime",
            "period_s": 0.03,
        },
        "learner": {
            "name": "f2a2_td3",
            "information": "network",
            "batch_size": 6,
            "replay_transitions": 60,
            "hidden_size": 8,
        },
        **CHURNING,
    },
    "models of the others": {
        "world": {"env": "rover_tower", "agents": 8, "rollouts": 2, "episode_steps": 30},
        "learner": {
            "name": "f2a2_ddpg",
            "update_every_steps": 8,
            "batch_size": 6,
            "replay_transitions": 60,
            "hidden_size": 8,
            "moa": {
                "trajectories": 6,
                "character_trajectories_per_update": 3,
                "character_refresh_updates": 2,
                "recurrent_size": 4,
                "hidden_size": 8,
                "natural_pairs": 30,
                "impromptu_pairs": 20,
            },
        },
        **CHURNING,
    },
    "batteries": {"devices": {"custom_profiles": {"board": {"battery_j": 0.5}}}},
}


def outcome(simulation: Simulation) -> dict[str, Any]:
    columns = {f"metrics/{k}": v for k, v in simulation.recorder.metrics().items() if "wall" not in k}
    columns |= {f"timeline/{k}": v for k, v in simulation.recorder.timeline().items()}
    columns |= {f"devices/{k}": v for k, v in simulation.devices_table().items()}
    columns |= {f"links/{k}": v for k, v in simulation.links_table().items()}
    learner = simulation.parts.population.fleets[0].learner
    return {**columns, "parameters": learner.parameters.numpy()}


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_resumed_at_any_event(name: str) -> None:
    scenario = scenario_of(VARIANTS[name])
    undisturbed = simulation_of(scenario)
    undisturbed.start()
    events = 0
    while undisturbed.ended is None:
        undisturbed.step()
        events += 1
    expected = outcome(undisturbed)
    assert events > 500
    cuts = 2 if "name" in VARIANTS[name].get("learner", {}) else 4  # joint critics take their time
    for cut in np.random.default_rng(0).integers(1, events, size=cuts):
        first = simulation_of(scenario)
        first.start()
        for _ in range(int(cut)):
            first.step()
        tree, tensors = pack(first.state())
        text = json.dumps(tree)
        copies = {key: tensor.clone() for key, tensor in tensors.items()}
        second = simulation_of(scenario)
        second.load_state(unpack(json.loads(text), copies))
        for each in (first, second):  # saving disturbs nothing either
            result = outcome(finish(each))
            for column, values in expected.items():
                np.testing.assert_array_equal(result[column], values, err_msg=f"{column}, cut {cut}")
