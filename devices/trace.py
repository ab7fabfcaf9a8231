"""Recorded availability: a CSV file of the intervals in which devices were on."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from devices.spec import Interval, check_intervals

COLUMNS = ("device", "start_s", "end_s")


class TraceFileError(ValueError):
    """A trace file that cannot be read; the message names file, line, value and remedy."""


def read_trace(path: Path, repeat_every_s: float | None = None) -> dict[str, tuple[Interval, ...]]:
    """On intervals of each recorded device, in order of first appearance; times in seconds.

    Rows may be in any order; a device's intervals are sorted and must not overlap.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            intervals = _read_rows(path, csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceFileError(
            f"availability trace {path}: cannot be read ({error}); check the path"
        ) from error
    if not intervals:
        raise TraceFileError(f"availability trace {path}: no rows; give at least one on interval")
    trace = {}
    for device, on in intervals.items():
        trace[device] = tuple(sorted(on))
        try:
            check_intervals(trace[device], repeat_every_s, f"device '{device}', interval ")
        except ValueError as error:
            raise TraceFileError(f"availability trace {path}: {error}") from error
    return trace


def _read_rows(path: Path, reader: csv.DictReader[str]) -> dict[str, list[Interval]]:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise TraceFileError(
            f"availability trace {path}: column {missing[0]!r} is missing; "
            f"the first line must be {','.join(COLUMNS)}"
        )
    intervals: dict[str, list[Interval]] = {}
    for row in reader:
        start_s = _seconds(path, reader.line_num, row, "start_s")
        end_s = _seconds(path, reader.line_num, row, "end_s")
        intervals.setdefault(row["device"], []).append((start_s, end_s))
    return intervals


def _seconds(path: Path, line: int, row: Mapping[str, str | None], column: str) -> float:
    text = row[column]
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TraceFileError(
            f"availability trace {path}, line {line}: {column} is {text!r}; expected a number of seconds"
        )
    return value
