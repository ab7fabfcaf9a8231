"""Step sizes that fall, in whole updates of every baseline."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from f2a2_sim.baselines.registry import BASELINES, make_trainer

SMALL: dict[str, Any] = {"rollouts": 2, "batch_size": 24, "replay_transitions": 100, "hidden_size": 16}


def _networks(state: Any) -> list[Tensor]:
    """Copies of all that is called parameters, in order."""
    if isinstance(state, list):
        return [found for part in state for found in _networks(part)]
    if not isinstance(state, dict):
        return []
    own = [torch.as_tensor(state["parameters"]).clone()] if "parameters" in state else []
    return own + [found for key, part in state.items() if key != "parameters" for found in _networks(part)]


def _trained(name: str, **keys: Any) -> tuple[list[Tensor], list[Tensor]]:
    """All networks after the first update and after the second."""
    config = BASELINES[name].config.model_validate({**SMALL, "steps_per_round": 10**6, **keys})
    trainer = make_trainer(name, "rover_tower", config, 1, torch.device("cpu"), lambda part: nullcontext())
    for _ in range(20):
        trainer.step()
    after = []
    for _ in range(2):
        trainer.learner.learn(trainer.replay, trainer.draws)
        after.append(_networks(trainer.learner.state()))
    return after[0], after[1]


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_all_networks_take_shorter_steps(name: str) -> None:
    whole = _trained(name)
    shorter = _trained(name, learning_rate_decay={"factor": 1e-3, "updates": 1})
    left = 0.5 if name == "ma_ac" else 0.02  # its critics move towards their neighbours' besides
    assert whole[0]
    for plain, decayed in zip(zip(*whole, strict=True), zip(*shorter, strict=True), strict=True):
        torch.testing.assert_close(decayed[0], plain[0], rtol=1e-5, atol=1e-7)
        moved, crept = ((after - before).abs().max() for before, after in (plain, decayed))
        assert moved > 1e-4
        assert crept < left * moved
