"""The same updates on a CUDA device as on the CPU; only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.learners.joint.base import JointFleet
from tests.f2a2_sim.learners.joint.conftest import SIZES, make_joint, spoil_and_load
from tests.f2a2_sim.learners.joint.test_modelling import modelling_fleet

EVERY = np.arange(len(SIZES))

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("make", [make_joint, modelling_fleet], ids=["true policies", "models"])
@pytest.mark.parametrize("name", ["f2a2_sac", "f2a2_ddpg", "f2a2_td3", "f2a2_coma"])
def test_updates_equal_the_cpus(name: str, make: Callable[..., JointFleet]) -> None:
    """Three updates in float64, and the actions that follow from them."""
    outcomes = []
    for device in ("cpu", "cuda"):
        fleet = make(name, {"beta": 0.1, "device": torch.device(device)})
        rng = np.random.default_rng(8)
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


LEARNERS: dict[str, dict[str, Any]] = {
    "sac": {"name": "f2a2_sac"},
    "sac by message": {"name": "f2a2_sac", "information": "network"},
    "ddpg": {"name": "f2a2_ddpg"},
    "ddpg, attention": {"name": "f2a2_ddpg", "critic": "attention"},
    "td3": {"name": "f2a2_td3", "policy_delay": [1, 2, 3]},
    "td3, attention": {"name": "f2a2_td3", "policy_delay": [1, 2, 3], "critic": "attention"},
    "coma": {"name": "f2a2_coma"},
    "coma, attention": {
        "name": "f2a2_coma",
        "critic": "attention",
        "advantage": "return",
        "td_baseline": True,
    },
}


@pytest.mark.parametrize("learner", LEARNERS)
def test_recorded_updates_equal_plain_ones(learner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all agents, of some in between, after consensus, and after a state was loaded."""
    outcomes = []
    for graphs in ("0", "1"):
        monkeypatch.setenv("F2A2_RECORDED_UPDATES", graphs)
        fleet = make_joint(setup={"beta": 0.1, "device": torch.device("cuda")}, **LEARNERS[learner])
        assert (fleet._recorded is None) == (graphs == "0")
        rng = np.random.default_rng(8)
        for update in range(30):
            rows = EVERY[1:] if update % 11 == 10 else EVERY
            uniforms = rng.random((len(EVERY), fleet.draws_per_update))[rows]
            statistics = fleet.update(rows, fleet.draw_batch(rows, uniforms))
            fleet.take_consensus(EVERY, fleet.shared_parameters().mean(dim=0).expand(len(EVERY), -1))
            if update == 15:
                spoil_and_load(fleet)
        if fleet._recorded is not None:
            assert len(fleet._recorded) >= 1
        outcomes.append((fleet.parameters.cpu(), statistics["td_abs"]))
    (expected, expected_errors), (found, errors) = outcomes
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-6)
