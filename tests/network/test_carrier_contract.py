"""What every carrier promises, simulated or over sockets, with and without keys."""

from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.randomness import Streams
from network.spec import CompleteTopology, RingTopology, TopologySpec
from network.streams import generator
from network.topology import build_graph
from tests.network.carrier_ends import (
    REDRAWN,
    SEED,
    SIZE_BYTES,
    TOPOLOGIES,
    Heard,
    Make,
    SimulatedEnds,
    content_of,
    ended,
)

KINDS = ("simulated", "insecure", "curve")


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, real: Make) -> Make:
    """Makes ends of each kind."""
    kind = request.param
    if kind == "simulated":
        return SimulatedEnds
    return lambda n_agents, topology, **more: real(n_agents, topology, kind, **more)


# ---------------------------------------------------------------- the graph


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda t: f"{t.kind}-{getattr(t, 'redraw', '')}")
def test_neighbours_agree_from_both_sides_and_with_the_topology(make: Make, topology: TopologySpec) -> None:
    n = 6
    ends = make(n, topology)
    for number in (0, 1, 2, 9, 2):
        if number:
            for carrier in ends.distinct():
                carrier.redraw(number)
        drawn = number if topology is REDRAWN else 0
        graph = build_graph(topology, n, generator(Streams(SEED, 0).family("topology"), drawn))
        expected = set(zip(graph.sender.tolist(), graph.receiver.tolist(), strict=True))
        for carrier in ends.carriers:
            out = {(s, r) for s in range(n) for r in carrier.out_neighbours(s).tolist()}
            into = {(s, r) for r in range(n) for s in carrier.in_neighbours(r).tolist()}
            assert out == into == expected
        for agent, carrier in enumerate(ends.carriers):
            assert (np.diff(carrier.out_neighbours(agent)) > 0).all()
            assert (np.diff(carrier.in_neighbours(agent)) > 0).all()


def test_a_redrawn_graph_differs_from_round_to_round(make: Make) -> None:
    ends = make(6, REDRAWN)
    graphs = set()
    for number in range(1, 9):
        ends.carriers[3].redraw(number)
        graphs.add(tuple(ends.carriers[3].out_neighbours(3).tolist()))
    assert len(graphs) > 3


# ---------------------------------------------------------------- what arrives


@pytest.mark.parametrize("topology", [CompleteTopology(), RingTopology()], ids=lambda t: t.kind)
def test_a_broadcast_reaches_exactly_the_out_neighbours_as_it_was_sent(
    make: Make, topology: TopologySpec
) -> None:
    ends = make(5, topology)
    sends = ends.send(2, round_number=3, now_s=1.5)
    neighbours = ends.carriers[2].out_neighbours(2).tolist()
    assert sends.sender.tolist() == [2] * len(neighbours) and sends.receiver.tolist() == neighbours
    heard = ends.hear_all(len(neighbours), now_s=2.0)
    assert sorted(heard) == [Heard(r, 2, 3, content_of(2, 3).tolist(), 1.5) for r in neighbours]


def test_after_a_redraw_a_broadcast_goes_along_the_new_graph(make: Make) -> None:
    ends = make(6, REDRAWN)
    for number in (1, 2, 3):
        for carrier in ends.distinct():
            carrier.redraw(number)
        neighbours = ends.carriers[0].out_neighbours(0).tolist()
        ends.send(0, number)
        assert sorted(heard.receiver for heard in ends.hear_all(len(neighbours))) == neighbours


def test_nothing_comes_twice_or_to_oneself_and_each_link_keeps_its_order(make: Make) -> None:
    n, rounds = 4, 12
    ends = make(n, CompleteTopology())
    heard: list[Heard] = []
    for k in range(rounds):
        for agent in range(n):
            ends.send(agent, k)
        if k % 3 == 2:  # also several rounds at once
            heard += ends.hear_out()
    assert all(h.receiver != h.sender for h in heard)
    by_link: dict[tuple[int, int], list[int]] = {}
    for h in heard:
        assert h.content == content_of(h.sender, h.round).tolist()
        by_link.setdefault((h.sender, h.receiver), []).append(h.round)
    assert by_link == {(s, r): list(range(rounds)) for s in range(n) for r in range(n) if r != s}


def test_what_is_older_than_the_limit_expires(make: Make) -> None:
    ends = make(3, CompleteTopology(), max_age_s=0.5)
    ends.send(0, 1, now_s=10.0)
    if isinstance(ends, SimulatedEnds):  # there age counts at the arrival, which is when it was sent
        assert len(ends.hear(20.0)) == 2
        return
    assert not ends.hear_out(now_s=10.6) and ends.totals().expired == 2
    ends.send(0, 2, now_s=10.2)
    assert [h.round for h in ends.hear_all(2, now_s=10.6)] == [2, 2]
    assert ends.totals().expired == 2


# ---------------------------------------------------------------- counts


def test_every_message_ends_in_exactly_one_way(make: Make) -> None:
    n = 5
    ends = make(n, CompleteTopology(), max_age_s=3.0)
    for k in range(9):
        for agent in range(k % n + 1):
            ends.send(agent, k, now_s=float(k))
            if k % 2:
                ends.hear(float(k))
            assert ended(ends.totals()) <= ends.totals().sent
    heard = ends.hear_out(8.0)
    counts = ends.totals()
    assert counts.sent == 4 * sum(k % n + 1 for k in range(9)) and counts.in_flight == 0 and heard
    assert ended(counts) == counts.sent
    assert counts.bytes_sent == SIZE_BYTES * (counts.sent - counts.queue_dropped)


def test_tables_of_links_add_up_to_the_counts(make: Make) -> None:
    ends = make(4, RingTopology())
    for k in range(3):
        for agent in range(4):
            ends.send(agent, k)
        ends.hear_all(8)
    tables = [carrier.link_table() for carrier in ends.distinct()]
    for name in ("sent", "delivered", "lost", "queue_dropped", "expired", "duplicated"):
        assert sum(int(table[name].sum()) for table in tables) == getattr(ends.totals(), name)
    assert ends.totals().delivered == 24


def test_counts_go_on_from_a_state(make: Make, real: Make) -> None:
    ends, others = make(4, REDRAWN), make(4, REDRAWN)
    for number in (1, 2):
        for carrier in ends.distinct():
            carrier.redraw(number)
        for agent in range(4):
            ends.send(agent, number)
        ends.hear_out()
    for carrier, other in zip(ends.distinct(), others.distinct(), strict=True):
        other.load_state(carrier.state())
        assert other.counts == carrier.counts
        for agent in range(4):
            assert other.out_neighbours(agent).tolist() == carrier.out_neighbours(agent).tolist()
        for name, column in carrier.link_table().items():
            np.testing.assert_array_equal(other.link_table()[name], column)
    before = others.totals()
    others.send(0, 3)
    heard = others.hear_out()
    assert others.totals().sent == before.sent + len(others.carriers[0].out_neighbours(0))
    assert others.totals().delivered == before.delivered + len(heard)
