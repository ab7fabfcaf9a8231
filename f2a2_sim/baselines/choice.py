"""Choosing discrete actions by uniforms that the caller draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.few import sample

Choose = Callable[[Tensor], Tensor]
"""Chooses actions, int64 ``[n, batch]``, by their probabilities ``[n, batch, actions]``."""


def choose_by(uniforms: NDArray[np.float64]) -> Choose:
    """Sample with uniforms in [0, 1) ``[n, batch]``: the first action whose cumulated share exceeds it."""

    def choose(probabilities: Tensor) -> Tensor:
        return sample(probabilities, torch.from_numpy(uniforms).to(probabilities.device, copy=True))

    return choose
