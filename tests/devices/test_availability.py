"""When devices are on: schedules and traces exactly, churn against its distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from devices.availability import AvailabilityModel
from devices.spec import (
    AlwaysOn,
    AvailabilitySpec,
    ChurnAvailability,
    ScheduledAvailability,
    TraceAvailability,
)
from devices.trace import TraceFileError, read_trace
from f2a2_sim.randomness import StreamFamily

MakeStreams = Callable[..., StreamFamily]


def changes(model: AvailabilityModel, agent: int, count: int) -> list[tuple[float, bool]]:
    """The next changes of one agent: (time, on from then)."""
    log = []
    while len(log) < count and model.next_change_s(agent) < math.inf:
        time_s = model.next_change_s(agent)
        on, next_s = model.toggle(agent, time_s)
        assert on == model.is_on(agent)
        assert next_s == model.next_change_s(agent) > time_s
        log.append((time_s, on))
    return log


def schedule(*on: tuple[float, float], repeat_every_s: float | None = None) -> ScheduledAvailability:
    return ScheduledAvailability(kind="schedule", on=on, repeat_every_s=repeat_every_s)


@pytest.mark.parametrize(
    ("spec", "initially", "expected"),
    [
        (AlwaysOn(), True, []),
        (schedule((0, 5)), True, [(5, False)]),
        (schedule((2, 5)), False, [(2, True), (5, False)]),
        (schedule((0, 5), (7, 8)), True, [(5, False), (7, True), (8, False)]),
        (schedule((1, 5), (5, 8)), False, [(1, True), (8, False)]),  # touching intervals are one
        (
            schedule((2, 5), repeat_every_s=10),
            False,
            [(2, True), (5, False), (12, True), (15, False), (22, True), (25, False)],
        ),
        (
            schedule((0, 5), repeat_every_s=10),
            True,
            [(5, False), (10, True), (15, False), (20, True), (25, False), (30, True)],
        ),
        (  # on across the end of the period: no change there
            schedule((0, 1), (8, 10), repeat_every_s=10),
            True,
            [(1, False), (8, True), (11, False), (18, True), (21, False), (28, True)],
        ),
        (  # on up to the end of the period, off at its start
            schedule((8, 10), repeat_every_s=10),
            False,
            [(8, True), (10, False), (18, True), (20, False), (28, True), (30, False)],
        ),
        (schedule((0, 10), repeat_every_s=10), True, []),
        (schedule((0, 4), (4, 10), repeat_every_s=10), True, []),
    ],
)
def test_timelines_are_exact(
    spec: AvailabilitySpec, initially: bool, expected: list[tuple[float, bool]], streams: MakeStreams
) -> None:
    model = AvailabilityModel([spec], streams())
    assert model.initially_on().tolist() == [initially]
    assert model.on().tolist() == [initially]
    assert changes(model, 0, 6) == expected
    assert model.initially_on().tolist() == [initially]


def test_periods_do_not_drift(streams: MakeStreams) -> None:
    model = AvailabilityModel([schedule((0.05, 0.08), repeat_every_s=0.1)], streams())
    log = changes(model, 0, 2_000)
    assert log[-2:] == [(999 * 0.1 + 0.05, True), (999 * 0.1 + 0.08, False)]


def test_churn_has_exponential_on_and_off_times(streams: MakeStreams) -> None:
    n, each = 50, 160
    spec = ChurnAvailability(kind="churn", mean_on_s=30.0, mean_off_s=5.0)
    model = AvailabilityModel([spec] * n, streams())
    assert model.initially_on().all()
    durations: dict[bool, list[float]] = {True: [], False: []}
    for agent in range(n):
        previous_s = 0.0
        for time_s, on in changes(model, agent, each):
            durations[not on].append(time_s - previous_s)
            previous_s = time_s
    for on, mean_s in ((True, 30.0), (False, 5.0)):
        sample = np.array(durations[on])
        assert sample.size == n * each // 2
        assert abs(sample.mean() - mean_s) < 4 * mean_s / math.sqrt(sample.size)  # std = mean
        assert stats.kstest(sample, stats.expon(scale=mean_s).cdf).pvalue > 1e-3


def test_churn_is_on_for_the_stationary_share_of_time(streams: MakeStreams) -> None:
    """P(on at t) = a + (1 - a) exp(-t (1/on + 1/off)) from on at zero, a = on / (on + off)."""
    n, horizon_s = 1500, 2.0
    spec = ChurnAvailability(kind="churn", mean_on_s=3.0, mean_off_s=2.0)
    model = AvailabilityModel([spec] * n, streams(dense_ids=n))
    for agent in range(n):
        while model.next_change_s(agent) <= horizon_s:
            model.toggle(agent, model.next_change_s(agent))
    share = 0.6
    expected = share + (1 - share) * math.exp(-horizon_s * (1 / 3 + 1 / 2))
    assert abs(model.on().mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_churn_may_start_off(streams: MakeStreams) -> None:
    spec = ChurnAvailability(kind="churn", mean_on_s=1.0, mean_off_s=1.0, start_on=False, on_drop="crash")
    model = AvailabilityModel([spec, AlwaysOn()], streams())
    assert model.initially_on().tolist() == [False, True]
    assert (model.on_drop(0), model.on_drop(1)) == ("crash", "pause")


def test_churn_of_one_agent_does_not_depend_on_others(streams: MakeStreams) -> None:
    churn = ChurnAvailability(kind="churn", mean_on_s=2.0, mean_off_s=1.0)
    alone = AvailabilityModel([AlwaysOn(), churn, AlwaysOn()], streams())
    expected = changes(alone, 1, 50)
    together = AvailabilityModel([churn] * 3, streams())
    log = []
    for _ in range(50):
        changes(together, 2, 2)
        log += changes(together, 1, 1)
        changes(together, 0, 1)
    assert log == expected
    assert changes(AvailabilityModel([churn] * 3, streams()), 0, 50) != expected


def test_a_retired_device_stays_off(streams: MakeStreams) -> None:
    model = AvailabilityModel([schedule((0, 5), repeat_every_s=10)], streams())
    model.retire(0)
    assert not model.is_on(0)
    assert model.next_change_s(0) == math.inf


def test_a_change_happens_at_its_time_only(streams: MakeStreams) -> None:
    model = AvailabilityModel([schedule((0, 5))], streams())
    with pytest.raises(ValueError, match=r"device 0 does not change at 4.0 \(but at 5.0\)"):
        model.toggle(0, 4.0)


def test_state_round_trip(streams: MakeStreams, tmp_path: Path) -> None:
    path = write_trace(tmp_path, "a,1,2\na,4,6\na,7,9\n")
    specs = [
        ChurnAvailability(kind="churn", mean_on_s=2.0, mean_off_s=1.0),
        schedule((0, 5), repeat_every_s=10),
        TraceAvailability(kind="trace", path=str(path)),
        AlwaysOn(),
    ]
    family = streams()
    model = AvailabilityModel(specs, family)
    for agent in range(4):
        changes(model, agent, 3)
    saved, saved_streams = model.state(), family.state()
    expected = [changes(model, agent, 20) for agent in range(4)]
    fresh = streams()
    resumed = AvailabilityModel(specs, fresh)
    resumed.load_state(saved)
    fresh.load_state(saved_streams)
    assert [changes(resumed, agent, 20) for agent in range(4)] == expected
    assert all(isinstance(value, np.ndarray) for value in saved.values())


def test_state_of_other_devices_is_refused(streams: MakeStreams) -> None:
    state = AvailabilityModel([AlwaysOn()], streams()).state()
    with pytest.raises(ValueError, match="of 1 devices does not fit 2"):
        AvailabilityModel([AlwaysOn()] * 2, streams()).load_state(state)


def write_trace(folder: Path, rows: str, header: str = "device,start_s,end_s\n") -> Path:
    path = folder / "trace.csv"
    path.write_text(header + rows, encoding="utf-8")
    return path


def test_agents_take_the_devices_of_a_trace_in_turn(streams: MakeStreams, tmp_path: Path) -> None:
    path = write_trace(tmp_path, "phone,3.5,4\npi,0,2\nphone,1,2.5\n")
    spec = TraceAvailability(kind="trace", path=str(path))
    model = AvailabilityModel([spec] * 5, streams())
    phone = [(1.0, True), (2.5, False), (3.5, True), (4.0, False)]
    pi = [(2.0, False)]
    assert model.initially_on().tolist() == [False, True, False, True, False]
    assert [changes(model, agent, 9) for agent in range(5)] == [phone, pi, phone, pi, phone]


def test_a_trace_repeats(streams: MakeStreams, tmp_path: Path) -> None:
    path = write_trace(tmp_path, "pi,1,2\n")
    model = AvailabilityModel([TraceAvailability(kind="trace", path=str(path), repeat_every_s=4)], streams())
    assert changes(model, 0, 4) == [(1, True), (2, False), (5, True), (6, False)]


def test_a_trace_keeps_devices_in_order_and_sorts_their_intervals(tmp_path: Path) -> None:
    path = write_trace(tmp_path, "b,5,6\na,1,2\nb,3,4\n")
    assert read_trace(path) == {"b": ((3.0, 4.0), (5.0, 6.0)), "a": ((1.0, 2.0),)}
    assert list(read_trace(path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ("", "device,start_s,end_s\n", "no rows"),
        ("a,1,2\n", "device,start,end_s\n", "column 'start_s' is missing; .*device,start_s,end_s"),
        ("a,1,2\nb,x,3\n", "device,start_s,end_s\n", "line 3: start_s is 'x'; expected a number of seconds"),
        ("a,1\n", "device,start_s,end_s\n", "line 2: end_s is None"),
        ("a,1,nan\n", "device,start_s,end_s\n", "line 2: end_s is 'nan'"),
        ("a,1,3\na,2,4\n", "device,start_s,end_s\n", "device 'a'.* starts before the interval in front"),
        ("a,3,1\n", "device,start_s,end_s\n", "must end after it starts"),
    ],
)
def test_a_wrong_trace_is_refused(rows: str, header: str, message: str, tmp_path: Path) -> None:
    path = write_trace(tmp_path, rows, header)
    with pytest.raises(TraceFileError, match=message) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError, match=r"absent.csv: cannot be read .*check the path"):
        read_trace(tmp_path / "absent.csv")


def test_a_trace_beyond_its_period_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError, match=r"reaches 9 s, beyond repeat_every_s \(5\)"):
        read_trace(write_trace(tmp_path, "a,1,9\n"), repeat_every_s=5.0)
