"""Observations kept in half the memory, by every learner with joint critics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.f2a2_sim.learners.joint.conftest import SIZES, assert_gradients_differ_a_little, make_joint

LEARNERS: dict[str, dict[str, Any]] = {
    "f2a2_sac": {},
    "f2a2_ddpg": {},
    "f2a2_td3": {"critic": "attention"},
    "f2a2_coma": {"critic": "attention"},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_float16_replay_stays_close_to_float32(name: str) -> None:
    dtypes = ("float32", "float16")
    exact, half = (make_joint(name, replay_dtype=dtype, **LEARNERS[name]) for dtype in dtypes)
    assert_gradients_differ_a_little(exact, half)


def test_it_halves_the_memory_of_observations() -> None:
    exact, half = (
        make_joint("f2a2_ddpg", replay_dtype=dtype, replay_transitions=6000).memory_bytes()["replay"]
        for dtype in ("float32", "float16")
    )
    frames = 6000 + 6000 // 8
    assert exact - half == pytest.approx(2 * frames * len(SIZES) * max(SIZES), rel=0.01)
