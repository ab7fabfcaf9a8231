"""Real time: seconds since the run began, and what is to happen later."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from heapq import heappop, heappush

from f2a2_sim.simulator.agenda import NORMAL, Handler


class RunClock:
    """Seconds since the run began, by the world's clock, as well as this process knows it.

    The world's clock is asked at joining and now and then; of the answers the one with the shortest round
    trip counts, whose error is at most half of that.
    """

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._zero = source()
        self.round_trip_s = float("inf")

    def __call__(self) -> float:
        return self._source() - self._zero

    def own_s(self) -> float:
        """This process's own clock, for measuring a round trip."""
        return self._source()

    def set(self, run_s: float) -> None:
        """It is ``run_s`` now."""
        self._zero = self._source() - run_s

    def learn(self, asked_s: float, run_s: float) -> None:
        """The world answered ``run_s`` to what was asked at ``asked_s`` (`own_s`), and that is here now."""
        now_s = self._source()
        round_trip_s = now_s - asked_s
        if 0.0 <= round_trip_s < self.round_trip_s:
            self.round_trip_s = round_trip_s
            self._zero = now_s - (run_s + round_trip_s / 2.0)


class WallAgenda:
    """The interface of a simulation's agenda on a real clock: events are carried out when they are due."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._handlers: dict[str, Handler] = {}
        self._pending: list[tuple[float, int, int, str, int, int]] = []
        self._sequence = 0
        self.now_s = clock()

    def handle(self, handlers: Mapping[str, Handler]) -> None:
        """Name the handler of every kind of event."""
        self._handlers.update(handlers)

    def at(self, time_s: float, kind: str, subject: int = 0, detail: int = 0, priority: int = NORMAL) -> None:
        """Let the handler of ``kind`` be called at ``time_s``, or as soon as possible after it."""
        heappush(self._pending, (time_s, priority, self._sequence, kind, subject, detail))
        self._sequence += 1

    def next_time_s(self) -> float:
        """When the next event is due, inf if none is."""
        return self._pending[0][0] if self._pending else float("inf")

    def look(self) -> None:
        """Take the time anew; it never goes back."""
        self.now_s = max(self._clock(), self.now_s)

    def carry_out(self) -> None:
        """Take the time anew, and carry out what is due by then."""
        self.look()
        while self._pending and self._pending[0][0] <= self.now_s:
            _, _, _, kind, subject, detail = heappop(self._pending)
            self._handlers[kind](subject, detail)
