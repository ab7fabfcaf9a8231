"""`learner.start_from`: a run that begins where another one's agents stand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim import load_scenario, run
from f2a2_sim.errors import UsageError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.check import check_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_policies

SMALL = [
    "learner.hidden_size=8",
    "learner.batch_size=8",
    "learner.replay_transitions=2400",
    "record.baseline_episodes=0",
    "duration.episodes=1",
]


def small(*changes: str) -> Scenario:
    return load_scenario("quickstart", [*SMALL, *changes])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small(), out=tmp_path_factory.mktemp("source") / "run").folder


def agents_of(scenario: Scenario) -> Any:
    return build(scenario, torch.device("cpu")).population.fleets[0]


@pytest.mark.parametrize("agents", [12, 14])
def test_every_agent_starts_from_the_mean_of_the_other_run(source: Path, agents: int) -> None:
    """Of an army of another size too; critics' targets and the dual's view follow."""
    folder = RunFolder.open(source)
    (policies,) = read_policies(folder, find_checkpoint(folder))
    assert len(policies) == 12
    assert float((policies - policies[0]).abs().max()) > 0
    learner = agents_of(small(f"learner.start_from={source}", f"world.agents={agents}")).learner
    mean = policies.mean(dim=0).expand(agents, -1)
    torch.testing.assert_close(learner.parameters, mean, rtol=0, atol=0)
    torch.testing.assert_close(learner.targets, mean[:, learner.critic_columns], rtol=0, atol=0)
    assert learner.setup.beta > 0
    torch.testing.assert_close(learner._shared.pull, -learner.setup.beta * learner.shared_parameters())
    assert float(learner.dual.abs().max()) == 0
    assert float(learner.adam.second_moment.abs().max()) == 0


def test_an_agent_that_crashes_before_it_sent_anything_starts_there_again(source: Path) -> None:
    population = build(small(f"learner.start_from={source}"), torch.device("cpu")).population
    parameters: Any = population.fleets[0].learner.parameters
    start = parameters[3].clone()
    parameters[3] += 1.0
    population.crash(3)
    torch.testing.assert_close(parameters[3], start, rtol=0, atol=0)


def test_a_resumed_run_does_not_need_the_run_it_started_from(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from f2a2_sim import api

    copy = shutil.copytree(source, tmp_path / "source")
    scenario = small(f"learner.start_from={copy}", "record.every_steps=10")
    whole = run(scenario, out=tmp_path / "whole")
    calls = 0

    def soon(self: Any, simulation: Any, passed_s: float, save_s: float) -> bool:
        nonlocal calls
        calls += 1
        return calls == 4

    monkeypatch.setattr(api._Session, "_checkpoint_is_due", soon)
    cut = run(scenario, out=tmp_path / "cut")
    shutil.rmtree(copy)
    shutil.rmtree(find_checkpoint(RunFolder.open(cut.folder)).path)
    again = api.resume(cut.folder)
    ours, theirs = again.metrics(), whole.metrics()
    for name in ours:
        if "wall" not in name:
            np.testing.assert_array_equal(ours[name], theirs[name])


JOINT = [
    "learner.hidden_size=8",
    "learner.batch_size=24",
    "learner.replay_transitions=1200",
    "record.baseline_episodes=0",
    "duration.episodes=1",
]


def test_agents_with_actors_of_their_own_start_from_their_counterparts(tmp_path: Path) -> None:
    source = run(load_scenario("rover_tower", JOINT), out=tmp_path / "run").folder
    folder = RunFolder.open(source)
    (policies,) = read_policies(folder, find_checkpoint(folder))
    assert len({tuple(policy.tolist()) for policy in policies}) == 8
    learner = agents_of(load_scenario("rover_tower", [*JOINT, f"learner.start_from={source}"])).learner
    torch.testing.assert_close(learner.parameters, policies, rtol=0, atol=0)
    torch.testing.assert_close(learner.targets, policies[:, learner.critic_columns], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["learner.start_from=/no/such/run"], ["learner.start_from", "no such run folder"]),
        (["learner.start_from={source}", "learner.hidden_size=9"], ["learner.start_from", "hidden_size"]),
    ],
)
def test_what_cannot_be_started_from(source: Path, changes: Sequence[str], words: Sequence[str]) -> None:
    scenario = small(*(change.format(source=source) for change in changes))
    with pytest.raises(UsageError) as caught:
        check_scenario(scenario)
    for word in words:
        assert word in str(caught.value)
