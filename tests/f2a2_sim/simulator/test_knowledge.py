"""What agents know of each other's steps where that takes messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.simulator.knowledge import Knowledge, step_of, version_of
from tests.f2a2_sim.simulator.conftest import Simulate, finish, merged, scenario_of, simulation_of

N = 3
JOINT: dict[str, Any] = {
    "world": {"env": "rover_tower", "agents": 8, "rollouts": 2, "episode_steps": 10, "mode": "realtime"},
    "learner": {
        "name": "f2a2_sac",
        "information": "network",
        "batch_size": 6,
        "replay_transitions": 60,
        "hidden_size": 8,
    },
    "consensus": {"scheme": "none"},
    "network": {"topology": {"kind": "complete"}, "link": {"bandwidth_bps": 1e9}},
}


def world(**changes: Any) -> dict[str, Any]:
    return merged(JOINT, {"world": {"period_s": 0.05}, **changes})


@given(
    seed=st.integers(0, 2**32 - 1), steps=st.integers(3, 12), worst=st.integers(0, 6), share=st.floats(0, 1)
)
def test_newest_step_that_has_come(seed: int, steps: int, worst: int, share: float) -> None:
    """Random delays (in steps) and losses against a search through all messages, over two episodes."""
    rng = np.random.default_rng(seed)
    knowledge = Knowledge(N)
    for first in (0, 100):
        delay = rng.integers(0, worst + 1, (steps, N, N)).astype(float)
        delay[rng.random(delay.shape) < share] = np.inf
        delay[:, np.arange(N), np.arange(N)] = 0
        arrives = delay + np.arange(steps)[:, None, None]  # message of step s from j at i: [s, i, j]
        knowledge.begin_episode(first)
        for now in range(1, steps):
            come = np.argwhere((arrives <= now) & (arrives > now - 1 if now > 1 else arrives <= now))
            rng.shuffle(come)
            others = come[come[:, 1] != come[:, 2]]
            knowledge.hear(others[:, 1], others[:, 2], others[:, 0] + first)
            stale = others[:0] if first == 0 else others[:1]
            knowledge.hear(stale[:, 1], stale[:, 2], stale[:, 0])  # of the former episode
            t = now - 1
            ages = knowledge.ages()
            for known, at in ((ages.now, t), (ages.following, t + 1)):
                for i in range(N):
                    for j in range(N):
                        usable = [s for s in range(at + 1) if arrives[s, i, j] <= now]
                        expected = at - max(usable) if usable else -1
                        assert known[i, j] == (0 if i == j else expected), (at, i, j)


def test_versions_of_steps_are_none_of_parameters() -> None:
    steps = np.arange(5)
    versions = np.array([version_of(step) for step in steps.tolist()])
    assert (versions < 0).all()
    np.testing.assert_array_equal(step_of(versions), steps)


def ages_of(changes: dict[str, Any]) -> np.ndarray:
    """Ages ``[steps, 2, n, n]`` that a finished run's replay holds, of its newest 29 steps."""
    simulation = finish_started(changes)
    replay: Any = simulation.parts.population.fleets[0].learner.replay  # type: ignore[attr-defined]
    held = replay._steps[0, (replay._first[0] + np.arange(replay._held[0])) % replay.steps_kept]
    return np.asarray(replay._ages[held % replay._frames])


def finish_started(changes: dict[str, Any]) -> Any:
    simulation = simulation_of(scenario_of(changes))
    simulation.start()
    return finish(simulation)


def test_prompt_messages_are_fresh() -> None:
    ages = ages_of(world())
    assert len(ages) > 15 and (ages[:, 0] == 0).all()
    last = np.arange(8)
    assert (ages[:, 1, last, last] == 0).all()  # of the last observation of an episode nobody tells
    assert (ages[:, 1].reshape(-1, 64).max(axis=1) <= 1).all()


def test_a_period_of_delay_is_a_step_of_age() -> None:
    """Two periods and a half on the way, and a step is remembered two periods after its beginning."""
    late = {"kind": "constant", "value_s": 0.12}
    ages = ages_of(world(network={"link": {"latency": late}}))
    others = ages[:, 0][:, ~np.eye(8, dtype=bool)]
    assert (others == others[:, :1]).all()
    by_step = others[:, 0].tolist()
    episode = [-1, *[1] * 8, 2]  # the last step is remembered at once when the next episode begins
    assert by_step == (episode * 2)[-len(by_step) - 1 : -1]


def test_what_is_lost_is_unknown() -> None:
    lost = {"kind": "bernoulli", "probability": 1.0}
    ages = ages_of(world(network={"link": {"loss": lost, "loss_per": "message"}}))
    assert (ages[:, :, ~np.eye(8, dtype=bool)] == -1).all()


def test_who_is_no_neighbour_is_unknown() -> None:
    ages = ages_of(world(network={"topology": {"kind": "ring"}}))
    near = np.isin(np.subtract.outer(np.arange(8), np.arange(8)) % 8, (0, 1, 7))
    assert (ages[:, 0][:, near] == 0).all() and (ages[:, 0][:, ~near] == -1).all()


def test_messages_are_counted_and_paid_for(simulate: Simulate) -> None:
    free = simulate(world(learner={"information": "accessible"}))
    told = simulate(world())
    assert free.parts.carrier.counts.sent == 0
    steps = told.env_steps
    assert told.parts.carrier.counts.sent == steps * 8 * 7
    size = {agent: 128 + 4 * 2 * (13 + 1 if agent < 4 else 8 + 1) for agent in range(8)}
    assert told.parts.carrier.counts.bytes_sent == steps * 7 * sum(size.values())


def test_only_for_joint_critics() -> None:
    with pytest.raises(ValueError, match=r"information: network is for learners with joint critics"):
        scenario_of({"learner": {"information": "network"}})
