"""The same updates on a CUDA device as on the CPU; only where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.f2a2_sim.learners.joint.conftest import ACTIONS, SIZES, make_joint
from tests.f2a2_sim.learners.joint.test_modelling import MOA

EVERY = np.arange(len(SIZES))

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("moa", [None, MOA], ids=["true policies", "models"])
@pytest.mark.parametrize("name", ["f2a2_sac", "f2a2_ddpg", "f2a2_td3", "f2a2_coma"])
def test_updates_equal_the_cpus(name: str, moa: dict[str, Any] | None) -> None:
    """Three updates in float64, and the actions that follow from them."""
    outcomes = []
    for device in ("cpu", "cuda"):
        fleet = make_joint(name, {"beta": 0.1, "device": torch.device(device)}, moa=moa)
        rng = np.random.default_rng(8)
        if moa is not None:
            shape = (6, 7, len(SIZES))
            fleet.gather(
                rng.standard_normal((*shape, max(SIZES))).astype(np.float32), rng.integers(0, ACTIONS, shape)
            )
        for _ in range(3):
            uniforms = rng.random((len(EVERY), fleet.draws_per_update))
            fleet.update(EVERY, fleet.draw_batch(EVERY, uniforms))
            fleet.take_consensus(EVERY, fleet.shared_parameters().mean(dim=0).expand(len(EVERY), -1))
        seen = rng.standard_normal((len(EVERY), 2, max(SIZES))).astype(np.float32)
        actions, logits = fleet.act(EVERY, seen, rng.random((len(EVERY), 2)))
        outcomes.append((fleet.parameters.cpu(), actions, logits))
    (expected, expected_actions, expected_logits), (found, actions, logits) = outcomes
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(actions, expected_actions)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5)
