"""Weighted sums of snapshot rows: the arithmetic of every consensus scheme, as a matrix product."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_COLUMNS_PER_BLOCK = 16_384


def weighted_sums(pool: Tensor, rows: Sequence[IntArray], weights: Sequence[FloatArray], out: Tensor) -> None:
    """``out[k] = sum_m weights[k][m] * pool[rows[k][m]]`` for every ``k``; ``out`` is ``[K, width]``.

    ``rows[k]`` are distinct. A sparse product reads each row once for every use, a dense one reads each
    row once but has to copy it together first: it pays when rows are used often.
    """
    used = np.unique(np.concatenate([*rows, np.empty(0, dtype=np.int64)]))
    pairs = sum(len(r) for r in rows)
    if pairs == 0:
        out.zero_()
    elif pairs > (3.0 + 0.04 * len(rows)) * used.size:
        _dense(pool, used, rows, weights, out)
    else:
        _sparse(pool, rows, weights, out)


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


def _sparse(pool: Tensor, rows: Sequence[IntArray], weights: Sequence[FloatArray], out: Tensor) -> None:
    bounds = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        mixing = torch.sparse_csr_tensor(
            torch.from_numpy(bounds),
            torch.from_numpy(np.concatenate(rows)),
            torch.from_numpy(np.concatenate(weights)).to(pool.dtype),
            (len(rows), pool.shape[0]),
            device=pool.device,
            check_invariants=False,
        )
    width = pool.shape[1]
    for start in range(0, width, _COLUMNS_PER_BLOCK):
        stop = min(start + _COLUMNS_PER_BLOCK, width)
        out[:, start:stop] = mixing @ pool[:, start:stop]
