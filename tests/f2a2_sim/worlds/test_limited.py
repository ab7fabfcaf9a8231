"""A world whose observations are clipped is otherwise the world that it was."""

from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.build import build_world
from f2a2_sim.worlds.base import WorldStep
from f2a2_sim.worlds.factory import make_world

LIMIT = 0.5


def arrays(step: WorldStep) -> list[np.ndarray]:
    return list(step.observations)


@pytest.mark.parametrize(("env", "rollouts"), [("ctc", 1), ("ctc", 3), ("battle", 1)])
def test_only_what_is_seen_is_clipped(env: str, rollouts: int) -> None:
    settings = {"agents": 12} if env == "battle" else {"rollouts": rollouts}
    plain, limited = make_world(env, **settings), make_world(env, **settings, observation_limit=LIMIT)  # type: ignore[arg-type]
    assert list(limited.agents) == list(plain.agents) and limited.rollouts == plain.rollouts
    assert (limited.default_action, limited.episode_steps) == (plain.default_action, plain.episode_steps)
    draws = np.random.default_rng(2)
    seen, found, acted, clipped = plain.reset(5), limited.reset(5), [], False
    for _ in range(30):
        for own, expected in zip(arrays(found), arrays(seen), strict=True):
            np.testing.assert_array_equal(own, np.clip(expected, -LIMIT, LIMIT))
            clipped |= bool((np.abs(expected) > LIMIT).any())
        np.testing.assert_array_equal(found.rewards, seen.rewards)
        n = len(plain.agents)
        actions = draws.integers(0, plain.agents[0].n_actions, (n,) if rollouts == 1 else (n, rollouts))
        acted.append(actions)
        seen, found = plain.step(actions), limited.step(actions)
    assert clipped
    assert limited.episode_summary() == plain.episode_summary()
    again = make_world(env, **settings, observation_limit=LIMIT).restore(5, np.array(acted))  # type: ignore[arg-type]
    for own, expected in zip(arrays(again), arrays(found), strict=True):
        np.testing.assert_array_equal(own, expected)


def test_a_scenario_may_ask_for_it() -> None:
    world = build_world(load_scenario("ctc", ["world.observation_limit=2"]))
    steps = [world.reset(1)] + [world.step(np.ones((8, 12), dtype=np.int64)) for _ in range(20)]
    assert max(float(np.abs(seen).max()) for step in steps for seen in arrays(step)) == 2.0
