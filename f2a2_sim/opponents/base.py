"""What an opponent is: a fixed policy for a whole army, without memory and without randomness of its own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Opponent(Protocol):
    """Maps what the living units see to their actions."""

    @property
    def needs_observations(self) -> bool:
        """False lets the world skip computing the army's observations; ``act`` then gets zero columns."""
        ...

    def act(self, observations: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """Actions, int64 ``[m]``.

        observations: float32 ``[m, size]`` of the m living units. uniforms: float64 ``[m, 2]`` in [0, 1), all
        the randomness that the policy may use; the world draws it from the episode's seed.
        """
        ...
