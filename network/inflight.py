"""Messages on their way: columns of numbers, and a calendar of arrival times over them.

A large batch becomes a sorted run; small ones go into a heap. Taking what has arrived touches only the runs
whose next arrival is due, and when that becomes many, the smaller of them are merged into one.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from network.streams import Bools, Floats, Ints, padded

_HEAP_BATCH = 32  # batches up to this size go into the heap
_MANY_RUNS = 8
_SMALL_RUN = 1024


class Flight(NamedTuple):
    """Columns of some messages in flight, one element each."""

    arrival_s: Floats
    sequence: Ints
    sent_s: Floats
    tx_start_s: Floats
    slot: Ints
    version: Ints

    def rows(self, chosen: Ints | Bools) -> Flight:
        """The chosen messages."""
        return Flight(
            self.arrival_s[chosen],
            self.sequence[chosen],
            self.sent_s[chosen],
            self.tx_start_s[chosen],
            self.slot[chosen],
            self.version[chosen],
        )


class _Run:
    """Rows in order of arrival, of which the first ones are gone."""

    __slots__ = ("arrival_s", "begin", "rows")

    def __init__(self, arrival_s: Floats, rows: Ints) -> None:
        self.arrival_s = arrival_s
        self.rows = rows
        self.begin = 0

    def __len__(self) -> int:
        return len(self.rows) - self.begin


class InFlight:
    """All messages that have not arrived yet."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sequence: Ints = np.zeros(0, dtype=np.int64)
        self._sent_s: Floats = np.zeros(0)
        self._tx_start_s: Floats = np.zeros(0)
        self._slot: Ints = np.zeros(0, dtype=np.int64)
        self._version: Ints = np.zeros(0, dtype=np.int64)
        self._free: Ints = np.zeros(0, dtype=np.int64)
        self._n_free = 0
        self._heap: list[tuple[float, int, int]] = []
        self._runs: list[tuple[float, int, _Run]] = []
        self._in_runs = 0
        self._n_runs_made = 0

    def __len__(self) -> int:
        return len(self._heap) + self._in_runs

    def add(
        self,
        arrival_s: Floats,
        sequence: Ints,
        sent_s: float,
        tx_start_s: Floats,
        slot: Ints,
        version: Ints | int,
    ) -> None:
        """Add messages of one instant, their sequence numbers ascending: arrays ``[m]``."""
        count = len(arrival_s)
        rows = self._claim(count)
        self._sequence[rows] = sequence
        self._sent_s[rows] = sent_s
        self._tx_start_s[rows] = tx_start_s
        self._slot[rows] = slot
        self._version[rows] = version
        if count <= _HEAP_BATCH:
            for entry in zip(arrival_s.tolist(), sequence.tolist(), rows.tolist(), strict=True):
                heapq.heappush(self._heap, entry)
        else:
            order = np.argsort(arrival_s)
            if _has_ties(arrival_s[order]):
                order = np.argsort(arrival_s, kind="stable")
            self._add_run(arrival_s[order], rows[order])

    def next_arrival_s(self) -> float:
        """Time of the next arrival; inf if there is none."""
        heap = self._heap[0][0] if self._heap else np.inf
        return min(heap, self._runs[0][0]) if self._runs else heap

    def take_until(self, until_s: float) -> Flight | None:
        """Remove and return what arrives up to and including that time, in order of (arrival, sequence)."""
        arrivals: list[Floats] = []
        rows: list[Ints] = []
        if self._heap and self._heap[0][0] <= until_s:
            due = []
            while self._heap and self._heap[0][0] <= until_s:
                due.append(heapq.heappop(self._heap))
            arrivals.append(np.array([entry[0] for entry in due]))
            rows.append(np.array([entry[2] for entry in due], dtype=np.int64))
        if self._runs and self._runs[0][0] <= until_s:
            self._take_from_runs(until_s, arrivals, rows)
        if not rows:
            return None
        if len(rows) == 1:
            arrival, row = arrivals[0], rows[0]
        else:
            arrival, row = np.concatenate(arrivals), np.concatenate(rows)
            order = self._order(arrival, row)
            arrival, row = arrival[order], row[order]
        return self._release(arrival, row)

    def all(self) -> Flight:
        """Every message in flight, in order of (arrival, sequence); nothing is removed."""
        arrival = [np.array([entry[0] for entry in self._heap], dtype=np.float64)]
        rows = [np.array([entry[2] for entry in self._heap], dtype=np.int64)]
        for _, _, run in self._runs:
            arrival.append(run.arrival_s[run.begin :])
            rows.append(run.rows[run.begin :])
        arrivals, row = np.concatenate(arrival), np.concatenate(rows)
        order = self._order(arrivals, row)
        return self._columns(arrivals[order], row[order])

    def replace_all(self, flight: Flight) -> None:
        """Forget what is in flight and take these messages instead, in order of (arrival, sequence)."""
        self._clear()
        rows = self._claim(len(flight.slot))
        self._sequence[rows] = flight.sequence
        self._sent_s[rows] = flight.sent_s
        self._tx_start_s[rows] = flight.tx_start_s
        self._slot[rows] = flight.slot
        self._version[rows] = flight.version
        self._add_run(flight.arrival_s, rows)

    # ------------------------------------------------------------ rows

    def _claim(self, count: int) -> Ints:
        if count > self._n_free:
            have = len(self._slot)
            grow = max(count - self._n_free, have, 256)
            for name in ("_sequence", "_sent_s", "_tx_start_s", "_slot", "_version", "_free"):
                setattr(self, name, padded(getattr(self, name), have + grow, 0))
            self._free[self._n_free : self._n_free + grow] = np.arange(have + grow - 1, have - 1, -1)
            self._n_free += grow
        self._n_free -= count
        return self._free[self._n_free : self._n_free + count].copy()

    def _release(self, arrival_s: Floats, rows: Ints) -> Flight:
        flight = self._columns(arrival_s, rows)
        self._free[self._n_free : self._n_free + len(rows)] = rows
        self._n_free += len(rows)
        return flight

    def _columns(self, arrival_s: Floats, rows: Ints) -> Flight:
        return Flight(
            arrival_s,
            self._sequence[rows],
            self._sent_s[rows],
            self._tx_start_s[rows],
            self._slot[rows],
            self._version[rows],
        )

    # ------------------------------------------------------------ calendar

    def _order(self, arrival_s: Floats, rows: Ints) -> NDArray[np.intp]:
        """Permutation into the order of (arrival, sequence)."""
        order = np.argsort(arrival_s)
        if _has_ties(arrival_s[order]):
            order = np.lexsort((self._sequence[rows], arrival_s))
        return order

    def _add_run(self, arrival_s: Floats, rows: Ints) -> None:
        if len(rows) == 0:
            return
        self._n_runs_made += 1
        heapq.heappush(self._runs, (float(arrival_s[0]), self._n_runs_made, _Run(arrival_s, rows)))
        self._in_runs += len(rows)

    def _take_from_runs(self, until_s: float, arrivals: list[Floats], rows: list[Ints]) -> None:
        left: list[_Run] = []
        while self._runs and self._runs[0][0] <= until_s:
            run = heapq.heappop(self._runs)[2]
            end = int(run.arrival_s.searchsorted(until_s, side="right"))
            arrivals.append(run.arrival_s[run.begin : end])
            rows.append(run.rows[run.begin : end])
            self._in_runs -= end - run.begin
            run.begin = end
            if len(run):
                left.append(run)
        for run in self._merged(left) if len(left) > _MANY_RUNS else left:
            self._n_runs_made += 1
            heapq.heappush(self._runs, (float(run.arrival_s[run.begin]), self._n_runs_made, run))

    def _merged(self, runs: list[_Run]) -> list[_Run]:
        """The runs with the smaller ones merged; a run joins only in merges of at least half its size."""
        runs.sort(key=len)
        total, count = 0, 0
        while count < len(runs) and len(runs[count]) <= max(2 * total, _SMALL_RUN):
            total += len(runs[count])
            count += 1
        if count < 2:
            return runs
        arrival = np.concatenate([run.arrival_s[run.begin :] for run in runs[:count]])
        rows = np.concatenate([run.rows[run.begin :] for run in runs[:count]])
        order = self._order(arrival, rows)
        return [*runs[count:], _Run(arrival[order], rows[order])]


def _has_ties(ascending: Floats) -> bool:
    return bool((ascending[1:] == ascending[:-1]).any())
