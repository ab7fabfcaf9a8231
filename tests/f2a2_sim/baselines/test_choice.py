"""Actions chosen by uniforms."""

from __future__ import annotations

import numpy as np
import torch

from f2a2_sim.baselines.choice import choose_by


def test_the_first_action_whose_cumulated_share_exceeds_the_uniform() -> None:
    probabilities = torch.tensor([0.25, 0.0, 0.5, 0.25]).expand(1, 8, 4)
    uniforms = np.array([[0.0, 0.125, 0.25, 0.5, 0.75 - 2**-50, 0.75, 0.875, 1.0 - 2**-53]])
    assert choose_by(uniforms)(probabilities).tolist() == [[0, 0, 2, 2, 2, 3, 3, 3]]
    assert uniforms[0, 1] == 0.125, "they are the caller's"
