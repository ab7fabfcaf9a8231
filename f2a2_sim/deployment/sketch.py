"""Small summaries of long vectors, from which distances between the vectors can be told.

A count sketch (Charikar, Chen and Farach-Colton 2002) adds every number, with a random sign, to one of a few
sums; squared distances of sketches are unbiased estimates of squared distances of the vectors, with a
relative standard error of about ``sqrt(2 / sums)``: 4 % with 1,024. So the world can tell how far the agents'
parameters are from each other without ever seeing them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SUMS = 1024
_TABLES: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}


def sketch(values: Tensor, seed: int) -> NDArray[np.float64]:
    """Count sketch of ``values`` ``[S]``: float64 ``[SUMS]``; equal seeds, comparable sketches."""
    place, sign = _table(values.shape[0], seed)
    sums = torch.zeros(SUMS, dtype=torch.float64)
    sums.index_add_(0, place, values.detach().cpu().double() * sign)
    return sums.numpy()


def mean_distance(sketches: NDArray[np.float64]) -> float:
    """Mean Euclidean distance of vectors from their mean, by their sketches ``[agents, SUMS]``."""
    return float(np.linalg.norm(sketches - sketches.mean(axis=0), axis=1).mean())


def norm_of_mean(sketches: NDArray[np.float64]) -> float:
    """Euclidean norm of the mean of vectors, by their sketches ``[agents, SUMS]``."""
    return float(np.linalg.norm(sketches.mean(axis=0)))


def _table(width: int, seed: int) -> tuple[Tensor, Tensor]:
    key = (width, seed)
    if key not in _TABLES:
        rng = np.random.default_rng([width, seed])
        place = torch.from_numpy(rng.integers(0, SUMS, width))
        sign = torch.from_numpy(rng.choice([-1.0, 1.0], width))
        _TABLES[key] = (place, sign)
    return _TABLES[key]
