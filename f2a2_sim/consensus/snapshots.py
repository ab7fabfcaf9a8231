"""Versioned copies of shared parameters: what a consensus message refers to instead of carrying it.

In the simulator one broadcast is one row here however many neighbours receive it: messages hold the
row's version number and pay for their bytes in the network model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.pool import one_thread

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class SnapshotPool:
    """Rows of ``width`` parameters, addressed by an ever-growing version number.

    Rows that nobody refers to any more are reused after :meth:`retain`; storage grows only when
    every row is referred to, so memory follows the number of copies that are really alive.
    """

    def __init__(self, width: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self._rows = torch.empty(max(capacity, 1), width, dtype=dtype, device=device)
        self._free = list(range(self._rows.shape[0] - 1, -1, -1))
        self._row_of_version = np.full(1024, -1, dtype=np.int64)
        self._number_of_version = np.zeros(1024)
        self._round_of_version = np.zeros(1024, dtype=np.int64)
        self._next_version = 0

    @property
    def rows(self) -> Tensor:
        """The storage ``[capacity, width]``; only rows returned by :meth:`row_of` have a meaning."""
        return self._rows

    @property
    def free_rows(self) -> int:
        return len(self._free)

    @property
    def live_rows(self) -> int:
        return self._rows.shape[0] - len(self._free)

    def add(self, values: Sequence[Tensor], numbers: FloatArray, rounds: IntArray) -> IntArray:
        """Keep copies of ``values`` (``b`` rows ``[width]``) with what else a message carries: a number of
        the scheme's (a degree, a weight) and the sender's round. Returns their new versions, int64 ``[b]``.
        """
        count = len(values)
        while len(self._free) < count:
            self._grow()
        taken = [self._free.pop() for _ in range(count)]
        with one_thread():
            for row, value in zip(taken, values, strict=True):
                self._rows[row].copy_(value)
        versions = np.arange(self._next_version, self._next_version + count, dtype=np.int64)
        self._next_version += count
        self._reserve_versions()
        self._row_of_version[versions] = taken
        self._number_of_version[versions] = numbers
        self._round_of_version[versions] = rounds
        return versions

    def row_of(self, versions: IntArray) -> IntArray:
        """Storage rows of ``versions``; every version must be alive."""
        rows = self._row_of_version[versions]
        assert (rows >= 0).all(), "a version was read after it had been released"
        return rows

    def number_of(self, versions: IntArray) -> FloatArray:
        """The scheme's number that came with each of ``versions``."""
        return self._number_of_version[versions]

    def round_of(self, versions: IntArray) -> IntArray:
        """The senders' rounds of ``versions``."""
        return self._round_of_version[versions]

    def retain(self, versions: IntArray) -> None:
        """Release every row except those of ``versions`` (repeats and unknown numbers are ignored)."""
        wanted = self._alive_among(versions)
        keep = self._row_of_version[wanted]
        alive = self._alive_versions()
        dead = alive[~np.isin(alive, wanted, assume_unique=True)]
        self._row_of_version[dead] = -1
        used = np.zeros(self._rows.shape[0], dtype=bool)
        used[keep] = True
        self._free = np.flatnonzero(~used)[::-1].tolist()

    def state(self, needed: IntArray) -> dict[str, Any]:
        """Only the rows of versions ``needed`` (repeats and unknown numbers are ignored), as views.

        What nobody refers to any more is not saved, but keeps its place: when storage is next reclaimed
        must not depend on whether a run was saved.
        """
        versions = self._alive_among(needed)
        versions = versions[np.argsort(self._row_of_version[versions])]
        rows = self._row_of_version[versions]
        return {
            "versions": versions,
            "rows": rows,
            "numbers": self._number_of_version[versions],
            "rounds": self._round_of_version[versions],
            "values": [self._rows[start:stop] for start, stop in _runs(rows)],
            "free": np.asarray(self._free, dtype=np.int64),
            "next_version": self._next_version,
            "capacity": int(self._rows.shape[0]),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        capacity = int(state["capacity"])
        if capacity != self._rows.shape[0]:
            self._rows = torch.empty(
                capacity, self._rows.shape[1], dtype=self._rows.dtype, device=self._rows.device
            )
        self._next_version = int(state["next_version"])
        self._row_of_version = np.full(1024, -1, dtype=np.int64)
        self._number_of_version = np.zeros(1024)
        self._round_of_version = np.zeros(1024, dtype=np.int64)
        self._reserve_versions()
        versions = np.asarray(state["versions"], dtype=np.int64)
        rows = np.asarray(state["rows"], dtype=np.int64)
        self._row_of_version[versions] = rows
        self._number_of_version[versions] = state["numbers"]
        self._round_of_version[versions] = state["rounds"]
        for (start, stop), values in zip(_runs(rows), state["values"], strict=True):
            self._rows[start:stop].copy_(values)
        self._free = [int(row) for row in state["free"]]

    def _alive_among(self, versions: IntArray) -> IntArray:
        """Those of ``versions`` that are alive, each once, ascending."""
        known = np.unique(versions[(versions >= 0) & (versions < self._next_version)])
        return known[self._row_of_version[known] >= 0]

    def _alive_versions(self) -> IntArray:
        return np.flatnonzero(self._row_of_version >= 0).astype(np.int64)

    def _reserve_versions(self) -> None:
        size = self._row_of_version.size
        if self._next_version <= size:
            return
        added = max(size, self._next_version - size)
        self._row_of_version = np.concatenate([self._row_of_version, np.full(added, -1, dtype=np.int64)])
        self._number_of_version = np.concatenate([self._number_of_version, np.zeros(added)])
        self._round_of_version = np.concatenate([self._round_of_version, np.zeros(added, dtype=np.int64)])

    def _grow(self) -> None:
        old = self._rows
        capacity = old.shape[0] + max(old.shape[0] // 2, 8)
        self._rows = torch.empty(capacity, old.shape[1], dtype=old.dtype, device=old.device)
        self._rows[: old.shape[0]] = old
        self._free[:0] = range(capacity - 1, old.shape[0] - 1, -1)


def _runs(ascending: IntArray) -> list[tuple[int, int]]:
    """Ascending numbers as ranges (first, last + 1) without gaps."""
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(ascending, breaks) if part.size]
