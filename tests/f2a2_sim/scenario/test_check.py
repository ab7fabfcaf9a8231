"""Scenarios that the schema lets pass but that cannot run."""

from __future__ import annotations

from typing import Any

import pytest

from f2a2_sim.scenario.check import GIB, check_scenario
from f2a2_sim.scenario.load import apply_overrides, load_with_source, shipped_scenarios
from f2a2_sim.scenario.problems import ScenarioProblems
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.scenario.yaml_source import YamlSource

BASE: dict[str, Any] = {
    "name": "x",
    "duration": {"episodes": 1},
    "world": {"agents": 12, "episode_steps": 10},
    "learner": {"hidden_size": 8, "batch_size": 8, "replay_transitions": 1200},
}


def scenario(*overrides: str) -> Scenario:
    source = YamlSource(
        "x", {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    )
    apply_overrides(source, overrides)
    return Scenario.model_validate(source.data)


def test_a_good_scenario_passes() -> None:
    check_scenario(scenario())


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["world.map_size=12"], "world.map_size", "two armies of 12 do not fit"),
        (["world.env=no.such:thing", "world.agents=null"], "world.env", "no.such"),
        (["world.opponent=/no/such.safetensors"], "world.opponent", "/no/such.safetensors"),
        (["learner.name=dqn"], "learner.name", "expected one of f2a2_coma, f2a2_ddpg, f2a2_isac, f2a2_sac"),
        (
            ["devices.fleet.0.profile=raspbery_pi_5"],
            "devices.fleet.0.profile",
            "did you mean 'raspberry_pi_5'",
        ),
        (["devices.custom_profiles.mine={peak_flops: 1e9}"], "devices.custom_profiles.mine", "lacks"),
        (["network.topology={kind: k_regular, degree: 12}"], "network.topology.degree", "(12)"),
        (["network.topology={kind: geometric, radius: 0.01}"], "network.topology.radius", "pieces"),
        (["network.topology={kind: edge_list, edges: [[0, 12]]}"], "network.topology.edges", "no agent 12"),
        (
            ["network.partitions=[{start_s: 0, end_s: 1, groups: [[12]]}]"],
            "network.partitions.groups",
            "from 0 to 11",
        ),
        (
            ["devices.availability={kind: trace, path: /no/trace.csv}"],
            "devices.availability",
            "/no/trace.csv",
        ),
        (
            ["network.link.latency={kind: trace, path: /no/delays.txt}"],
            "network.link.latency.path",
            "/no/delays.txt",
        ),
        (["learner.replay_transitions=1e16"], "learner.replay_transitions", "this machine's memory"),
        (
            [
                "devices.custom_profiles.small={based_on: raspberry_pi_5, memory_bytes: 1e5}",
                "devices.fleet.0.profile=small",
            ],
            "devices.fleet.0.profile",
            "device 'small' cannot hold the learner",
        ),
    ],
)
def test_what_cannot_run_names_its_key(overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(ScenarioProblems) as caught:
        check_scenario(scenario(*overrides))
    (problem,) = caught.value.problems
    assert problem.key == key
    assert words in problem.expectation


def test_the_fullest_mailbox_counts() -> None:
    """A device that holds the learner and one copy, but not those of eleven neighbours."""
    check_scenario(small_memory("ring"))
    with pytest.raises(ScenarioProblems, match="mailbox"):
        check_scenario(small_memory("complete"))


def small_memory(topology: str) -> Scenario:
    return scenario(
        "devices.custom_profiles.small={based_on: raspberry_pi_5, memory_bytes: 1.2e6}",
        "devices.fleet.0.profile=small",
        "learner.replay_dtype=float16",
        f"network.topology.kind={topology}",
    )


def test_all_learners_must_fit_the_simulating_machine() -> None:
    check_scenario(scenario(), machine_memory_bytes=1e9)
    with pytest.raises(ScenarioProblems, match="the learners of 12 agents take"):
        check_scenario(scenario(), machine_memory_bytes=1e6)


def test_several_wrong_names_are_all_listed() -> None:
    with pytest.raises(ScenarioProblems, match="2 problems"):
        check_scenario(scenario("devices.fleet.0.profile=a", "devices.custom_profiles.b={based_on: c}"))


def test_problems_carry_the_line_of_the_file(tmp_path: Any) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("duration: {episodes: 1}\nworld:\n  agents: 12\n  map_size: 12\n")
    loaded, source = load_with_source(path)
    with pytest.raises(ScenarioProblems) as caught:
        check_scenario(loaded, source)
    assert caught.value.problems[0].place == f"{path}:4"


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_shipped_scenarios_can_run(name: str) -> None:
    check_scenario(load_with_source(name)[0], machine_memory_bytes=8 * GIB)
