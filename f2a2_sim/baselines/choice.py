"""Choosing discrete actions by uniforms that the caller draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Choose = Callable[[Tensor], Tensor]
"""Chooses actions, int64 ``[n, batch]``, by their probabilities ``[n, batch, actions]``."""


def choose_by(uniforms: NDArray[np.float64]) -> Choose:
    """Sample with uniforms in [0, 1) ``[n, batch]``: the first action whose cumulated share exceeds it."""

    def choose(probabilities: Tensor) -> Tensor:
        cumulated = probabilities.double().cumsum(dim=-1)
        marks = torch.from_numpy(uniforms).to(cumulated.device).unsqueeze(-1) * cumulated[..., -1:]
        return (cumulated <= marks).sum(dim=-1).clamp_max(probabilities.shape[-1] - 1)

    return choose
