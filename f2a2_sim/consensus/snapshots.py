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
from f2a2_sim.learners.stacked import zeros

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_LEAST_FREE = 0.2  # of the usable rows, after those that nobody refers to have been released


class SnapshotPool:
    """Rows of ``width`` parameters, addressed by an ever-growing version number.

    Rows that nobody refers to any more are reused after :meth:`retain`, and rows never used are taken only
    when most of the others are alive: memory follows the number of copies that are really alive, and the
    first write to new memory costs many times what a later one does.
    """

    def __init__(self, width: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        """``capacity``: rows for which address space is reserved; more are made when they are needed."""
        self._rows = zeros((max(capacity, 1), width), dtype, device)
        self._usable = 0
        self._free: list[int] = []
        self._grow()
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
        return self._usable - len(self._free)

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
        used = np.zeros(self._usable, dtype=bool)
        used[keep] = True
        self._free = np.flatnonzero(~used)[::-1].tolist()
        if len(self._free) < self._usable * _LEAST_FREE:
            self._grow()

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
            "usable": self._usable,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._usable = int(state["usable"])
        if self._usable > self._rows.shape[0]:
            self._rows = zeros((self._usable, self._rows.shape[1]), self._rows.dtype, self._rows.device)
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
        """Let half as many rows again be used; at first a third of the reserved ones."""
        old, before = self._rows, self._usable
        added = before // 2 if before else old.shape[0] // 3
        self._usable += max(added, 1)
        if self._usable > old.shape[0]:
            self._rows = zeros((self._usable, old.shape[1]), old.dtype, old.device)
            self._rows[:before] = old[:before]
        self._free[:0] = range(self._usable - 1, before - 1, -1)


def _runs(ascending: IntArray) -> list[tuple[int, int]]:
    """Ascending numbers as ranges (first, last + 1) without gaps."""
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(ascending, breaks) if part.size]
