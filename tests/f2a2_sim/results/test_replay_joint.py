"""Films of learners with joint critics: one rollout, by the policies as they stood, moments included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from f2a2_sim.api import run
from f2a2_sim.randomness import Streams
from f2a2_sim.results import replay
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.simulator.build import build_world
from tests.f2a2_sim.simulator.conftest import scenario_of

CHANGES: dict[str, Any] = {
    "world": {"env": "rover_tower", "agents": 8, "rollouts": 3, "episode_steps": 12},
    "learner": {"name": "f2a2_ddpg", "batch_size": 6, "replay_transitions": 60, "hidden_size": 8},
}


def test_a_film_of_one_rollout_by_the_trained_policies(tmp_path: Path) -> None:
    scenario = scenario_of(CHANGES)
    result = run(scenario, out=tmp_path / "run", progress=False)
    path = replay.write_replay(result.folder, max_steps=3)
    with Image.open(path) as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]

    alone = scenario.model_copy(update={"world": scenario.world.model_copy(update={"rollouts": 1})})
    world = build_world(alone)
    (_, learner), *_ = replay._fleets(alone, world)
    untrained: Any = learner
    assert float(untrained.actors.moments.mean.abs().max()) == 0
    replay.load_policy(RunFolder.open(result.folder), alone, world, Streams(0, 8))
    folder = RunFolder.open(result.folder)
    policies = replay.read_policies(folder, replay.find_checkpoint(folder))
    with torch.no_grad():
        untrained.parameters.copy_(policies[0])
    assert float(untrained.actors.moments.mean.abs().max()) > 0.01
    assert np.isfinite(policies[0].numpy()).all()
