"""Standardising by the batch, and a shorter way for one-hot vectors."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from f2a2_sim.learners.standardise import standardise, standardise_choices


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_choices_are_standardised_as_their_one_hot_vectors(dtype: torch.dtype) -> None:
    """Also of an agent that always does the same, and where an action is never taken."""
    actions = torch.stack([torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(3))] * 2)
    actions[1] = 2
    found = standardise_choices(actions, 5, torch.empty(0, dtype=dtype))
    expected = standardise(one_hot(actions, 5).to(dtype)).values
    assert found.dtype == dtype and found.shape == (2, 50, 5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 if dtype == torch.float64 else 1e-5)
