"""What only a carrier over sockets does: with copies of no use, with slow peers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from network.spec import CompleteTopology, EdgeListTopology
from network.wire import Message
from network.zmq_carrier import COPY
from tests.network.carrier_ends import (
    SETTLED_S,
    SIZE_BYTES,
    Make,
    RealEnds,
    content_of,
    ended,
    resident_bytes,
    wait_until,
)

# ---------------------------------------------------------------- what is of no use


def unusable(ends: RealEnds, count: int) -> None:
    """Wait until agent 1 has got so many useless copies; nothing may be delivered to it."""

    def all_found() -> bool:
        assert not ends.hear(agents=[1])
        return ends.carriers[1].unusable == count

    wait_until(all_found)


@pytest.mark.parametrize("kind", ["insecure", "curve"])
def test_copies_of_no_use_are_counted_and_not_delivered(real: Make, kind: str) -> None:
    ends = real(3, CompleteTopology(), kind)
    good = content_of(0, 1)
    bad = [
        {"parameters": good[:-1]},
        {"parameters": np.where(good == good[2], np.float32(np.nan), good)},
        {"parameters": np.where(good == good[0], np.float32(np.inf), good)},
        {"parameters": good[None]},
        {"other": good},
        {},
    ]
    for number, tensors in enumerate(bad, start=1):
        ends.raw(0, 1, Message(COPY, 0, 77, number, 0.0, {"round": 1}, tensors))
        unusable(ends, number)
    assert ends.carriers[1].link_table()["unusable"].tolist() == [len(bad), 0, 0]
    ends.raw(0, 1, Message(COPY, 0, 77, 100, 0.0, {"round": 1}, {"parameters": good}))
    assert [h.content for h in ends.hear_all(1)] == [good.tolist()]
    assert ends.carriers[1].counts.delivered == 1 and ends.unusable() == len(bad)


def test_copies_from_nobody_in_the_run_are_of_no_use(real: Make) -> None:
    ends = real(3, CompleteTopology())
    for number, sender in enumerate((3, 999_999, -1, 1), start=1):
        tensors = {"parameters": content_of(0, 1)}
        ends.raw(0, 1, Message(COPY, sender, 77, number, 0.0, {"round": 1}, tensors))
        unusable(ends, number)
    assert ends.carriers[1].counts.delivered == 0


def test_without_cargo_copies_are_of_no_use(real: Make) -> None:
    ends = real(2, CompleteTopology())
    ends.carriers[1].cargo = None
    ends.send(0, 1)
    wait_until(lambda: ends.hear(agents=[1]) or ends.carriers[1].unusable == 1)


def test_other_messages_go_elsewhere_and_are_not_counted(real: Make) -> None:
    ends = real(2, CompleteTopology())
    got: list[Message] = []
    ends.carriers[1].other = got.append
    ends.carriers[0].tell(np.array([1]), "policy", 3.0, {"step": 4}, {"weights": np.ones(3)})
    ends.send(0, 1)
    assert [h.round for h in ends.hear_all(1)] == [1]
    assert [(m.kind, m.sender, m.fields, m.sent_s) for m in got] == [("policy", 0, {"step": 4}, 3.0)]
    assert ends.totals().sent == ends.totals().delivered == 1


def test_a_flood_is_read_in_parts(real: Make) -> None:
    ends = real(2, CompleteTopology())
    for k in range(20):
        ends.send(0, k)
    parts: list[int] = []

    def all_read() -> bool:
        parts.append(len(ends.hear(agents=[1])))
        return sum(parts) == 20

    time.sleep(SETTLED_S)
    wait_until(all_read)
    assert max(parts) == 8


# ---------------------------------------------------------------- slow peers


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the memory figures of Linux")
def test_a_peer_that_never_reads_costs_bounded_memory_and_hears_the_newest_when_it_does(real: Make) -> None:
    megabyte, messages = 1 << 20, 300
    ends = real(3, CompleteTopology(), width=megabyte // 4, unsent=2, unread=2)
    shelf = ends.shelves[0]
    sizes = []
    for k in range(messages):
        shelf.kept = []
        ends.send(0, k)
        ends.hear(agents=[2])
        ends.shelves[2].kept = []
        ends.pump(0.0)
        sizes.append(resident_bytes())
    assert max(sizes) - sizes[20] < 30 * megabyte, "of the 300 MB that were sent"
    assert ends.carriers[0].counts.queue_dropped > messages // 2
    assert ends.carriers[0].counts.in_flight >= 1
    heard = ends.hear_out()
    of_slow = [h.round for h in heard if h.receiver == 1]
    assert of_slow == sorted(of_slow) and of_slow[-1] == messages - 1
    counts = ends.totals()
    assert counts.in_flight == 0 and ended(counts) == counts.sent == 2 * messages
    assert counts.bytes_sent == SIZE_BYTES * (counts.sent - counts.queue_dropped)


def test_only_copies_are_counted_among_what_a_slow_peer_misses(real: Make) -> None:
    ends = real(2, CompleteTopology(), width=1 << 18, unsent=1, unread=1)
    sender = ends.carriers[0]
    weights = {"weights": np.zeros(1 << 18, dtype=np.float32)}
    for k in range(60):
        if k % 2:
            sender.tell(np.array([1]), "policy", 0.0, {}, weights)
        else:
            ends.send(0, k)
    assert ends.outbox(0, 1).dropped > 20
    ends.hear_out()
    counts = ends.totals()
    assert counts.in_flight == 0 and 0 < counts.queue_dropped < 30
    assert ended(counts) == counts.sent == 30


def test_the_newest_of_each_kind_waits(real: Make) -> None:
    ends = real(2, CompleteTopology(), width=1 << 18, unsent=1, unread=1)
    ends.shelves[0].kinds = 2
    ends.clog(0)
    before = ends.carriers[0].counts.queue_dropped
    for k in (2, 4, 6, 7):  # the last one alone is of the second kind
        ends.send(0, k)
    assert ends.carriers[0].counts.in_flight == 2
    assert ends.carriers[0].counts.queue_dropped - before == 3
    heard = [h.round for h in ends.hear_out()]
    assert heard[-2:] == [6, 7] and set(heard[:-2]) == {0}
    counts = ends.totals()
    assert counts.in_flight == 0 and ended(counts) == counts.sent
    assert counts.bytes_sent == SIZE_BYTES * (counts.sent - counts.queue_dropped)


def test_what_waits_when_a_process_ends_is_lost(real: Make) -> None:
    ends = real(2, CompleteTopology(), width=1 << 18, unsent=1, unread=1)
    ends.clog(0)
    old = ends.carriers[0]
    assert old.counts.in_flight == 1
    again = real(2, CompleteTopology()).carriers[0]
    again.load_state(old.state())
    assert again.counts.lost == 1 and again.counts.in_flight == 0
    assert again.counts.missing() == old.counts.missing()


def test_an_edge_of_one_direction_carries_one_way(real: Make) -> None:
    ends = real(2, EdgeListTopology(edges=((0, 1),), directed=True))
    ends.send(1, 1)
    ends.send(0, 1)
    assert [h.receiver for h in ends.hear_all(1)] == [1]
