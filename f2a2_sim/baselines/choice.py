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
        left = torch.from_numpy(uniforms).to(probabilities.device, copy=True)
        chosen = torch.zeros(left.shape, dtype=torch.int8, device=left.device)
        for probability in probabilities.unbind(-1)[:-1]:
            chosen.add_(left.sub_(probability) >= 0)
        return chosen.long()

    return choose
