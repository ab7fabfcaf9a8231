"""A network emulated between real sockets does what the simulated one does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from f2a2_sim.randomness import Streams
from network.carrier import SimulatedCarrier
from network.spec import (
    BernoulliLoss,
    CompleteTopology,
    ConstantLatency,
    LinkSpec,
    PartitionSpec,
    TopologySpec,
    UniformLatency,
)
from tests.network.carrier_ends import (
    REDRAWN,
    SEED,
    SIZE_BYTES,
    Heard,
    Make,
    RealEnds,
    content_of,
    ended,
    resident_bytes,
)

ROUGH = LinkSpec(latency=UniformLatency(low_s=0.0, high_s=1.0), loss=BernoulliLoss(probability=0.4))


def simulated(n_agents: int, topology: TopologySpec, links: LinkSpec, **more: Any) -> SimulatedCarrier:
    return SimulatedCarrier(n_agents, topology, links, Streams(SEED, 0), **more)


def emulated(real: Make, n_agents: int, links: LinkSpec, topology: TopologySpec, **more: Any) -> RealEnds:
    """Ends over sockets, each with an emulator of these links."""
    ends: RealEnds = real(n_agents, topology, emulator=lambda: simulated(n_agents, topology, links), **more)
    return ends


def arrivals(carrier: SimulatedCarrier, rounds: int, step_s: float) -> list[tuple[int, int, int, float]]:
    """(receiver, sender, round, arrival) where every agent broadcasts once a step, in order of arrival."""
    everybody = np.ones(carrier.n_agents, dtype=np.bool_)
    for k in range(rounds):
        senders = np.arange(carrier.n_agents)
        carrier.broadcast(k * step_s, senders, np.full(len(senders), k), SIZE_BYTES)
    got = carrier.drain(np.inf, everybody)
    columns = (got.receiver, got.sender, got.version, got.arrival_s)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_an_emulated_network_loses_and_delays_what_the_simulated_one_does(real: Make) -> None:
    n, rounds, step_s = 4, 15, 0.125
    ends = emulated(real, n, ROUGH, CompleteTopology())
    reference = simulated(n, CompleteTopology(), ROUGH)
    expected = arrivals(reference, rounds, step_s)
    heard: list[tuple[Heard, float]] = []
    for k in range(rounds + 9):
        now_s = k * step_s
        ends.pump(now_s)
        if k < rounds:
            for agent in range(n):
                ends.send(agent, k, now_s)
        due = sum(arrival_s <= now_s for *_, arrival_s in expected)
        heard += [(h, now_s) for h in ends.hear_all(due - len(heard), now_s)]
        assert len(heard) == due, "something came before its time"
    came = Counter((h.receiver, h.sender, h.round) for h, _ in heard)
    assert came == Counter((r, s, k) for r, s, k, _ in expected)
    arrival = {(r, s, k): arrival_s for r, s, k, arrival_s in expected}
    for h, now_s in heard:
        assert h.content == content_of(h.sender, h.round).tolist() and h.sent_s == h.round * step_s
        assert now_s - step_s < arrival[h.receiver, h.sender, h.round] <= now_s
    for agent, carrier in enumerate(ends.carriers):
        table = reference.link_table()
        mine = table["sender"] == agent
        lost = np.zeros(n, dtype=np.int64)
        lost[table["receiver"][mine]] = table["lost"][mine]
        assert carrier.link_table()["lost"].tolist() == lost.tolist()
        assert carrier.next_departure_s() == np.inf
    counts = ends.totals()
    assert counts.in_flight == 0 and ended(counts) == counts.sent and counts.lost > 20


def test_what_an_emulated_network_reorders_arrives_all_the_same(real: Make) -> None:
    links = LinkSpec(latency=UniformLatency(low_s=0.0, high_s=1.0))
    ends = emulated(real, 2, links, CompleteTopology())
    expected = [k for r, _, k, _ in arrivals(simulated(2, CompleteTopology(), links), 20, 0.01) if r == 1]
    assert expected != sorted(expected)
    for k in range(20):
        ends.send(0, k, 0.01 * k)
    assert [h.round for h in ends.hear_all(20, 1.3)] == expected
    assert not ends.inboxes[1].counts, "a receiver took them for replays"


def test_an_emulated_network_duplicates_and_cuts(real: Make) -> None:
    links = LinkSpec(latency=ConstantLatency(value_s=0.5), duplication_probability=0.5)
    cut = PartitionSpec(start_s=1.0, end_s=2.0, groups=((0, 1), (2,)))

    def emulator() -> SimulatedCarrier:
        return simulated(3, CompleteTopology(), links, partitions=[cut])

    ends = real(3, CompleteTopology(), emulator=emulator)
    expected = Counter((r, s, k) for r, s, k, _ in arrivals(emulator(), 10, 0.25))
    for k in range(10):
        for agent in range(3):
            ends.send(agent, k, 0.25 * k)
    heard = ends.hear_out(3.0)
    assert Counter((h.receiver, h.sender, h.round) for h in heard) == expected
    counts = ends.totals()
    assert max(expected.values()) == 2 and counts.lost > 10 and counts.duplicated > 10


def test_an_emulated_network_goes_along_the_redrawn_graph(real: Make) -> None:
    ends = emulated(real, 6, LinkSpec(latency=ConstantLatency(value_s=0.1)), REDRAWN)
    for number in (1, 2, 3):
        for carrier in ends.carriers:
            carrier.redraw(number)
        neighbours = ends.carriers[0].out_neighbours(0).tolist()
        ends.send(0, number, float(number))
        assert not ends.hear_rest(number + 0.05)
        heard = ends.hear_all(len(neighbours), number + 0.1)
        assert sorted(h.receiver for h in heard) == neighbours


def test_what_an_emulated_network_holds_is_bounded(real: Make) -> None:
    width = 1 << 16
    links = LinkSpec(latency=ConstantLatency(value_s=5.0))
    ends = emulated(real, 3, links, CompleteTopology(), width=width, held_bytes=10 * 4 * width)
    before = resident_bytes() if Path("/proc/self/statm").exists() else 0
    for k in range(400):
        ends.shelves[0].kept = []
        ends.send(0, k, 0.01 * k)
    if before:
        assert resident_bytes() - before < 30 << 20, "of the 100 MB that were sent"
    assert ends.carriers[0].counts.in_flight == 800
    heard = []
    for k in range(400):
        ends.pump(5.0 + 0.01 * k)
        heard += ends.hear(10.0)
    heard += ends.hear_out(10.0)
    counts = ends.totals()
    assert len(heard) == counts.delivered == 2 * 9  # headers count, too
    assert counts.queue_dropped == 800 - 18 and counts.in_flight == 0
    ends.send(0, 1000, 20.0)  # there is room again
    assert {h.round for h in ends.hear_all(2, 25.0)} == {1000}


def test_an_emulated_network_goes_on_where_a_process_ended(real: Make) -> None:
    n, rounds, stop, step_s = 3, 30, 17, 0.125
    expected = [x for x in arrivals(simulated(n, CompleteTopology(), ROUGH), rounds, step_s) if x[1] == 0]
    first = emulated(real, n, ROUGH, CompleteTopology())
    for k in range(stop):
        first.send(0, k, k * step_s)
    old = first.carriers[0].counts
    second = emulated(real, n, ROUGH, CompleteTopology())
    second.carriers[0].load_state(first.carriers[0].state())
    now = second.carriers[0].counts
    assert old.in_flight > 0 and now.in_flight == 0 and now.lost == old.lost + old.in_flight
    assert (now.sent, now.bytes_sent, now.missing()) == (old.sent, old.bytes_sent, old.missing())
    second.send(0, stop, 0.0)  # the clock may have been set back
    for k in range(stop + 1, rounds):
        second.send(0, k, k * step_s)
    after = sorted((r, k) for r, _, k, _ in expected if k >= stop)
    assert sorted((h.receiver, h.round) for h in second.hear_all(len(after), 100.0)) == after


def test_a_state_can_be_gone_on_from_with_and_without_an_emulator(real: Make) -> None:
    plain, rough = real(2, CompleteTopology()), emulated(real, 2, ROUGH, CompleteTopology())
    for ends in (plain, rough):
        for k in range(10):
            ends.send(0, k, 0.1 * k)
        ends.hear_out(10.0)
    for source in (plain, rough):
        for target in (
            real(2, CompleteTopology()).carriers[0],
            emulated(real, 2, ROUGH, CompleteTopology()).carriers[0],
        ):
            target.load_state(source.carriers[0].state())
            assert target.counts == source.carriers[0].counts
