"""Weighted sums of snapshot rows: the arithmetic of every consensus scheme."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Above this share of used (agent, row) pairs one matrix product beats a sum per agent.
_DENSE_FROM = 0.2
_COLUMNS_PER_BLOCK = 16_384


def weighted_sums(pool: Tensor, rows: Sequence[IntArray], weights: Sequence[FloatArray], out: Tensor) -> None:
    """``out[k] = sum_m weights[k][m] * pool[rows[k][m]]`` for every ``k``; ``out`` is ``[K, width]``."""
    used = np.unique(np.concatenate([*rows, np.empty(0, dtype=np.int64)]))
    pairs = sum(len(r) for r in rows)
    if len(rows) >= 8 and pairs > _DENSE_FROM * len(rows) * max(used.size, 1):
        _dense(pool, used, rows, weights, out)
    else:
        _gather(pool, rows, weights, out)


def _dense(
    pool: Tensor, used: IntArray, rows: Sequence[IntArray], weights: Sequence[FloatArray], out: Tensor
) -> None:
    matrix = np.zeros((len(rows), used.size))
    for k, (own_rows, own_weights) in enumerate(zip(rows, weights, strict=True)):
        matrix[k, np.searchsorted(used, own_rows)] = own_weights
    mixing = torch.from_numpy(matrix).to(pool)
    index = torch.from_numpy(used).to(pool.device)
    width = pool.shape[1]
    for start in range(0, width, _COLUMNS_PER_BLOCK):
        stop = min(start + _COLUMNS_PER_BLOCK, width)
        out[:, start:stop] = mixing @ pool[:, start:stop].index_select(0, index)


def _gather(pool: Tensor, rows: Sequence[IntArray], weights: Sequence[FloatArray], out: Tensor) -> None:
    for k, (own_rows, own_weights) in enumerate(zip(rows, weights, strict=True)):
        target = out[k]
        target.zero_()
        for row, weight in zip(own_rows.tolist(), own_weights.tolist(), strict=True):
            target.add_(pool[row], alpha=weight)
