"""What this package asks of a source of randomness: one independent stream per agent."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class RandomStreams(Protocol):
    """One stream per id; the order in which streams are drawn never changes what any of them yields.

    An id may occur only once in a call. Whoever owns the streams also saves and restores them.
    """

    def uniform(self, ids: IntArray, draws: int = 1) -> FloatArray:
        """Next ``draws`` numbers in [0, 1) of each stream: float64 ``[len(ids), draws]``."""
        ...

    def normal(self, ids: IntArray, draws: int = 1) -> FloatArray:
        """Next ``draws`` standard normals of each stream: float64 ``[len(ids), draws]``."""
        ...
