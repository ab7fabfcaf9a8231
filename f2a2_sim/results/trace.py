"""trace.json: the timeline of a run in Chrome's trace format, for ui.perfetto.dev and chrome://tracing.

One process per device with two threads, its compute unit and its radio; times in microseconds of
virtual time; an arrow from each sending to its arrival. The format is described in Google's
"Trace Event Format": duration events "X", metadata "M", flows "s" and "f".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from f2a2_sim.results.folder import RunFolder, write_atomically
from f2a2_sim.results.tables import DEVICES, TIMELINE, Columns
from f2a2_sim.results.timeline import match_messages

_COMPUTE, _RADIO = 1, 2
_THREADS = {_COMPUTE: "compute", _RADIO: "radio"}
_RADIO_KINDS = ("send", "receive")
    "act": _COMPUTE,
    "learn": _COMPUTE,
    "wait": _COMPUTE,
    "off": _COMPUTE,
    "send": _RADIO,
    "receive": _RADIO,
}
_ARRIVAL_US = 1.0


def write_trace(run_dir: Path) -> Path:
    """Write the run's trace.json, atomically; returns its path. UsageError if there is no timeline to read."""
    folder = RunFolder.open(run_dir)
    timeline = folder.read_table(TIMELINE)
    devices = folder.read_table(DEVICES) if folder.table_file(DEVICES).is_file() else None
    document = {"displayTimeUnit": "ms", "traceEvents": list(trace_events(timeline, devices))}
    write_atomically(folder.trace_file, json.dumps(document, allow_nan=False).encode())
    return folder.trace_file


def trace_events(timeline: Columns, devices: Columns | None) -> Iterator[dict[str, Any]]:
    """All events: names first, then what happened in order of time, then the arrows.

    Process ids are agent numbers plus 1, since viewers take process 0 for idle time.
    """
    for agent in np.unique(timeline["agent"]):
        yield from _names(int(agent), devices)
    finite = timeline["end_s"][np.isfinite(timeline["end_s"])]
    horizon_s = float(finite.max()) if finite.size else 0.0
    for row in np.argsort(timeline["start_s"], kind="stable"):
        yield _slice(timeline, int(row), horizon_s)
    for number, (send, receive) in enumerate(match_messages(timeline)):
        yield _flow("s", number, timeline, send, _us(timeline["start_s"][send]))
        yield {**_flow("f", number, timeline, receive, _us(timeline["end_s"][receive])), "bp": "e"}


def _names(agent: int, devices: Columns | None) -> Iterator[dict[str, Any]]:
    name = f"agent {agent}"
    if devices is not None and agent < len(devices["agent"]):
        name = f"{devices['name'][agent]} ({devices['profile'][agent]}, {devices['link'][agent]})"
    pid = agent + 1
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": agent}}
    for tid, thread in _THREADS.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": thread}}


def _slice(timeline: Columns, row: int, horizon_s: float) -> dict[str, Any]:
    kind, peer = str(timeline["kind"][row]), int(timeline["peer"][row])
    start_us = _us(timeline["start_s"][row])
    end_s = float(timeline["end_s"][row])
    length_us = max(0.0, _us(end_s if np.isfinite(end_s) else horizon_s) - start_us)
    direction = {"send": "to", "receive": "from"}.get(kind)
    event: dict[str, Any] = {
        "ph": "X",
        "name": f"{kind} {direction} {peer}" if direction and peer >= 0 else kind,
        "cat": kind,
        "pid": int(timeline["agent"][row]) + 1,
        "tid": _RADIO if kind in _RADIO_KINDS else _COMPUTE,
        "ts": start_us,
        "dur": _ARRIVAL_US if kind == "receive" else length_us,
    }
    if direction:
        event["args"] = {"peer": peer, "size_bytes": int(timeline["size_bytes"][row])}
    return event


def _flow(phase: str, number: int, timeline: Columns, row: int, at_us: float) -> dict[str, Any]:
    return {
        "ph": phase,
        "id": number,
        "name": "message",
        "cat": "message",
        "pid": int(timeline["agent"][row]) + 1,
        "tid": _RADIO,
        "ts": at_us,
    }


def _us(seconds: float) -> float:
    """Microseconds, to a thousandth: the resolution of the format."""
    return round(float(seconds) * 1e6, 3)
