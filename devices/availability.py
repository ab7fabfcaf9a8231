"""When each device is on: always, by a schedule, by random churn, or by a recorded trace.

Driven by the simulator: it schedules an event at each agent's ``next_change_s``, and on that event
calls ``toggle``, which answers with the new state and the time of the next change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from devices.spec import (
    AvailabilitySpec,
    ChurnAvailability,
    Interval,
    OnDrop,
    ScheduledAvailability,
    TraceAvailability,
)
from devices.streams import BoolArray, RandomStreams
from devices.trace import read_trace

_ALWAYS = ((0.0, math.inf),)


class Timeline:
    """Fixed on intervals as an endless list of changes: the k-th is at ``change_s(k)``, inf if none.

    Intervals that touch, also across the end of a period, are one; a change happens at a finite time
    above zero only.
    """

    def __init__(self, intervals: Sequence[Interval], period_s: float | None) -> None:
        changes: list[float] = []
        for start_s, end_s in intervals:
            if changes and changes[-1] == start_s:
                changes[-1] = end_s
            else:
                changes += [start_s, end_s]
        self.starts_on = changes[0] == 0.0
        if self.starts_on:
            changes.pop(0)
            if period_s is not None and changes[-1] == period_s:
                changes.pop()
            elif period_s is not None:
                changes.append(period_s)
        self._changes = changes
        self._period_s = period_s

    def change_s(self, k: int) -> float:
        """Time of the k-th change (from 0)."""
        if self._period_s is None or not self._changes:
            return self._changes[k] if k < len(self._changes) else math.inf
        period, index = divmod(k, len(self._changes))
        return period * self._period_s + self._changes[index]


class AvailabilityModel:
    """On/off state of ``n`` devices; agent i follows ``specs[i]``, churn draws from stream i.

    Relative trace paths are taken from the working directory; resolve them before if they are not.
    """

    def __init__(self, specs: Sequence[AvailabilitySpec], streams: RandomStreams) -> None:
        self._specs = tuple(specs)
        self._streams = streams
        self._timelines = _timelines(self._specs)
        self._initially_on = [
            _starts_on(spec, timeline) for spec, timeline in zip(self._specs, self._timelines, strict=True)
        ]
        self._on = list(self._initially_on)
        self._changes = [0] * len(self._specs)
        self._next_change_s = [self._time_of_next(agent, 0.0) for agent in range(len(self._specs))]

    def initially_on(self) -> BoolArray:
        """State at time zero: bool ``[n]``."""
        return np.array(self._initially_on, dtype=np.bool_)

    def on(self) -> BoolArray:
        """State now: bool ``[n]``."""
        return np.array(self._on, dtype=np.bool_)

    def is_on(self, agent: int) -> bool:
        """Whether the device is on now."""
        return self._on[agent]

    def next_change_s(self, agent: int) -> float:
        """Time of the device's next change, inf if it will not change."""
        return self._next_change_s[agent]

    def on_drop(self, agent: int) -> OnDrop:
        """What switching off does to this device."""
        return self._specs[agent].on_drop

    def toggle(self, agent: int, now_s: float) -> tuple[bool, float]:
        """Carry out the change that is due now: the new state, and the time of the next change."""
        if now_s != self._next_change_s[agent]:
            raise ValueError(
                f"device {agent} does not change at {now_s!r} (but at {self._next_change_s[agent]!r})"
            )
        self._on[agent] = not self._on[agent]
        self._changes[agent] += 1
        self._next_change_s[agent] = self._time_of_next(agent, now_s)
        return self._on[agent], self._next_change_s[agent]

    def retire(self, agent: int) -> None:
        """Switch the device off for good (its battery is empty)."""
        self._on[agent] = False
        self._next_change_s[agent] = math.inf

    def _time_of_next(self, agent: int, now_s: float) -> float:
        timeline = self._timelines[agent]
        if timeline is not None:
            return timeline.change_s(self._changes[agent])
        spec = self._specs[agent]
        assert isinstance(spec, ChurnAvailability)
        mean_s = spec.mean_on_s if self._on[agent] else spec.mean_off_s
        u = float(self._streams.uniform(np.array([agent], dtype=np.int64))[0, 0])
        return now_s - mean_s * math.log1p(-u)

    def state(self) -> dict[str, Any]:
        """Arrays ``[n]`` for a checkpoint; the streams are saved by their owner."""
        return {
            "on": np.array(self._on, dtype=np.bool_),
            "changes": np.array(self._changes, dtype=np.int64),
            "next_change_s": np.array(self._next_change_s, dtype=np.float64),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a ``state()`` of a model of the same specs."""
        if len(state["on"]) != len(self._specs):
            raise ValueError(
                f"availability state of {len(state['on'])} devices does not fit {len(self._specs)}; "
                "load it into a run of the same scenario"
            )
        self._on = [bool(on) for on in state["on"]]
        self._changes = [int(count) for count in state["changes"]]
        self._next_change_s = [float(time) for time in state["next_change_s"]]


def _starts_on(spec: AvailabilitySpec, timeline: Timeline | None) -> bool:
    if timeline is not None:
        return timeline.starts_on
    assert isinstance(spec, ChurnAvailability)
    return spec.start_on


def _timelines(specs: Sequence[AvailabilitySpec]) -> list[Timeline | None]:
    """Timeline of each agent, None for churn; agents of one trace take its devices in turn."""
    shared: dict[AvailabilitySpec, list[Timeline]] = {}
    timelines: list[Timeline | None] = []
    for agent, spec in enumerate(specs):
        if isinstance(spec, ChurnAvailability):
            timelines.append(None)
            continue
        if spec not in shared:
            shared[spec] = _devices_of(spec)
        timelines.append(shared[spec][agent % len(shared[spec])])
    return timelines


def _devices_of(spec: AvailabilitySpec) -> list[Timeline]:
    if isinstance(spec, ScheduledAvailability):
        return [Timeline(spec.on, spec.repeat_every_s)]
    if isinstance(spec, TraceAvailability):
        trace = read_trace(Path(spec.path), spec.repeat_every_s)
        return [Timeline(intervals, spec.repeat_every_s) for intervals in trace.values()]
    return [Timeline(_ALWAYS, None)]
