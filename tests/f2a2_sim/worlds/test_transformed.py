"""A world whose observations are shown in other numbers is otherwise the world that it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.build import build_world
from f2a2_sim.worlds.base import WorldStep
from f2a2_sim.worlds.factory import make_world
from f2a2_sim.worlds.transformed import ObservationTransform

TRANSFORMS = {
    "limit": {"observation_limit": 0.5},
    "scale": {"observation_scale": 0.1},
    "both": {"observation_limit": 0.5, "observation_scale": 0.1},
}


def written_out(
    seen: np.ndarray, observation_limit: float = np.inf, observation_scale: float | None = None
) -> np.ndarray:
    clipped = np.minimum(np.maximum(seen.astype(np.float64), -observation_limit), observation_limit)
    if observation_scale is None:
        return np.asarray(clipped)
    size = np.abs(clipped) / observation_scale
    return np.asarray(np.sign(clipped) * observation_scale * np.log(size + np.sqrt(size**2 + 1.0)))


def arrays(step: WorldStep) -> list[np.ndarray]:
    return list(step.observations)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("env", "rollouts"), [("ctc", 1), ("ctc", 3), ("battle", 1)])
def test_only_what_is_seen_is_transformed(env: str, rollouts: int, transform: str) -> None:
    settings: dict[str, Any] = {"agents": 12} if env == "battle" else {"rollouts": rollouts}
    keys = TRANSFORMS[transform]
    plain, other = make_world(env, **settings), make_world(env, **settings, **keys)
    assert list(other.agents) == list(plain.agents) and other.rollouts == plain.rollouts
    assert (other.default_action, other.episode_steps) == (plain.default_action, plain.episode_steps)
    draws = np.random.default_rng(2)
    seen, found, acted, changed = plain.reset(5), other.reset(5), [], False
    for _ in range(30):
        for own, raw in zip(arrays(found), arrays(seen), strict=True):
            assert own.dtype == raw.dtype
            np.testing.assert_allclose(own, written_out(raw, **keys), rtol=1e-5, atol=1e-7)
            changed |= bool((np.abs(own - raw) > 0.1).any())
        np.testing.assert_array_equal(found.rewards, seen.rewards)
        n = len(plain.agents)
        actions = draws.integers(0, plain.agents[0].n_actions, (n,) if rollouts == 1 else (n, rollouts))
        acted.append(actions)
        seen, found = plain.step(actions), other.step(actions)
    assert changed
    assert other.episode_summary() == plain.episode_summary()
    again = make_world(env, **settings, **keys).restore(5, np.array(acted))
    for own, expected in zip(arrays(again), arrays(found), strict=True):
        np.testing.assert_array_equal(own, expected)


@given(
    near=st.floats(0, 0.01), far=st.floats(1, 1e3), farther=st.floats(1.01, 10), scale=st.floats(0.05, 0.5)
)
def test_near_is_as_it_is_and_far_is_told_from_farther(
    near: float, far: float, farther: float, scale: float
) -> None:
    shown = ObservationTransform(scale=scale)(np.array([-near, near, far, far * farther]))
    assert -shown[0] == shown[1] == pytest.approx(near, rel=0.01)
    # By a logarithm: what is so many times as far is always so much more.
    assert shown[3] - shown[2] == pytest.approx(scale * np.log(farther), rel=0.1)


def test_no_transform_touches_nothing() -> None:
    seen = np.ones((2, 3), dtype=np.float32)
    assert ObservationTransform()(seen) is seen


def test_a_scenario_may_ask_for_it() -> None:
    world = build_world(load_scenario("ctc", ["world.observation_limit=2", "world.observation_scale=0.5"]))
    steps = [world.reset(1)] + [world.step(np.ones((8, 12), dtype=np.int64)) for _ in range(20)]
    largest = max(float(np.abs(seen).max()) for step in steps for seen in arrays(step))
    assert largest == pytest.approx(0.5 * np.arcsinh(4.0))
