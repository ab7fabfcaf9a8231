"""Collects a run's rows while it runs, as plain arrays that a checkpoint can carry.

The simulator calls the recorder inside its event loop: appends cost a few microseconds and never
touch the disk. ``state()`` is everything recorded so far, so the tables of a run that was killed
and resumed equal those of one that was not, bit for bit (columns of wall-clock time aside).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import (
    EPISODES,
    METRICS,
    NUMPY_TYPES,
    TIMELINE,
    TIMELINE_KINDS,
    Columns,
    TableSchema,
)

FloatArray = NDArray[np.float64]
_MOST_NEW_AGES = 8192
_KIND_CODES = {kind: code for code, kind in enumerate(TIMELINE_KINDS)}


class RowListener(Protocol):
    """Hears of every metrics row as it is recorded (progress display, TensorBoard)."""

    def on_row(self, row: Mapping[str, Any]) -> None: ...


class RowStore:
    """Rows of one table in growing numpy columns; text columns are not for it."""

    def __init__(self, schema: TableSchema, codes: Sequence[str] = ()) -> None:
        self._types = {c.name: np.int8 if c.name in codes else NUMPY_TYPES[c.kind] for c in schema.columns}
        self._schema = schema
        self._arrays: Columns = {name: np.empty(64, dtype=dtype) for name, dtype in self._types.items()}
        self.length = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; KeyError if a column is missing or unknown."""
        if row.keys() != self._types.keys():
            odd = sorted(row.keys() ^ self._types.keys())
            raise KeyError(f"row of {self._schema.name}: these columns are missing or unknown: {odd}")
        self._reserve(1)
        for name, value in row.items():
            self._arrays[name][self.length] = value
        self.length += 1

    def extend(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Add many rows, given as columns of one length."""
        count = len(columns[self._schema.names[0]])
        self._reserve(count)
        for name in self._types:
            self._arrays[name][self.length : self.length + count] = columns[name]
        self.length += count

    def columns(self) -> Columns:
        """All rows so far, as copies."""
        return {name: array[: self.length].copy() for name, array in self._arrays.items()}

    def load(self, columns: Mapping[str, Any]) -> None:
        """Replace all rows by these."""
        self.length = len(columns[self._schema.names[0]])
        newer = {c.name: np.full(self.length, np.nan) for c in self._schema.columns if c.newer}
        columns = newer | dict(columns)
        self._arrays = {name: np.array(columns[name], dtype=dtype) for name, dtype in self._types.items()}

    def _reserve(self, count: int) -> None:
        needed = self.length + count
        if needed <= len(self._arrays[self._schema.names[0]]):
            return
        for name, array in self._arrays.items():
            grown = np.empty(max(needed, 2 * len(array)), dtype=array.dtype)
            grown[: self.length] = array[: self.length]
            self._arrays[name] = grown


class AgeHistogram:
    """Ages in logarithmic bins, 1 % wide, from 1 microsecond to 1e7 s: any number of ages in 24 kB.

    A percentile is the geometric middle of the bin it falls in, so it is right to 0.5 %.
    """

    _LOW_S = 1e-6
    _RATIO = 1.01
    _BINS = 3009

    def __init__(self) -> None:
        self.counts = np.zeros(self._BINS, dtype=np.int64)

    def add(self, ages_s: FloatArray) -> None:
        """Count these ages; below a microsecond counts as 0."""
        if ages_s.size == 0:
            return
        clipped = np.maximum(np.asarray(ages_s, dtype=np.float64), self._LOW_S / 2)
        bins = np.floor(np.log(clipped / self._LOW_S) / math.log(self._RATIO)).astype(np.int64) + 1
        np.clip(bins, 0, self._BINS - 1, out=bins)
        self.counts += np.bincount(bins, minlength=self._BINS)

    def percentile(self, share: float) -> float:
        """The age below which that share (0..1) of the ages lies; NaN of nothing."""
        total = int(self.counts.sum())
        if total == 0:
            return math.nan
        rank = max(1, math.ceil(share * total))
        position = int(np.searchsorted(np.cumsum(self.counts), rank))
        return 0.0 if position == 0 else self._LOW_S * self._RATIO ** (position - 0.5)


class Recorder:
    """Everything that a run records, until it is written to its folder."""

    def __init__(
        self, timeline_agents: int, timeline_events: int, listeners: Sequence[RowListener] = ()
    ) -> None:
        self._metrics = RowStore(METRICS)
        self._episodes = RowStore(EPISODES)
        self._timeline = RowStore(TIMELINE, codes=("kind",))
        self._timeline_agents = timeline_agents
        self._timeline_events = timeline_events
        self._staleness = AgeHistogram()
        self._staleness_since_row = AgeHistogram()
        self._new_ages: list[FloatArray] = []
        self._n_new_ages = 0
        self._listeners = tuple(listeners)
        self.last_row: dict[str, Any] | None = None

    # -- called inside the event loop ------------------------------------------------------------

    def row(self, **values: Any) -> None:
        """Record one row of metrics.

        ``values`` are the columns of ``tables.METRICS`` except ``row``, ``staleness_p50_s`` and
        ``staleness_p95_s``, which the recorder knows itself.
        """
        row = self.complete_row(**values)
        self._staleness_since_row = AgeHistogram()
        self._metrics.append(row)
        self.last_row = row
        for listener in self._listeners:
            listener.on_row(row)

    def complete_row(self, **values: Any) -> dict[str, Any]:
        """The row that :meth:`row` would record now, not recorded (for a summary between two rows)."""
        self._count_ages()
        own = {
            "row": self._metrics.length,
            "staleness_p50_s": self._staleness_since_row.percentile(0.50),
            "staleness_p95_s": self._staleness_since_row.percentile(0.95),
        }
        return {**own, **values}

    def episode(self, **values: Any) -> None:
        """Record one row of ``tables.EPISODES``."""
        self._episodes.append(values)

    def ages(self, ages_s: FloatArray) -> None:
        """Record the ages of the copies that one consensus step (or many) used."""
        self._new_ages.append(np.array(ages_s, dtype=np.float64))
        self._n_new_ages += len(ages_s)
        if self._n_new_ages > _MOST_NEW_AGES:
            self._count_ages()

    def _count_ages(self) -> None:
        """Put the ages of many small consensus steps into the histograms at once."""
        if self._new_ages:
            ages_s = np.concatenate(self._new_ages)
            self._staleness_since_row.add(ages_s)
            self._staleness.add(ages_s)
            self._new_ages, self._n_new_ages = [], 0

    @property
    def timeline_full(self) -> bool:
        """Whether further timeline events would be thrown away: then the simulator need not make them."""
        return self._timeline.length >= self._timeline_events

    def event(
        self, agent: int, kind: str, start_s: float, end_s: float, peer: int = -1, size_bytes: int = 0
    ) -> None:
        """Record one event of a device's timeline; ignored beyond the recorded agents and events."""
        if agent < self._timeline_agents and not self.timeline_full:
            self._timeline.append(
                {
                    "agent": agent,
                    "kind": _KIND_CODES[kind],
                    "start_s": start_s,
                    "end_s": end_s,
                    "peer": peer,
                    "size_bytes": size_bytes,
                }
            )

    def events(
        self,
        agents: NDArray[np.int64],
        kind: str,
        start_s: FloatArray,
        end_s: FloatArray,
        peers: NDArray[np.int64] | int = -1,
        size_bytes: NDArray[np.int64] | int = 0,
    ) -> None:
        """Record many events of one kind; those of agents that are not recorded are left out."""
        if self.timeline_full:
            return
        chosen = np.flatnonzero(np.asarray(agents) < self._timeline_agents)
        chosen = chosen[: self._timeline_events - self._timeline.length]
        if chosen.size == 0:
            return
        shape = np.shape(agents)
        self._timeline.extend(
            {
                "agent": np.asarray(agents)[chosen],
                "kind": np.full(chosen.size, _KIND_CODES[kind], dtype=np.int8),
                "start_s": np.broadcast_to(start_s, shape)[chosen],
                "end_s": np.broadcast_to(end_s, shape)[chosen],
                "peer": np.broadcast_to(peers, shape)[chosen],
                "size_bytes": np.broadcast_to(size_bytes, shape)[chosen],
            }
        )

    # -- what has been recorded ------------------------------------------------------------------

    def metrics(self) -> Columns:
        return self._metrics.columns()

    def episodes(self) -> Columns:
        return self._episodes.columns()

    def timeline(self) -> Columns:
        columns = self._timeline.columns()
        columns["kind"] = np.asarray(TIMELINE_KINDS)[columns["kind"]]
        return columns

    def staleness_s(self) -> tuple[float, float]:
        """Median and 95th percentile of all ages so far; NaN if none."""
        self._count_ages()
        return self._staleness.percentile(0.50), self._staleness.percentile(0.95)

    def write(self, folder: RunFolder) -> None:
        """Write metrics, episodes and timeline; may be called at any time, and again later."""
        folder.write_table(METRICS, self.metrics())
        folder.write_table(EPISODES, self.episodes())
        folder.write_table(TIMELINE, self.timeline())

    # -- checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything recorded so far: nested dicts of numpy arrays."""
        self._count_ages()
        return {
            "metrics": self._metrics.columns(),
            "episodes": self._episodes.columns(),
            "timeline": self._timeline.columns(),
            "staleness": self._staleness.counts.copy(),
            "staleness_since_row": self._staleness_since_row.counts.copy(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`; listeners are not told of the old rows."""
        self._metrics.load(state["metrics"])
        self._episodes.load(state["episodes"])
        self._timeline.load(state["timeline"])
        self._new_ages, self._n_new_ages = [], 0
        self._staleness.counts = np.array(state["staleness"], dtype=np.int64)
        self._staleness_since_row.counts = np.array(state["staleness_since_row"], dtype=np.int64)
        columns = self._metrics.columns()
        self.last_row = (
            {name: columns[name][-1].item() for name in METRICS.names} if self._metrics.length else None
        )
