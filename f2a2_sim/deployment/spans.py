"""What agents did when, for the timeline of a deployed run: from their reports to the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.results.tables import TIMELINE, TIMELINE_KINDS, Columns

SPANS_PER_REPORT = 1024
"""Of those between two reports an agent tells the first so many."""

_NUMBERS = tuple(column.name for column in TIMELINE.columns if column.name not in ("agent", "kind"))
_WIDTH = 1 + len(_NUMBERS)


def as_tensor(rows: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """An agent's rows of the timeline, kinds by number, as one array ``[rows, 5]``."""
    return np.column_stack([rows["kind"], *(rows[name] for name in _NUMBERS)]).astype(np.float64)


class Spans:
    """Those of the first ``agents`` agents: at most ``most`` rows, in stretches from report to report.

    Where a run is too long for all, every second stretch is left out, then every fourth, and so on, so that
    what is kept is spread over the whole run, and each stretch is whole.
    """

    def __init__(self, agents: int, most: int) -> None:
        self._agents = agents
        self._most = most
        self._every = 1
        self._number: dict[int, int] = {}
        self._stretches: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}

    def add(self, agent: int, step: int, told: NDArray[Any] | None) -> None:
        """What an agent tells with its report at that step; nothing happens if it is no such array."""
        if agent >= self._agents or self._most == 0 or told is None or not _is_sound(told):
            return
        number = self._number.setdefault(step, len(self._number))
        if number % self._every == 0:
            self._stretches.setdefault(step, []).append((agent, np.array(told)))
            self._thin_out()

    def _thin_out(self) -> None:
        while len(self._stretches) > 1 and self._length() > self._most:
            self._every *= 2
            kept = [step for step in self._stretches if self._number[step] % self._every == 0]
            self._stretches = {step: self._stretches[step] for step in kept}

    def _length(self) -> int:
        return sum(len(rows) for stretch in self._stretches.values() for _, rows in stretch)

    def columns(self) -> Columns:
        """The columns of ``tables.TIMELINE``."""
        parts = [part for step in sorted(self._stretches) for part in self._stretches[step]]
        rows = np.concatenate([np.zeros((0, _WIDTH)), *(rows for _, rows in parts)])[: self._most]
        agents = [np.full(len(rows), agent) for agent, rows in parts]
        columns: Columns = {name: rows[:, 1 + place] for place, name in enumerate(_NUMBERS)}
        columns["agent"] = np.concatenate([np.zeros(0, dtype=np.int64), *agents])[: self._most]
        columns["kind"] = np.array(TIMELINE_KINDS)[rows[:, 0].astype(np.int64)]
        return columns

    def state(self) -> dict[str, Any]:
        stretches = [
            [step, agent, rows] for step, stretch in self._stretches.items() for agent, rows in stretch
        ]
        return {"every": self._every, "steps": list(self._number), "stretches": stretches}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._every = int(state["every"])
        self._number = {int(step): number for number, step in enumerate(state["steps"])}
        self._stretches = {}
        for step, agent, rows in state["stretches"]:
            self._stretches.setdefault(int(step), []).append((int(agent), np.array(rows)))


def _is_sound(told: NDArray[Any]) -> bool:
    if told.dtype != np.float64 or told.ndim != 2 or told.shape[1] != _WIDTH:
        return False
    if len(told) > SPANS_PER_REPORT or not np.isfinite(told).all():
        return False
    kinds = told[:, 0]
    return bool(((kinds >= 0) & (kinds < len(TIMELINE_KINDS)) & (kinds == np.floor(kinds))).all())
