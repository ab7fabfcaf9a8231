"""The agenda calls handlers in the order of (time, priority, sequence), before and after a resume."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.simulator.agenda import Agenda

Events = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.1 + 0.2, 7.0]), st.integers(0, 2)), max_size=20)


def logging_agenda() -> tuple[Agenda, list[tuple[float, int]]]:
    agenda, log = Agenda(), []
    agenda.handle({"note": lambda subject, detail: log.append((agenda.now_s, subject))})
    return agenda, log


@given(Events)
def test_order_is_time_then_priority_then_sequence(events: list[tuple[float, int]]) -> None:
    agenda, log = logging_agenda()
    for number, (time_s, priority) in enumerate(events):
        agenda.at(time_s, "note", number, priority=priority)
    while len(agenda):
        agenda.step()
    expected = sorted((time_s, priority, number) for number, (time_s, priority) in enumerate(events))
    assert log == [(time_s, number) for time_s, _, number in expected]


@given(Events, st.integers(0, 20))
def test_a_saved_agenda_goes_on_with_the_very_same_times(events: list[tuple[float, int]], done: int) -> None:
    agenda, log = logging_agenda()
    for number, (time_s, priority) in enumerate(events):
        agenda.at(time_s, "note", number, priority=priority)
    for _ in range(min(done, len(events))):
        agenda.step()
    other, rest = logging_agenda()
    other.load_state(agenda.state())
    before = len(log)
    for each in (agenda, other):
        each.at(each.now_s, "note", 99)
        while len(each):
            each.step()
    assert rest == log[before:]


def test_a_handler_may_schedule_at_its_own_instant() -> None:
    agenda, log = logging_agenda()
    agenda.handle({"again": lambda subject, detail: agenda.at(agenda.now_s, "note", detail)})
    agenda.at(1.0, "again", 0, 5)
    agenda.at(1.0, "note", 1)
    while len(agenda):
        agenda.step()
    assert log == [(1.0, 1), (1.0, 5)]
