"""What the steps of critic and policies have in common: clipping as torch does it, and saved states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from f2a2_sim.errors import CheckpointError
from f2a2_sim.learners.stacked import StackedAdam

_CLIP_EPSILON = 1e-6


def clip_norms(gradients: Tensor, limit: float) -> Tensor:
    """Multiply rows of ``[k, P]`` by min(1, limit / (norm + 1e-6)), in place; the norms before, ``[k]``."""
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)
    gradients.mul_((limit / (norms + _CLIP_EPSILON)).clamp_max(1.0).unsqueeze(1))
    return norms


def optimiser_state(adam: StackedAdam) -> dict[str, Any]:
    """Views of what Adam keeps."""
    return {
        "first_moment": adam.first_moment,
        "second_moment": adam.second_moment,
        "steps": adam.steps,
    }


def load_into(views: dict[str, Any], saved: dict[str, Any]) -> None:
    """Copy saved tensors over the living ones of equal names."""
    for name, view in views.items():
        value = torch.as_tensor(saved[name])
        if value.shape != view.shape:
            raise CheckpointError(
                f"checkpoint of MAAC: {name} has shape {tuple(value.shape)}, expected {tuple(view.shape)}; "
                "continue with the world and the settings that it was written with"
            )
        view.copy_(value)
