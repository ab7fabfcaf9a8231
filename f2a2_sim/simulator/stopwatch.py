"""Where the real time of a run goes. The simulated code never reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PARTS = ("world", "learning", "network", "consensus")


class Stopwatch:
    """Real seconds spent in each part of the program; what no part claims is ``other``."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._before = 0.0
        self._started = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for that part; parts must not be nested."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - start

    def total_s(self) -> float:
        """Real time of the run, of all its resumed pieces together."""
        return self._before + time.perf_counter() - self._started

    def breakdown_s(self) -> dict[str, float]:
        """Seconds by part, ``other`` included."""
        total = self.total_s()
        return {**self._spent, "other": max(total - sum(self._spent.values()), 0.0)}

    def state(self) -> dict[str, float]:
        return {**self._spent, "total": self.total_s()}

    def load_state(self, state: dict[str, float]) -> None:
        self._spent = {part: float(state[part]) for part in PARTS}
        self._before = float(state["total"])
        self._started = time.perf_counter()
