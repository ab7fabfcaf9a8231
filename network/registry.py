"""Compact numbers (slots) for the links that exist or have existed."""

from __future__ import annotations

from typing import Any

import numpy as np

from network.streams import Ints, padded

_DENSE_AGENTS = 2048  # up to here a table of all agents * agents link ids is affordable


class LinkRegistry:
    """Numbers the links in the order in which they first appear, so that per-link arrays stay small.

    A link id is ``sender * n_agents + receiver``; its slot never changes, also when the graph is
    redrawn and the link goes away and comes back.
    """

    def __init__(self, n_agents: int) -> None:
        self._n_agents = n_agents
        self._ids: Ints = np.zeros(0, dtype=np.int64)
        self.size = 0
        dense = n_agents <= _DENSE_AGENTS
        self._table = np.full(n_agents * n_agents, -1, dtype=np.int32) if dense else None
        self._sorted_ids: Ints = np.zeros(0, dtype=np.int64)
        self._sorted_slots: Ints = np.zeros(0, dtype=np.int64)

    def slots(self, ids: Ints) -> Ints:
        """The slot of each link id (each once at most), new ones given out: int64 ``[len(ids)]``."""
        found = self._find(ids)
        new = np.flatnonzero(found < 0)
        if new.size:
            found[new] = np.arange(self.size, self.size + new.size)
            self._append(ids[new])
        return found

    def ids(self, slots: Ints) -> Ints:
        """The link id of each slot."""
        return self._ids[slots]

    def all_ids(self) -> Ints:
        """Link ids in slot order: int64 ``[size]``."""
        return self._ids[: self.size]

    def state(self) -> dict[str, Any]:
        return {"ids": self.all_ids().copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        if self._table is not None:
            self._table[:] = -1
        self._sorted_ids = np.zeros(0, dtype=np.int64)
        self._sorted_slots = np.zeros(0, dtype=np.int64)
        self.size = 0
        self._append(np.asarray(state["ids"], dtype=np.int64))

    def _find(self, ids: Ints) -> Ints:
        if self._table is not None:
            return self._table[ids].astype(np.int64)
        if self._sorted_ids.size == 0:
            return np.full(len(ids), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._sorted_ids, ids), self._sorted_ids.size - 1)
        return np.where(self._sorted_ids[place] == ids, self._sorted_slots[place], -1)

    def _append(self, ids: Ints) -> None:
        end = self.size + len(ids)
        if end > self._ids.size:
            self._ids = padded(self._ids, max(end, 2 * self._ids.size), 0)
        self._ids[self.size : end] = ids
        slots = np.arange(self.size, end, dtype=np.int64)
        self.size = end
        if self._table is not None:
            self._table[ids] = slots
            return
        merged_ids = np.concatenate([self._sorted_ids, ids])
        order = np.argsort(merged_ids)
        self._sorted_ids = merged_ids[order]
        self._sorted_slots = np.concatenate([self._sorted_slots, slots])[order]
