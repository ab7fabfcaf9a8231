"""trace.json: the timeline of a run in Chrome's trace format, for ui.perfetto.dev and chrome://tracing.

One process per device, with threads for what it computes, what it is kept from (waiting, being off), what
it sends and what it receives; times in microseconds of virtual time; an arrow from each sending to its
arrival. The format is described in Google's "Trace Event Format": duration events "X", metadata "M",
flows "s" and "f". Events of one thread may be nested in each other but must not half overlap, so what
happens at once on one device (two links sending) gets a further thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.results.folder import RunFolder, write_atomically
from f2a2_sim.results.tables import DEVICES, TIMELINE, Columns
from f2a2_sim.results.timeline import match_messages

_THREADS = {
    "compute": ("act", "learn"),
    "state": ("wait", "off"),
    "radio out": ("send",),
    "radio in": ("receive",),
}
_LANES = 1000  # thread ids are 1000 * group + lane
_ARRIVAL_US = 1.0

FloatArray = NDArray[np.float64]


def write_trace(run_dir: Path) -> Path:
    """Write the run's trace.json, atomically; returns its path. UsageError if there is no timeline."""
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
    starts_us, ends_us = _spans(timeline)
    threads = _threads(timeline, starts_us, ends_us)
    for agent in np.unique(timeline["agent"]):
        yield from _names(int(agent), np.unique(threads[timeline["agent"] == agent]), devices)
    for row in np.lexsort((-ends_us, starts_us)):
        yield _slice(timeline, int(row), int(threads[row]), float(starts_us[row]), float(ends_us[row]))
    for number, (send, receive) in enumerate(match_messages(timeline)):
        for phase, row in (("s", send), ("f", receive)):
            yield {
                "ph": phase,
                "id": number,
                "name": "message",
                "cat": "message",
                "pid": int(timeline["agent"][row]) + 1,
                "tid": int(threads[row]),
                "ts": float(starts_us[row]),
                **({"bp": "e"} if phase == "f" else {}),
            }


def _spans(timeline: Columns) -> tuple[FloatArray, FloatArray]:
    """Start and end of each row in microseconds, to a thousandth (the format's resolution).

    What has not ended yet ends with the last of the others. An arrival has no length of its own: it is
    drawn 1 microsecond long, or up to the next arrival at that device.
    """
    starts_us = np.round(timeline["start_s"] * 1e6, 3)
    ends_us = np.round(timeline["end_s"] * 1e6, 3)
    finite = np.isfinite(ends_us)
    ends_us[~finite] = np.maximum(ends_us[finite].max(initial=0.0), starts_us[~finite])
    for agent in np.unique(timeline["agent"]):
        rows = np.flatnonzero((timeline["agent"] == agent) & (timeline["kind"] == "receive"))
        rows = rows[np.argsort(starts_us[rows], kind="stable")]
        gaps = np.diff(starts_us[rows], append=np.inf)
        ends_us[rows] = starts_us[rows] + np.minimum(_ARRIVAL_US, gaps)
    return starts_us, ends_us


def _threads(timeline: Columns, starts_us: FloatArray, ends_us: FloatArray) -> NDArray[np.int64]:
    """Each row's thread: that of its kind, or the first further lane of it that is free by then."""
    threads = np.zeros(len(starts_us), dtype=np.int64)
    for agent in np.unique(timeline["agent"]):
        for group, kinds in enumerate(_THREADS.values(), start=1):
            rows = np.flatnonzero((timeline["agent"] == agent) & np.isin(timeline["kind"], kinds))
            free_at: list[float] = []
            for row in rows[np.argsort(starts_us[rows], kind="stable")]:
                lane = next((i for i, free in enumerate(free_at) if free <= starts_us[row]), len(free_at))
                free_at[lane : lane + 1] = [float(ends_us[row])]
                threads[row] = _LANES * group + lane
    return threads


def _names(agent: int, threads: NDArray[np.int64], devices: Columns | None) -> Iterator[dict[str, Any]]:
    name = f"agent {agent}"
    if devices is not None and agent < len(devices["agent"]):
        name = f"{devices['name'][agent]} ({devices['profile'][agent]}, {devices['link'][agent]})"
    pid = agent + 1
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": agent}}
    for tid in threads.tolist():
        group, lane = divmod(tid, _LANES)
        title = list(_THREADS)[group - 1] + (f" {lane + 1}" if lane else "")
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": title}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}


def _slice(timeline: Columns, row: int, thread: int, start_us: float, end_us: float) -> dict[str, Any]:
    kind, peer = str(timeline["kind"][row]), int(timeline["peer"][row])
    direction = {"send": "to", "receive": "from"}.get(kind)
    event: dict[str, Any] = {
        "ph": "X",
        "name": f"{kind} {direction} {peer}" if direction and peer >= 0 else kind,
        "cat": kind,
        "pid": int(timeline["agent"][row]) + 1,
        "tid": thread,
        "ts": start_us,
        "dur": round(end_us - start_us, 3),
    }
    if direction:
        event["args"] = {"peer": peer, "size_bytes": int(timeline["size_bytes"][row])}
    return event
