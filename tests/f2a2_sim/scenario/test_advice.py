"""Warnings about scenarios that run, but do not learn."""

from __future__ import annotations

import pytest

from f2a2_sim.scenario.advice import advice
from f2a2_sim.scenario.load import load_scenario, shipped_scenarios

DECAYED = ["consensus.shared=critic", "learner.critic_l2=0.001"]
ALONE = ["scheme=none", "penalty_step=null", "wait=none", "wait_timeout_s=null"]


@pytest.mark.parametrize("name", shipped_scenarios())
def test_nothing_is_said_of_shipped_scenarios(name: str) -> None:
    assert advice(load_scenario(name)) == []


@pytest.mark.parametrize(
    ("keys", "begins"),
    [
        (DECAYED, "learner.critic_l2 = 0.001 with consensus.shared = critic"),
        (
            ["consensus.shared=critic", "learner.critic_l2=null", "learner.l2=0.01"],
            "learner.l2 = 0.01 with consensus.shared = critic",
        ),
        ([*DECAYED, "learner.name=f2a2_ddpg", "learner.critic=attention"], "learner.critic_l2 = 0.001"),
    ],
)
def test_it_names_keys_and_values(keys: list[str], begins: str) -> None:
    (said,) = advice(load_scenario("ctc", keys))
    assert said.startswith(begins) and "; use " in said


@pytest.mark.parametrize(
    "keys",
    [
        [*DECAYED, *(f"consensus.{key}" for key in ALONE)],
        [*DECAYED, "learner.name=f2a2_ddpg"],  # a perceptron: all of a copy has a gradient
        ["consensus.shared=critic", "learner.critic_l2=0"],
    ],
)
def test_nothing_is_said_where_it_does_no_harm(keys: list[str]) -> None:
    assert advice(load_scenario("ctc", keys)) == []
