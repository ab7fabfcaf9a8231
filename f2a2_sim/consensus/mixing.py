"""Weighted sums of snapshot rows: the arithmetic of every consensus scheme, as a matrix product."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.pool import BlockPool, one_thread

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_COLUMNS_PER_BLOCK = 65_536
_LEAST_DENSE = 17  # sums


class Mixer:
    """Weighted sums of snapshot rows, one agent a thread, or all in one product where rows are used often.

    A sparse product reads each row once for every use, a dense one reads each row once but has to copy it
    together first; on a GPU it is always dense. Sums lie in buffers that the next call overwrites: fresh
    memory of this size costs more than the sums.
    """

    def __init__(self) -> None:
        self._threads = BlockPool()
        self._buffer: Tensor | None = None

    def mix(
        self,
        pool: Tensor,
        rows: Sequence[IntArray],
        weights: Sequence[FloatArray],
        use: Callable[[int, Tensor], None],
    ) -> None:
        """Call ``use(k, sum_m weights[k][m] * pool[rows[k][m]])`` for every ``k``; sums are ``[width]``.

        ``rows[k]`` are distinct. Calls for different k may come at once, on threads.
        """
        if pool.device.type != "cpu" or shared_often(rows):
            sums = self._rows(len(rows), pool)
            _dense(pool, rows, weights, sums)
            for k, total in enumerate(sums):
                use(k, total)
            return
        sums = self._rows(torch.get_num_threads(), pool)

        def one(worker: int, k: int) -> None:
            _sparse(pool, rows[k], weights[k], sums[worker])
            use(k, sums[worker])

        with one_thread() if len(rows) == 1 else nullcontext():
            self._threads.map(one, range(len(rows)))

    def _rows(self, count: int, like: Tensor) -> Tensor:
        if self._buffer is None or self._buffer.shape[0] < count:
            self._buffer = torch.empty(count, like.shape[1], dtype=like.dtype, device=like.device)
        return self._buffer[:count]


def shared_often(rows: Sequence[IntArray]) -> bool:
    """Whether one dense product for all sums is faster than a sparse one for each.

    Never of a few sums: it saves little there, and rounds otherwise than an agent that adds up its own alone.
    """
    if len(rows) < _LEAST_DENSE:
        return False
    pairs = sum(len(r) for r in rows)
    return pairs > (3.0 + 0.04 * len(rows)) * np.unique(np.concatenate(rows)).size


def _dense(pool: Tensor, rows: Sequence[IntArray], weights: Sequence[FloatArray], out: Tensor) -> None:
    used = np.unique(np.concatenate(rows))
    matrix = np.zeros((len(rows), used.size))
    for k, (own_rows, own_weights) in enumerate(zip(rows, weights, strict=True)):
        matrix[k, np.searchsorted(used, own_rows)] = own_weights
    mixing = torch.from_numpy(matrix).to(pool)
    index = torch.from_numpy(used).to(pool.device)
    width = pool.shape[1]
    block = _COLUMNS_PER_BLOCK if pool.device.type == "cpu" else max(width, 1)
    for start in range(0, width, block):
        stop = min(start + block, width)
        out[:, start:stop] = mixing @ pool[:, start:stop].index_select(0, index)


def _sparse(pool: Tensor, rows: IntArray, weights: FloatArray, out: Tensor) -> None:
    if len(rows) == 0:
        out.zero_()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        mixing = torch.sparse_csr_tensor(
            torch.tensor([0, len(rows)]),
            torch.from_numpy(rows),
            torch.from_numpy(weights).to(pool.dtype),
            (1, pool.shape[0]),
            device=pool.device,
            check_invariants=False,
        )
    width = pool.shape[1]
    for start in range(0, width, _COLUMNS_PER_BLOCK):
        stop = min(start + _COLUMNS_PER_BLOCK, width)
        out[start:stop] = (mixing @ pool[:, start:stop])[0]
