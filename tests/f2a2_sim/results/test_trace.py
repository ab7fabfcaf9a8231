"""The trace keeps to the format's rules: named threads, nothing half overlapping, arrows between slices."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f2a2_sim.errors import UsageError
from f2a2_sim.results.tables import DEVICES, TIMELINE, TIMELINE_KINDS, Columns
from f2a2_sim.results.timeline import match_messages, readable_window
from f2a2_sim.results.trace import trace_events, write_trace


def timeline(*rows: tuple[int, str, float, float, int, int]) -> Columns:
    kinds = {"int": np.int64, "float": np.float64, "text": np.str_}
    columns = list(zip(*rows, strict=True)) or [()] * 6
    return {c.name: np.array(v, dtype=kinds[c.kind]) for c, v in zip(TIMELINE.columns, columns, strict=True)}


def check_rules(events: list[dict[str, Any]]) -> None:
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    slices = defaultdict(list)
    for event in events:
        assert event["ph"] in "XMsf"
        assert isinstance(event["pid"], int) and event["pid"] > 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert set(slices) == named
    for spans in slices.values():
        open_ends: list[float] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= start + 1e-3:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 1e-3
            open_ends.append(end)
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            flows[event["id"]].append(event)
    for start, finish in flows.values():
        assert (start["ph"], finish["ph"], finish["bp"]) == ("s", "f", "e")
        assert start["ts"] <= finish["ts"]
        for flow in (start, finish):
            assert any(a - 1e-3 <= flow["ts"] <= b + 1e-3 for a, b in slices[flow["pid"], flow["tid"]])


def test_exact_events_of_a_small_timeline() -> None:
    events = list(
        trace_events(
            timeline(
                (0, "act", 0.0, 0.002, -1, 0),
                (0, "send", 0.002, 0.003, 1, 100),
                (1, "receive", 0.010, 0.010, 0, 0),
                (1, "off", 0.0, float("inf"), -1, 0),
            ),
            None,
        )
    )
    check_rules(events)
    happened = [(e["name"], e["pid"], e["tid"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert happened == [
        ("off", 2, 2000, 0.0, 10000.0),
        ("act", 1, 1000, 0.0, 2000.0),
        ("send to 1", 1, 3000, 2000.0, 1000.0),
        ("receive from 0", 2, 4000, 10000.0, 1.0),
    ]
    flows = [(e["ph"], e["pid"], e["tid"], e["ts"]) for e in events if e["ph"] in "sf"]
    assert flows == [("s", 1, 3000, 2000.0), ("f", 2, 4000, 10000.0)]
    names = [e["args"]["name"] for e in events if e["name"] in ("process_name", "thread_name")]
    assert names == ["agent 0", "compute", "radio out", "agent 1", "state", "radio in"]


def test_two_links_sending_at_once_get_two_threads() -> None:
    events = list(trace_events(timeline((0, "send", 0.0, 2.0, 1, 1), (0, "send", 1.0, 3.0, 2, 1)), None))
    check_rules(events)
    assert [e["args"]["name"] for e in events if e["name"] == "thread_name"] == ["radio out", "radio out 2"]


_event = st.tuples(
    st.integers(0, 2),
    st.sampled_from(TIMELINE_KINDS),
    st.integers(0, 50).map(lambda t: t * 1e-5),
    st.integers(0, 50).map(lambda t: t * 1e-5),
    st.integers(-1, 2),
    st.integers(0, 9),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_event, max_size=30))
def test_any_timeline_keeps_the_rules(rows: list[tuple[int, str, float, float, int, int]]) -> None:
    ordered = [(a, k, s, s if k == "receive" else s + d, p, b) for a, k, s, d, p, b in rows]
    events = list(trace_events(timeline(*ordered), None))
    check_rules(events)
    assert sum(e["ph"] == "X" for e in events) == len(rows)


def test_the_file_is_json_with_the_names_of_the_devices(make_run: Any) -> None:
    folder = make_run()
    path = write_trace(folder.path)
    assert path == folder.path / "trace.json"
    document = json.loads(path.read_text())
    check_rules(document["traceEvents"])
    devices = folder.read_table(DEVICES)
    names = [e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"]
    assert names[0] == f"red_0 ({devices['profile'][0]}, {devices['link'][0]})"
    assert len(names) == 8
    shown = sum(event["ph"] == "X" for event in document["traceEvents"])
    assert shown == len(folder.read_table(TIMELINE)["agent"])
    assert any(event["ph"] == "s" for event in document["traceEvents"])


def test_no_timeline_is_an_error_for_people(tmp_path: Path, make_run: Any) -> None:
    folder = make_run()
    folder.table_file(TIMELINE).unlink()
    with pytest.raises(UsageError, match=r"timeline\.parquet"):
        write_trace(folder.path)


def test_arrivals_are_matched_with_the_sending_before_them() -> None:
    table = timeline(
        (0, "send", 0.0, 1.0, 1, 1),
        (0, "send", 1.0, 2.0, 1, 1),
        (0, "send", 2.0, 3.0, 2, 1),
        (1, "receive", 1.5, 1.5, 0, 0),
        (1, "receive", 2.5, 2.5, 0, 0),
        (1, "receive", 2.6, 2.6, 0, 0),
        (2, "receive", 2.9, 2.9, 0, 0),
    )
    assert match_messages(table) == [(0, 3), (1, 4)]


def test_the_window_shows_learning_where_there_is_some() -> None:
    acts = [(0, "act", float(t), t + 0.1, -1, 0) for t in range(100)]
    learns = [(0, "learn", 70.2, 70.5, -1, 0), (0, "send", 70.5, 70.6, 1, 9)]
    window = readable_window(timeline(*acts, *learns))
    assert window is not None
    assert window[0] <= 70 < window[1]
    assert window[1] - window[0] == 12
    later = [(0, "act", float(t), t + 0.1, -1, 0) for t in range(500, 600)]
    learns = [(0, "learn", 99.2, 99.5, -1, 0), (0, "send", 500.5, 500.6, 1, 9)]
    window = readable_window(timeline(*acts, *later, *learns))
    assert window is not None and window[1] - window[0] == 12, "none with the gap in it"
    assert readable_window(timeline((0, "off", 0.0, 1.0, -1, 0))) is None
    short = timeline((0, "act", 1.0, 2.0, -1, 0), (1, "learn", 3.0, 4.0, -1, 0))
    assert readable_window(short) == (1.0, 4.0)
