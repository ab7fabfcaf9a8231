"""The compute unit: exact logs of single stories, and invariants of random ones."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.unit import ACT, LEARN, ComputeUnits, Run


def test_idle_unit_starts_at_once() -> None:
    units = ComputeUnits(2)
    assert units.request(1, LEARN, 3.0, 0.5, token=42) == Run(LEARN, 42, 3.0, 3.5)
    assert units.running(1) == Run(LEARN, 42, 3.0, 3.5)
    assert units.is_busy(1) and not units.is_busy(0)
    assert units.finished(1, 3.5) is None
    assert units.running(1) is None


def test_acting_goes_before_learning_but_does_not_interrupt() -> None:
    units = ComputeUnits(1)
    units.request(0, LEARN, 0.0, 10.0, token=1)
    assert units.request(0, LEARN, 1.0, 10.0, token=2) is None
    assert units.request(0, ACT, 2.0, 1.0, token=3) is None
    assert units.request(0, ACT, 3.0, 1.0, token=4) is None
    assert [units.pending(0, kind) for kind in (ACT, LEARN)] == [2, 1]
    assert units.finished(0, 10.0) == Run(ACT, 3, 10.0, 11.0)
    assert units.finished(0, 11.0) == Run(ACT, 4, 11.0, 12.0)
    assert units.finished(0, 12.0) == Run(LEARN, 2, 12.0, 22.0)
    assert units.finished(0, 22.0) is None
    assert units.busy_s(ACT, 30.0).tolist() == [2.0]
    assert units.busy_s(LEARN, 30.0).tolist() == [20.0]


def test_a_pause_keeps_the_rest_of_the_work() -> None:
    units = ComputeUnits(1)
    units.request(0, LEARN, 0.0, 10.0, token=1)
    units.request(0, ACT, 0.0, 1.0, token=2)
    units.pause(0, 4.0)
    assert not units.is_on(0) and not units.is_busy(0)
    assert not units.is_due(0, 10.0)  # the event of the first run is stale
    assert units.busy_s(LEARN, 50.0).tolist() == [4.0]
    assert units.resume(0, 100.0) == Run(LEARN, 1, 100.0, 106.0)
    assert units.is_due(0, 106.0)
    assert units.finished(0, 106.0) == Run(ACT, 2, 106.0, 107.0)
    assert units.busy_s(LEARN, 107.0).tolist() == [10.0]


def test_requests_while_off_wait() -> None:
    units = ComputeUnits(1)
    units.pause(0, 0.0)
    assert units.request(0, LEARN, 1.0, 5.0, token=1) is None
    assert units.request(0, ACT, 2.0, 5.0, token=2) is None
    assert units.resume(0, 10.0) == Run(ACT, 2, 10.0, 15.0)


def test_a_crash_loses_everything() -> None:
    units = ComputeUnits(1)
    units.request(0, LEARN, 0.0, 10.0, token=1)
    units.request(0, LEARN, 0.0, 10.0, token=2)
    units.request(0, ACT, 0.0, 10.0, token=3)
    assert units.crash(0, 4.0) == [(LEARN, 1), (ACT, 3), (LEARN, 2)]
    assert units.busy_s(LEARN, 9.0).tolist() == [4.0]  # the time was spent all the same
    assert units.resume(0, 10.0) is None
    assert units.request(0, ACT, 11.0, 1.0) == Run(ACT, 0, 11.0, 12.0)


def test_a_crash_while_paused_loses_the_interrupted_work() -> None:
    units = ComputeUnits(1)
    units.request(0, LEARN, 0.0, 10.0, token=1)
    units.pause(0, 4.0)
    assert units.crash(0, 6.0) == [(LEARN, 1)]
    assert units.busy_s(LEARN, 9.0).tolist() == [4.0]
    assert units.resume(0, 10.0) is None


def test_pausing_twice_is_pausing_once() -> None:
    units = ComputeUnits(1)
    units.request(0, LEARN, 0.0, 10.0)
    units.pause(0, 4.0)
    units.pause(0, 7.0)
    assert units.resume(0, 8.0) == Run(LEARN, 0, 8.0, 14.0)


def test_waiting_work_can_be_discarded() -> None:
    units = ComputeUnits(1)
    units.request(0, LEARN, 0.0, 10.0, token=1)
    units.request(0, ACT, 0.0, 1.0, token=2)
    units.request(0, ACT, 0.0, 1.0, token=3)
    assert units.discard_pending(0, ACT) == [2, 3]
    assert units.discard_pending(0, ACT) == []
    assert units.finished(0, 10.0) is None


def test_events_that_cannot_be_are_refused() -> None:
    units = ComputeUnits(1)
    units.request(0, ACT, 0.0, 2.0)
    with pytest.raises(ValueError, match=r"no work ends at 1.0 \(but at 2.0\)"):
        units.finished(0, 1.0)
    with pytest.raises(ValueError, match="is on already"):
        units.resume(0, 1.0)


def test_busy_time_counts_work_under_way() -> None:
    units = ComputeUnits(3)
    units.request(1, ACT, 1.0, 10.0)
    units.request(2, LEARN, 2.0, 10.0)
    assert units.busy_s(ACT, 5.0).tolist() == [0.0, 4.0, 0.0]
    assert units.busy_s(LEARN, 5.0).tolist() == [0.0, 0.0, 3.0]
    assert [units.busy_time_s(agent, 5.0) for agent in range(3)] == [0.0, 4.0, 3.0]


def test_state_round_trip() -> None:
    units = ComputeUnits(3)
    units.request(0, LEARN, 0.0, 10.0, token=1)
    units.request(0, LEARN, 0.0, 3.0, token=2)
    units.request(0, LEARN, 0.0, 4.0, token=3)
    units.request(0, ACT, 1.0, 1.0, token=4)
    units.request(1, LEARN, 0.0, 8.0, token=5)
    units.pause(1, 2.0)
    resumed = ComputeUnits(3)
    resumed.load_state(units.state())
    for each in (units, resumed):
        log = [each.finished(0, 10.0), each.finished(0, 11.0), each.finished(0, 14.0), each.resume(1, 20.0)]
        assert log == [
            Run(ACT, 4, 10.0, 11.0),
            Run(LEARN, 2, 11.0, 14.0),
            Run(LEARN, 3, 14.0, 18.0),
            Run(LEARN, 5, 20.0, 26.0),
        ]
    for key, value in units.state().items():
        assert isinstance(value, np.ndarray)
        assert value.tolist() == resumed.state()[key].tolist()


def test_state_of_other_units_is_refused() -> None:
    with pytest.raises(ValueError, match="of 1 compute units does not fit 2"):
        ComputeUnits(2).load_state(ComputeUnits(1).state())


@dataclass
class Story:
    """An event loop around the units that records what an observer sees."""

    units: ComputeUnits
    agenda: list[tuple[float, int, str, int]] = field(default_factory=list)
    sequence: int = 0
    asked: dict[int, tuple[int, int, float]] = field(default_factory=dict)  # token: agent, kind, duration
    waiting: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    current: dict[int, tuple[Run, float]] = field(default_factory=dict)  # agent: run, actual start
    spent: dict[int, float] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def began(self, agent: int, run: Run | None, now_s: float) -> None:
        if run is None:
            return
        assert agent not in self.current, "two works at once"
        assert run.start_s == now_s
        if run.token not in self.spent:  # begun afresh: first of its kind, and no act may wait behind a learn
            assert self.waiting[agent, run.kind].pop(0) == run.token
            assert run.kind == ACT or not self.waiting[agent, ACT]
            self.spent[run.token] = 0.0
        self.current[agent] = (run, now_s)
        self.sequence += 1
        heapq.heappush(self.agenda, (run.finish_s, self.sequence, "finish", agent))

    def ended(self, agent: int, now_s: float) -> None:
        if agent in self.current:
            run, start_s = self.current.pop(agent)
            self.spent[run.token] += now_s - start_s

    def handle(self, now_s: float, what: str, agent: int, token: int) -> None:
        units = self.units
        if what == "finish":
            if not units.is_due(agent, now_s) or agent not in self.current:
                return
            self.done.append(self.current[agent][0].token)
            self.ended(agent, now_s)
            self.began(agent, units.finished(agent, now_s), now_s)
        elif what == "request":
            _, kind, duration_s = self.asked[token]
            self.waiting[agent, kind].append(token)
            self.began(agent, units.request(agent, kind, now_s, duration_s, token), now_s)
        elif what == "pause":
            self.ended(agent, now_s)
            units.pause(agent, now_s)
        elif what == "crash":
            self.ended(agent, now_s)
            self.lost += [token for _, token in units.crash(agent, now_s)]
            self.waiting[agent, ACT].clear()
            self.waiting[agent, LEARN].clear()
        elif what == "resume" and not units.is_on(agent):
            self.began(agent, units.resume(agent, now_s), now_s)
        if units.is_on(agent):  # never idle while work waits
            assert units.is_busy(agent) or not (self.waiting[agent, ACT] or self.waiting[agent, LEARN])
        assert units.is_busy(agent) == (agent in self.current)


EVENT = st.tuples(
    st.floats(0.0, 20.0),
    st.sampled_from(["request"] * 6 + ["pause", "crash", "resume", "resume"]),
    st.integers(0, 1),
    st.sampled_from([ACT, LEARN]),
    st.floats(0.0, 5.0),
)


@settings(max_examples=300)
@given(st.lists(EVENT, max_size=40), st.booleans())
def test_schedule_invariants(events: list[tuple[float, str, int, int, float]], reload: bool) -> None:
    story = Story(ComputeUnits(2))
    story.waiting = {(agent, kind): [] for agent in (0, 1) for kind in (ACT, LEARN)}
    for token, (time_s, what, agent, kind, duration_s) in enumerate(events):
        story.asked[token] = (agent, kind, duration_s)
        heapq.heappush(story.agenda, (time_s, token - len(events), what, agent))
    for agent in (0, 1):  # let everything end
        heapq.heappush(story.agenda, (30.0, -1000, "resume", agent))
    now_s = 0.0
    while story.agenda:
        now_s, order, what, agent = heapq.heappop(story.agenda)
        if reload:  # a checkpoint at every event changes nothing
            fresh = ComputeUnits(2)
            fresh.load_state(story.units.state())
            story.units = fresh
        story.handle(now_s, what, agent, order + len(events))
    requested = [token for token, event in enumerate(events) if event[1] == "request"]
    assert sorted(story.done + story.lost) == requested  # nothing vanishes, nothing is done twice
    for token in story.done:
        assert story.spent[token] == pytest.approx(story.asked[token][2], abs=1e-9)
    for kind in (ACT, LEARN):
        for agent in (0, 1):
            spent = [s for t, s in story.spent.items() if story.asked[t][:2] == (agent, kind)]
            assert story.units.busy_s(kind, now_s)[agent] == pytest.approx(sum(spent), abs=1e-9)
    for agent in (0, 1):
        both = sum(s for t, s in story.spent.items() if story.asked[t][0] == agent)
        assert story.units.busy_time_s(agent, now_s) == pytest.approx(both, abs=1e-9)
