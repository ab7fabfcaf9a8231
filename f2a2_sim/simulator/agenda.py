"""Pending events as plain data, carried out by SimPy.

A SimPy process cannot be saved, so nothing here is one: an event is a record (time, priority,
sequence, kind, arguments) and a SimPy timeout that calls the handler of its kind. A checkpoint is
the list of records; ties break by (time, priority, sequence), before and after a resume alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappush
from typing import Any

import numpy as np
import simpy

Handler = Callable[[int, int], None]

NORMAL = 1
LATE = 2


class _Due(simpy.Event):
    """The SimPy event of one record."""

    __slots__ = ("sequence",)

    def __init__(self, env: simpy.Environment, fire: Callable[[simpy.Event], None], sequence: int) -> None:
        # As simpy.Timeout does it: what Event.__init__ would set, and that the event has happened.
        self.env = env
        self.callbacks = [fire]
        self.sequence = sequence
        self._ok = True
        self._value = None
        self._defused = False


class Agenda:
    """What is going to happen, and the virtual clock. A handler takes two integers, ``(subject, detail)``."""

    def __init__(self) -> None:
        self._env = simpy.Environment()
        self._handlers: dict[str, Handler] = {}
        self._pending: dict[int, tuple[float, int, str, int, int]] = {}
        self._sequence = 0
        self.now_s = 0.0
        """The clock; an attribute, for it is read several times per event."""

    def handle(self, handlers: Mapping[str, Handler]) -> None:
        """Name the handler of every kind of event."""
        self._handlers.update(handlers)

    def at(self, time_s: float, kind: str, subject: int = 0, detail: int = 0, priority: int = NORMAL) -> None:
        """Let the handler of ``kind`` be called at ``time_s``, which must not be in the past."""
        assert time_s >= self.now_s, f"{kind} is due at {time_s}, before now ({self.now_s})"
        self._push(self._sequence, (float(time_s), priority, kind, subject, detail))
        self._sequence += 1

    def __len__(self) -> int:
        return len(self._pending)

    def next_time_s(self) -> float:
        """When the next event is due, inf if none is."""
        return float(self._env.peek())

    def step(self) -> None:
        """Carry out the next event."""
        self._env.step()

    def state(self) -> dict[str, Any]:
        """Clock and records as columns."""
        sequences = sorted(self._pending)
        records = [self._pending[sequence] for sequence in sequences]
        return {
            "now_s": self.now_s,
            "next_sequence": self._sequence,
            "sequence": np.asarray(sequences, dtype=np.int64),
            "time_s": np.asarray([record[0] for record in records], dtype=np.float64),
            "priority": np.asarray([record[1] for record in records], dtype=np.int64),
            "kind": [record[2] for record in records],
            "subject": np.asarray([record[3] for record in records], dtype=np.int64),
            "detail": np.asarray([record[4] for record in records], dtype=np.int64),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.now_s = float(state["now_s"])
        self._env = simpy.Environment(initial_time=self.now_s)
        self._pending = {}
        columns = (state[name] for name in ("sequence", "time_s", "priority", "kind", "subject", "detail"))
        for sequence, time_s, priority, kind, subject, detail in zip(*columns, strict=True):
            self._push(int(sequence), (float(time_s), int(priority), str(kind), int(subject), int(detail)))
        self._sequence = int(state["next_sequence"])

    def _push(self, sequence: int, record: tuple[float, int, str, int, int]) -> None:
        event = _Due(self._env, self._fire, sequence)
        self._pending[sequence] = record
        # Environment.schedule() takes a delay, and now + (time - now) is not always time. A resumed run
        # must see the very same times, so the absolute time goes into SimPy's queue as it is.
        heappush(self._env._queue, (record[0], record[1], sequence, event))  # type: ignore[misc]

    def _fire(self, event: simpy.Event) -> None:
        assert isinstance(event, _Due)
        self.now_s, _, kind, subject, detail = self._pending.pop(event.sequence)
        self._handlers[kind](subject, detail)
