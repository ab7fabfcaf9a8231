"""Updates that are recorded and played, against plain ones: equal to the bit on a processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.joint.sac import SacFleet
from f2a2_sim.learners.tape import available
from tests.f2a2_sim.learners.joint.conftest import fill, make_joint, spoil_and_load
from tests.f2a2_sim.learners.joint.test_cuda import EVERY, LEARNERS
from tests.f2a2_sim.learners.joint.test_modelling import modelling_fleet

pytestmark = pytest.mark.skipif(not available(), reason="this torch cannot play tapes")

MANY = {"batch_size": 1100, "replay_transitions": 2400, "hidden_size": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    **LEARNERS,
    "falling steps": {"name": "f2a2_sac", "learning_rate_decay": {"factor": 0.1, "updates": 20}},
    "regularised": {"name": "f2a2_ddpg", "critic_l2": 0.01, "logit_decay": 0.001, "normalise_rewards": True},
    "single precision, rows for every library": {"name": "f2a2_sac", **MANY},
    "the same, perceptrons": {"name": "f2a2_td3", **MANY},
    "block by block": {"name": "f2a2_sac", "block_agents": 1},
}


def learn(learner: str, threads: int, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What updates of all agents and of some lead to, with consensus, a reset and a loaded state between."""
    dtype = torch.float32 if SETTINGS[learner].get("batch_size") else torch.float64
    monkeypatch.setenv("F2A2_RECORDED_UPDATES", "1" if recorded else "0")
    fleet = make_joint(setup={"beta": 0.1, "dtype": dtype}, **SETTINGS[learner])
    assert (fleet._recorded is not None) == recorded
    rng, statistics = np.random.default_rng(8), []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for update in range(30):
            rows = EVERY[1:] if update % 5 == 4 else EVERY
            uniforms = rng.random((len(EVERY), fleet.draws_per_update))[rows]
            told = fleet.update(rows, fleet.draw_batch(rows, uniforms))
            statistics += [torch.from_numpy(column) for column in told.values()]
            fleet.take_consensus(EVERY, fleet.shared_parameters().mean(dim=0).expand(len(EVERY), -1))
            if update == 10:
                fleet.reset(np.array([1]), [5])
                fill(fleet, seed=4)
            if update == 15:
                spoil_and_load(fleet)
    finally:
        torch.set_num_threads(before)
    assert not recorded or len(fleet._recorded or ()) >= 2, "of all agents, and of all but one"
    return [fleet.parameters, fleet.targets, *statistics]


@pytest.mark.parametrize("learner", SETTINGS)
@pytest.mark.parametrize("threads", [1, 2])
def test_recorded_updates_equal_plain_ones(
    learner: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learn(learner, threads, False, monkeypatch)
    found = learn(learner, threads, True, monkeypatch)
    for plain, played in zip(expected, found, strict=True):
        assert torch.equal(plain.nan_to_num(), played.nan_to_num())


def test_what_does_not_say_so_is_not_recorded() -> None:
    """Another learner's update may depend on numbers that Python keeps; models of the others do."""

    class Counting(SacFleet):
        recordable = False

    assert not JointFleet.recordable
    sac, counting = make_joint("f2a2_sac"), modelling_fleet("f2a2_sac")
    assert sac._recorded is not None and counting._recorded is None
    assert Counting(sac.config, sac.setup)._recorded is None
