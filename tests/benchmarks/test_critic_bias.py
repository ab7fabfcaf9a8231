"""What a run's critics say beside what follows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.critic_bias import reward_moments, row_of
from f2a2_sim.api import run
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import EPISODES
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.checkpoint import list_checkpoints

KEYS = (
    "duration.episodes=10",
    "world.rollouts=4",
    "learner.batch_size=2000",
    "learner.hidden_size=8",
    "learner.heads=2",
    "record.baseline_episodes=0",
    "checkpoint={every_wall_s: null, every_episodes: 6}",
)


def test_a_run_that_has_ended_is_told_by_the_rewards_of_the_checkpoint_before(tmp_path: Path) -> None:
    scenario = load_scenario("rover_tower", KEYS)
    result = run(scenario, out=tmp_path / "run")  # too short for an update
    mean, deviation = reward_moments(result.folder, scenario, 8)
    episodes = RunFolder.open(result.folder).read_table(EPISODES)
    six = float(episodes["return_mean_per_agent"][:6].mean())
    assert 25 * mean.mean() == pytest.approx(six, abs=0.5)  # their last transitions are still open
    assert (deviation > 0.1).all()
    *_, earned, said, followed, excess, _ = row_of(result.folder, episodes=60, ahead=200, seed=1)
    assert float(earned) == pytest.approx(-9.2, abs=8.0)
    assert abs(float(said)) < 1.0  # a critic that has learnt nothing
    assert float(excess.split()[0]) == pytest.approx(float(said) - float(followed), abs=0.11)

    for checkpoint in list_checkpoints(RunFolder.open(result.folder))[:-1]:
        shutil.rmtree(checkpoint.path)
    with pytest.raises(SystemExit, match=r"run: none of its checkpoints holds a replay.*checkpoint\.keep"):
        reward_moments(result.folder, scenario, 8)
