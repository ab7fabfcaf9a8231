"""One update, step by step, against recorded updates of the original MAAC.

In float64 the oracle is the original's own float64 update; in float32 its float32 update, to rounding.
``F2A2_MAAC_DIR`` names another folder of recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from f2a2_sim.baselines.joint_replay import JointBatch
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.learner import Maac
from f2a2_sim.learners.rate_decay import RateDecay
from tests.f2a2_sim.baselines.maac.comparison import compare
from tests.f2a2_sim.baselines.maac.plain_update import write_recordings
from tests.f2a2_sim.baselines.maac.recording import Recording, recording_of, recordings

PATHS = recordings()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_recorded_update(path: Path, dtype: torch.dtype, record_property: Callable[..., None]) -> None:
    checks = compare(recording_of(path), dtype)
    record_property("largest_error", str(checks.worst()))
    assert len(checks.errors) > 100
    assert not checks.failures()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_update_is_its_steps(path: Path) -> None:
    recording = recording_of(path)
    whole, apart = recording.learner(torch.float64), recording.learner(torch.float64)
    batch = recording.joint_batch(whole)
    replayed = recording.choose("critic/next_act"), recording.choose("policy/act")
    statistics = whole.update(batch, *replayed)

    seen = apart.look(batch.observations)
    target = apart.regression_target(batch, replayed[0])
    loss = apart.critic_loss(seen, batch.actions, target)
    assert statistics["critic_loss"] == pytest.approx(loss.squared_error().numpy())
    apart.step_critic()
    apart.step_policies(seen, apart.value_policies(seen, replayed[1]))
    apart.follow_targets()
    assert torch.equal(whole.critic.parameters, apart.critic.parameters)
    assert torch.equal(whole.critic.targets, apart.critic.targets)
    for a, b in zip(whole.policies, apart.policies, strict=True):
        assert torch.equal(a.parameters, b.parameters)
        assert torch.equal(a.targets, b.targets)
        assert torch.equal(a.moments.variance, b.moments.variance)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_rewards_are_standardised_as_recorded(path: Path) -> None:
    recording = recording_of(path)
    raw, seen = recording.stacked("batch/rew_raw"), recording.stacked("batch/rew")
    mean, deviation = recording["batch/buffer_rew_mean"], recording["batch/buffer_rew_std"]
    standardised = (raw - mean[:, None]) / deviation[:, None]
    factor = 200.0 if "stress" in path.stem else 1.0
    np.testing.assert_allclose(seen, factor * standardised, rtol=1e-5, atol=factor * 1e-5)


def test_steps_can_follow_a_whole_update() -> None:
    """An update runs in torch's inference mode, whose tensors nothing outside may write to."""
    recording = recording_of(PATHS[0])
    learner = recording.learner(torch.float32)
    batch = recording.joint_batch(learner)
    replayed = recording.choose("critic/next_act"), recording.choose("policy/act")
    learner.update(batch, *replayed)
    seen = learner.look(batch.observations)
    learner.critic_loss(seen, batch.actions, learner.regression_target(batch, replayed[0]))
    learner.step_critic()
    learner.step_policies(seen, learner.value_policies(seen, replayed[1]))
    learner.update(batch, *replayed)


@pytest.fixture(scope="module")
def stressful(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return Recording(write_recordings(tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_stressful_update_done_plainly(stressful: Recording, dtype: torch.dtype) -> None:
    """Ended episodes, clipped gradients, Adam in the midst of a training."""
    clipped = stressful["critic/grad_norm_before_clip"] > stressful["critic/clip_at"]
    assert clipped and stressful.has_optimiser and stressful["batch/done/0"].any()
    assert (stressful["policy/grad_norm_before_clip"] > stressful["policy/clip_at"]).any()
    checks = compare(stressful, dtype)
    assert len(checks.errors) > 400
    assert not checks.failures()


def test_neither_threads_nor_tapes_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is divided by its size, whatever computes the parts; from the third on updates are played."""
    rng, before = np.random.default_rng(0), torch.get_num_threads()
    sizes, batch = (6, 9, 9), 1100
    seen = [torch.from_numpy(rng.standard_normal((k, batch, s))).float() for k, s in ((1, 6), (2, 9))]
    joint = JointBatch(
        seen,
        torch.from_numpy(rng.integers(0, 5, (3, batch))),
        torch.from_numpy(rng.standard_normal((3, batch))).float(),
        [x.flip(1) for x in seen],
        torch.zeros(3, batch),
    )
    rows = []
    try:
        for threads, recorded in ((1, "1"), (2, "1"), (1, "0")):
            torch.set_num_threads(threads)
            monkeypatch.setenv("F2A2_RECORDED_UPDATES", recorded)
            decay = RateDecay(factor=0.5, updates=4)
            config = MaacConfig(hidden_size=32, learning_rate_decay=decay)
            learner = Maac(config, sizes, 5, np.random.default_rng(1))
            for _ in range(6):
                learner.update(joint, lambda p: p.argmax(dim=-1), lambda p: p.argmin(dim=-1))
            played = [len(learner.critic._recorded), *(len(p._recorded) for p in learner.policies)]
            assert all(played) == (recorded == "1"), played
            rows.append([learner.critic.parameters, *(p.parameters for p in learner.policies)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*rows, strict=True))
