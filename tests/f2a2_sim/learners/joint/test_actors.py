"""Everybody's policies at one moment against each agent's own."""

from __future__ import annotations

import numpy as np
import torch

from f2a2_sim.learners.joint.actors import FrozenActors
from tests.f2a2_sim.learners.joint.conftest import ACTIONS, SIZES, make_joint, random_observations


def test_frozen_policies_are_the_agents_own() -> None:
    """With standardising folded into the first layers; and they stay what they were."""
    fleet = make_joint("f2a2_ddpg")
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(np.stack([random_observations(rng) for _ in range(2)])).double()  # two devices'
    frozen = FrozenActors(fleet.actors)
    own = fleet.actors.logits(torch.arange(len(SIZES)), seen.transpose(0, 1).flatten(1, 2))
    expected = own.view(len(SIZES), 2, -1, ACTIONS).transpose(0, 1)
    torch.testing.assert_close(frozen.logits(seen), expected)
    fleet.parameters.add_(1.0)
    fleet.actors.moments.mean.add_(1.0)
    torch.testing.assert_close(frozen.logits(seen), expected)
    again = FrozenActors(fleet.actors).logits(seen)
    assert not torch.equal(again, expected)
    frozen.freeze()
    assert torch.equal(frozen.logits(seen), again)
