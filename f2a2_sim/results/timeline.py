"""Reading the timeline table: which stretch of it to show, and which arrival belongs to which sending."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from f2a2_sim.results.tables import Columns

_ACTIONS_SHOWN = 12
_LONG = 5.0


def readable_window(timeline: Columns) -> tuple[float, float] | None:
    """A stretch of virtual time that is readable and shows as many kinds of activity as there are.

    About a dozen actions of the busiest device long; None if no device did anything.
    """
    busy = np.isin(timeline["kind"], ("act", "learn", "send"))
    if not busy.any():
        return None
    acts = timeline["kind"] == "act"
    measure = acts if acts.any() else busy
    agents, counts = np.unique(timeline["agent"][measure], return_counts=True)
    starts = np.sort(timeline["start_s"][measure & (timeline["agent"] == agents[counts.argmax()])])
    if len(starts) <= _ACTIONS_SHOWN:
        ends = timeline["end_s"][busy]
        return float(starts[0]), float(ends[np.isfinite(ends)].max())
    lengths = starts[_ACTIONS_SHOWN:] - starts[:-_ACTIONS_SHOWN]
    longest = _LONG * float(np.median(lengths))  # there may be gaps that nobody wrote down
    best, best_score = int(lengths.argmin()), -1
    for first in range(0, len(starts) - _ACTIONS_SHOWN, 2):
        if lengths[first] > longest:
            continue
        inside = (timeline["start_s"] >= starts[first]) & (
            timeline["start_s"] < starts[first + _ACTIONS_SHOWN]
        )
        kinds, counts = np.unique(timeline["kind"][inside], return_counts=True)
        score = 100 * len(kinds) + min(int(counts[kinds == "learn"].sum()), 50)
        if score > best_score:
            best, best_score = first, score
    return float(starts[best]), float(starts[best + _ACTIONS_SHOWN])


def match_messages(timeline: Columns) -> list[tuple[int, int]]:
    """Pairs (row of a send, row of its receive), for messages whose two ends are both in the table.

    The table holds no message numbers, so an arrival is matched with the latest sending from that peer
    that had ended by then and has no arrival yet: right unless copies were lost or overtook each other.
    """
    sends: dict[tuple[int, int], tuple[list[float], list[int]]] = {}
    for row in _rows_by_time(timeline, "send"):
        ends, rows = sends.setdefault((int(timeline["agent"][row]), int(timeline["peer"][row])), ([], []))
        ends.append(float(timeline["end_s"][row]))
        rows.append(row)
    pairs = []
    for row in _rows_by_time(timeline, "receive"):
        ends, rows = sends.get((int(timeline["peer"][row]), int(timeline["agent"][row])), ([], []))
        position = bisect_right(ends, float(timeline["end_s"][row])) - 1
        if position >= 0:
            pairs.append((rows.pop(position), row))
            ends.pop(position)
    return pairs


def _rows_by_time(timeline: Columns, kind: str) -> list[int]:
    rows = np.flatnonzero(timeline["kind"] == kind)
    return [int(row) for row in rows[np.argsort(timeline["end_s"][rows], kind="stable")]]
