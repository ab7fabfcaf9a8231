"""The opponent that picks every action with equal probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RandomOpponent:
    """Uniform over ``n_actions``, from each unit's first uniform."""

    needs_observations = False

    def __init__(self, n_actions: int) -> None:
        self._n_actions = n_actions

    def act(self, observations: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(uniforms[:, 0] * self._n_actions, dtype=np.int64)
