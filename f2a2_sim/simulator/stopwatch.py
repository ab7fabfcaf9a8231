"""Where the real time of a run goes. The simulated code never reads it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

PARTS = ("world", "learning", "network", "consensus")


class _Part:
    """Adds the time between entering and leaving; a class, for a generator takes three times as long."""

    __slots__ = ("_started", "spent_s")

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.spent_s += time.perf_counter() - self._started


class Stopwatch:
    """Real seconds spent in each part of the program; what no part claims is ``other``."""

    def __init__(self, parts: Sequence[str] = PARTS) -> None:
        self._parts = {name: _Part() for name in parts}
        self._before = 0.0
        self._started = time.perf_counter()

    def part(self, name: str) -> _Part:
        """Count what happens in a ``with`` of it for that part; parts must not be nested."""
        return self._parts[name]

    def total_s(self) -> float:
        """Real time of the run, of all its resumed pieces together."""
        return self._before + time.perf_counter() - self._started

    def breakdown_s(self) -> dict[str, float]:
        """Seconds by part, ``other`` included."""
        total, spent = self.total_s(), self._spent_s()
        return {**spent, "other": max(total - sum(spent.values()), 0.0)}

    def _spent_s(self) -> dict[str, float]:
        return {name: part.spent_s for name, part in self._parts.items()}

    def state(self) -> dict[str, float]:
        return {**self._spent_s(), "total": self.total_s()}

    def load_state(self, state: dict[str, float]) -> None:
        for name, part in self._parts.items():
            part.spent_s = float(state[name])
        self._before = float(state["total"])
        self._started = time.perf_counter()
