"""Each graph has the properties that its name promises, and impossible ones are refused with a remedy."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from network.errors import TopologyError
from network.registry import LinkRegistry
from network.spec import GeometricTopology, RingPlusRandomTopology, TopologySpec
from network.topology import Graph, build_graph
from tests.network.helpers import carrier, drain, send

ADAPTER: TypeAdapter[Any] = TypeAdapter(TopologySpec)


def build(n_agents: int, seed: int = 1, **spec: Any) -> Graph:
    return build_graph(ADAPTER.validate_python(spec), n_agents, np.random.default_rng(seed))


def edges(graph: Graph) -> set[tuple[int, int]]:
    return set(zip(graph.sender.tolist(), graph.receiver.tolist(), strict=True))


ALL = [
    {"kind": "empty"},
    {"kind": "complete"},
    {"kind": "ring"},
    {"kind": "ring_plus_random", "share": 0.3},
    {"kind": "k_regular", "degree": 4},
    {"kind": "small_world", "degree": 4, "rewiring_probability": 0.2},
    {"kind": "geometric", "radius": 0.5},
    {"kind": "edge_list", "edges": [[0, 1], [1, 2], [0, 1]]},
]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec["kind"])
def test_graphs_are_symmetric_sorted_and_repeatable(spec: dict[str, Any]) -> None:
    graph = build(30, **spec)
    pairs = edges(graph)
    assert len(pairs) == len(graph.sender)
    assert all(a != b and (b, a) in pairs for a, b in pairs)
    assert (np.diff(graph.ids) > 0).all()
    for agent in range(30):
        np.testing.assert_array_equal(graph.neighbours(agent), sorted(b for a, b in pairs if a == agent))
    assert edges(build(30, **spec)) == pairs


def test_complete_and_ring_and_empty() -> None:
    assert edges(build(5, kind="complete")) == {(a, b) for a in range(5) for b in range(5) if a != b}
    assert edges(build(5, kind="ring")) == {(a, (a + d) % 5) for a in range(5) for d in (1, 4)}
    assert edges(build(2, kind="ring")) == {(0, 1), (1, 0)}
    assert (
        edges(build(1, kind="ring"))
        == edges(build(1, kind="complete"))
        == edges(build(9, kind="empty"))
        == set()
    )


@pytest.mark.parametrize("n_agents", [3, 4, 5, 12, 60])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ring_plus_random_has_the_ring_and_that_share_of_the_rest(n_agents: int, share: float) -> None:
    pairs = edges(build(n_agents, kind="ring_plus_random", share=share))
    ring = edges(build(n_agents, kind="ring"))
    rest = n_agents * (n_agents - 1) // 2 - n_agents
    assert ring <= pairs
    assert len(pairs) == 2 * (n_agents + round(share * rest))


def test_each_random_edge_is_equally_likely() -> None:
    n, draws, share = 8, 3000, 0.25
    rng = np.random.default_rng(0)
    seen = np.zeros((n, n))
    for _ in range(draws):
        graph = build_graph(RingPlusRandomTopology(share=share), n, rng)
        seen[graph.sender, graph.receiver] += 1
    chords = ~np.array([[(a - b) % n in (0, 1, n - 1) for b in range(n)] for a in range(n)])
    error = np.sqrt(share * (1 - share) / draws)
    assert (abs(seen[chords] / draws - share) < 4.5 * error).all()


def test_redraw_changes_the_random_edges_only_when_asked() -> None:
    for redraw, changes in (("every_round", True), ("never", False)):
        c = carrier(40, RingPlusRandomTopology(share=0.1, redraw=redraw))
        first = edges(c.graph)
        c.redraw(1)
        assert (edges(c.graph) != first) == changes
        assert len(edges(c.graph)) == len(first)


def test_messages_cross_a_link_that_a_redraw_has_removed_meanwhile() -> None:
    c = carrier(40, RingPlusRandomTopology(share=0.1))
    sends = send(c, 0.0, range(40))
    c.redraw(1)
    assert len(drain(c)) == len(sends.sender)
    table = c.link_table()
    now = set(
        zip(
            table["sender"][table["currently_connected"]].tolist(),
            table["receiver"][table["currently_connected"]].tolist(),
            strict=True,
        )
    )
    assert now == edges(c.graph) and len(table["sender"]) > len(now)


@pytest.mark.parametrize("degree", [1, 2, 3, 8])
def test_k_regular_gives_everyone_the_same_number_of_neighbours(degree: int) -> None:
    n_agents = 2 if degree == 1 else 30
    graph = build(n_agents, kind="k_regular", degree=degree)
    assert set(np.diff(graph.first)) == {degree}
    assert nx.is_connected(graph.to_networkx().to_undirected())


def test_small_world_rewires_about_that_share() -> None:
    lattice = edges(build(200, kind="small_world", degree=6, rewiring_probability=0.0))
    assert lattice == {(a, (a + d) % 200) for a in range(200) for d in (-3, -2, -1, 1, 2, 3)}
    graph = build(200, kind="small_world", degree=6, rewiring_probability=0.3)
    assert len(graph.sender) == 1200 and nx.is_connected(graph.to_networkx().to_undirected())
    moved = len(lattice - edges(graph)) / 1200
    assert abs(moved - 0.3) < 4 * np.sqrt(0.21 / 600)


def test_geometric_links_those_within_the_radius_and_delays_by_distance() -> None:
    graph = build(80, kind="geometric", radius=0.3, latency_per_distance_s=2.0)
    places = np.random.default_rng(1).random((80, 2))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert edges(graph) == {(a, b) for a in range(80) for b in range(80) if a != b and distance[a, b] <= 0.3}
    assert graph.extra_latency_s is not None
    np.testing.assert_allclose(graph.extra_latency_s, 2.0 * distance[graph.sender, graph.receiver])
    c = carrier(80, GeometricTopology(radius=0.5, latency_per_distance_s=2.0))
    assert c.graph.extra_latency_s is not None
    np.testing.assert_array_equal(send(c, 1.0, range(80)).arrival_s, 1.0 + c.graph.extra_latency_s)


def test_edge_list_from_a_file_and_in_one_direction(tmp_path: Any) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("# sender, receiver\n0, 1\n1 2\n\n2,0 # back\n")
    assert edges(build(3, kind="edge_list", path=str(path), directed=True)) == {(0, 1), (1, 2), (2, 0)}
    assert edges(build(3, kind="edge_list", edges=[[2, 0]])) == {(0, 2), (2, 0)}


@pytest.mark.parametrize(
    ("n_agents", "spec", "words"),
    [
        (
            9,
            {"kind": "k_regular", "degree": 3},
            ["topology.degree = 3", "9 agents * 3 is odd", "use degree 4"],
        ),
        (
            8,
            {"kind": "k_regular", "degree": 8},
            ["topology.degree = 8", "less than the number of agents (8)"],
        ),
        (8, {"kind": "k_regular", "degree": 1}, ["form pairs", "degree 2 or more"]),
        (
            8,
            {"kind": "small_world", "degree": 3, "rewiring_probability": 0.1},
            ["degree = 3", "even", "use 4"],
        ),
        (8, {"kind": "small_world", "degree": 8, "rewiring_probability": 0.1}, ["less than the number"]),
        (50, {"kind": "geometric", "radius": 0.05}, ["topology.radius = 0.05", "pieces", "raise radius"]),
        (3, {"kind": "edge_list", "edges": [[0, 3]]}, ["topology.edges = [0, 3]", "0 to 2", "no agent 3"]),
        (3, {"kind": "edge_list", "edges": [[1, 1]]}, ["two different agents", "nobody sends to itself"]),
        (3, {"kind": "edge_list", "path": "/nowhere/x.csv"}, ["topology.path", "readable text file"]),
        (20_000, {"kind": "complete"}, ["at most 16,777,216 links", "399,980,000", "sparser"]),
        (20_000, {"kind": "ring_plus_random", "share": 0.5}, ["topology.share = 0.5", "sparser"]),
        (0, {"kind": "ring"}, ["at least one agent"]),
    ],
)
def test_impossible_graphs_say_what_is_wrong_and_what_to_do(
    n_agents: int, spec: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(TopologyError) as error:
        build(n_agents, **spec)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValidationError, match="a share between 0 and 1"):
        RingPlusRandomTopology(share=share)


@pytest.mark.parametrize("n_agents", [50, 3000])
def test_slots_are_stable_whether_the_table_is_dense_or_sorted(n_agents: int) -> None:
    registry, expected = LinkRegistry(n_agents), {}
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = np.unique(rng.integers(n_agents * n_agents, size=40))
        slots = registry.slots(ids)
        for link_id, slot in zip(ids.tolist(), slots.tolist(), strict=True):
            assert expected.setdefault(link_id, slot) == slot
        np.testing.assert_array_equal(registry.ids(slots), ids)
    assert sorted(expected.values()) == list(range(registry.size))
    again = LinkRegistry(n_agents)
    again.load_state(registry.state())
    known = np.array(list(expected), dtype=np.int64)
    np.testing.assert_array_equal(again.slots(known), list(expected.values()))
