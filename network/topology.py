"""Who is linked with whom: directed edges in rows per sender, built from a spec and a random generator."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, sqrt
from pathlib import Path

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

from network.errors import TopologyError
from network.spec import (
    CompleteTopology,
    EdgeListTopology,
    EmptyTopology,
    GeometricTopology,
    KRegularTopology,
    RingPlusRandomTopology,
    RingTopology,
    SmallWorldTopology,
    TopologySpec,
)
from network.streams import Floats, Ints

MAX_LINKS = 1 << 24
_TRIES = 100


@dataclass(frozen=True)
class Graph:
    """Directed links, sorted by sender and then by receiver."""

    n_agents: int
    sender: Ints
    receiver: Ints
    first: Ints
    """Links of sender s are those from ``first[s]`` up to ``first[s + 1]``: int64 ``[n_agents + 1]``."""
    extra_latency_s: Floats | None = None
    """Delay that each link adds, or None."""

    @property
    def ids(self) -> Ints:
        """``sender * n_agents + receiver`` of each link."""
        return self.sender * self.n_agents + self.receiver

    def neighbours(self, agent: int) -> Ints:
        """Receivers of that agent's links, ascending."""
        return self.receiver[self.first[agent] : self.first[agent + 1]]

    def to_networkx(self) -> nx.DiGraph:
        """The same graph for networkx."""
        graph = nx.DiGraph()
        graph.add_nodes_from(range(self.n_agents))
        graph.add_edges_from(zip(self.sender.tolist(), self.receiver.tolist(), strict=True))
        return graph


def is_redrawn(topology: TopologySpec) -> bool:
    """Whether the graph's random edges are drawn anew at each consensus round."""
    return isinstance(topology, RingPlusRandomTopology) and topology.redraw == "every_round"


def build_graph(spec: TopologySpec, n_agents: int, rng: np.random.Generator) -> Graph:
    """The graph of a spec; every random choice comes from ``rng``.

    Raises TopologyError for a graph that cannot exist with so many agents.
    """
    if n_agents < 1:
        raise TopologyError("world.agents", n_agents, "at least one agent", "raise it")
    match spec:
        case EmptyTopology():
            return _from_ids(np.zeros(0, dtype=np.int64), n_agents)
        case CompleteTopology():
            return _complete(n_agents)
        case RingTopology():
            return _from_pairs(_ring_pairs(n_agents), n_agents)
        case RingPlusRandomTopology():
            return _ring_plus_random(spec.share, n_agents, rng)
        case KRegularTopology():
            return _k_regular(spec.degree, n_agents, rng)
        case SmallWorldTopology():
            return _small_world(spec, n_agents, rng)
        case GeometricTopology():
            return _geometric(spec, n_agents, rng)
        case EdgeListTopology():
            return _edge_list(spec, n_agents)


# ---------------------------------------------------------------- building blocks


def _from_ids(ids: Ints, n_agents: int) -> Graph:
    """A graph from distinct link ids in ascending order."""
    sender, receiver = np.divmod(ids, n_agents)
    first = np.searchsorted(ids, np.arange(n_agents + 1, dtype=np.int64) * n_agents)
    return Graph(n_agents, sender, receiver, first.astype(np.int64))


def _from_pairs(pairs: Ints, n_agents: int) -> Graph:
    """A graph with both directions of each pair: int64 ``[m, 2]``, distinct as sets."""
    ids = np.concatenate([pairs[:, 0] * n_agents + pairs[:, 1], pairs[:, 1] * n_agents + pairs[:, 0]])
    ids.sort()
    return _from_ids(ids, n_agents)


def _check_size(links: int, key: str, value: object, n_agents: int) -> None:
    if links > MAX_LINKS:
        raise TopologyError(
            key,
            value,
            f"at most {MAX_LINKS:,} links, but {n_agents:,} agents would have {links:,}",
            "choose a sparser graph (k_regular, small_world, geometric) or fewer agents",
        )


def _complete(n_agents: int) -> Graph:
    _check_size(n_agents * (n_agents - 1), "topology.kind", "complete", n_agents)
    ids = np.arange(n_agents * n_agents, dtype=np.int64)
    return _from_ids(ids[ids % (n_agents + 1) != 0], n_agents)


def _ring_pairs(n_agents: int) -> Ints:
    """Edges of the ring: none for one agent, one for two."""
    if n_agents == 1:
        return np.zeros((0, 2), dtype=np.int64)
    if n_agents == 2:
        return np.array([[0, 1]], dtype=np.int64)
    agents = np.arange(n_agents, dtype=np.int64)
    return np.stack([agents, (agents + 1) % n_agents], axis=1)


def _ring_plus_random(share: float, n_agents: int, rng: np.random.Generator) -> Graph:
    """A ring and ``round(share * rest)`` of the remaining possible edges, each set equally likely."""
    ring = _ring_pairs(n_agents)
    if n_agents < 4:
        return _from_pairs(ring, n_agents)
    # The chords of sender i, lowest end first: (i, i + 2) .. (i, n - 1); the chord (0, n - 1) is a ring edge.
    per_row = np.maximum(n_agents - 2 - np.arange(n_agents, dtype=np.int64), 0)
    per_row[0] -= 1
    row_start = np.concatenate([[0], np.cumsum(per_row)])
    total = int(row_start[-1])
    count = round(share * total)
    _check_size(2 * (count + n_agents), "topology.share", share, n_agents)
    chosen = rng.choice(total, size=count, replace=False, shuffle=False)
    low = np.searchsorted(row_start, chosen, side="right") - 1
    high = low + 2 + chosen - row_start[low]
    return _from_pairs(np.concatenate([ring, np.stack([low, high], axis=1)]), n_agents)


def _k_regular(degree: int, n_agents: int, rng: np.random.Generator) -> Graph:
    if degree >= n_agents:
        raise TopologyError(
            "topology.degree",
            degree,
            f"less than the number of agents ({n_agents})",
            "lower degree, or use kind: complete",
        )
    if (degree * n_agents) % 2:
        raise TopologyError(
            "topology.degree",
            degree,
            f"an even number of link ends, but {n_agents} agents * {degree} is odd",
            f"use degree {degree + 1 if degree + 1 < n_agents else degree - 1}, or one agent more",
        )
    if degree == 1 and n_agents > 2:
        raise TopologyError(
            "topology.degree",
            degree,
            f"a connected graph, but with one neighbour each {n_agents} agents form pairs",
            "use degree 2 or more",
        )
    if degree == 2 and n_agents > 2:
        return _from_pairs(rng.permutation(n_agents).astype(np.int64)[_ring_pairs(n_agents)], n_agents)
    _check_size(degree * n_agents, "topology.degree", degree, n_agents)
    for _ in range(_TRIES):
        graph = nx.random_regular_graph(degree, n_agents, seed=int(rng.integers(2**31)))
        if nx.is_connected(graph):
            return _from_pairs(_pairs_of(graph), n_agents)
    raise TopologyError(
        "topology.degree",
        degree,
        f"a connected graph within {_TRIES} tries",
        "raise degree or change the seed",
    )


def _small_world(spec: SmallWorldTopology, n_agents: int, rng: np.random.Generator) -> Graph:
    if spec.degree % 2:
        raise TopologyError(
            "topology.degree",
            spec.degree,
            "an even number (half the neighbours on each side)",
            f"use {spec.degree + 1}",
        )
    if spec.degree >= n_agents:
        raise TopologyError(
            "topology.degree",
            spec.degree,
            f"less than the number of agents ({n_agents})",
            "lower degree, or use kind: complete",
        )
    _check_size(spec.degree * n_agents, "topology.degree", spec.degree, n_agents)
    try:
        graph = nx.connected_watts_strogatz_graph(
            n_agents, spec.degree, spec.rewiring_probability, tries=_TRIES, seed=int(rng.integers(2**31))
        )
    except nx.NetworkXError as error:
        raise TopologyError(
            "topology.rewiring_probability",
            spec.rewiring_probability,
            f"a connected graph within {_TRIES} tries",
            "lower it or raise degree",
        ) from error
    return _from_pairs(_pairs_of(graph), n_agents)


def _geometric(spec: GeometricTopology, n_agents: int, rng: np.random.Generator) -> Graph:
    places = rng.random((n_agents, 2))
    tree = cKDTree(places)
    _check_size(
        int(tree.count_neighbors(tree, spec.radius)) - n_agents, "topology.radius", spec.radius, n_agents
    )
    pairs = tree.query_pairs(spec.radius, output_type="ndarray").astype(np.int64).reshape(-1, 2)
    graph = _from_pairs(pairs, n_agents)
    if spec.must_connect:
        pieces = nx.number_connected_components(graph.to_networkx().to_undirected())
        if pieces > 1:
            enough = 1.5 * sqrt(log(n_agents) / (pi * n_agents))
            raise TopologyError(
                "topology.radius",
                spec.radius,
                f"a connected graph, but {n_agents} agents fall into {pieces} pieces",
                f"raise radius (about {enough:.2g} is often enough), change the seed, or must_connect: false",
            )
    distance = np.linalg.norm(places[graph.sender] - places[graph.receiver], axis=1)
    extra = spec.latency_per_distance_s * distance if spec.latency_per_distance_s > 0.0 else None
    return Graph(n_agents, graph.sender, graph.receiver, graph.first, extra)


def _edge_list(spec: EdgeListTopology, n_agents: int) -> Graph:
    edges = spec.edges if spec.edges is not None else _read_edges(str(spec.path))
    for edge in edges:
        for agent in edge:
            if not 0 <= agent < n_agents:
                raise TopologyError(
                    "topology.edges",
                    list(edge),
                    f"agent numbers from 0 to {n_agents - 1}",
                    f"there is no agent {agent}: correct the edge or raise world.agents",
                )
        if edge[0] == edge[1]:
            raise TopologyError(
                "topology.edges",
                list(edge),
                "two different agents",
                "remove the edge: nobody sends to itself",
            )
    pairs = np.array(edges, dtype=np.int64).reshape(-1, 2)
    ids = pairs[:, 0] * n_agents + pairs[:, 1]
    if not spec.directed:
        ids = np.concatenate([ids, pairs[:, 1] * n_agents + pairs[:, 0]])
    return _from_ids(np.unique(ids), n_agents)


def _read_edges(path: str) -> list[tuple[int, int]]:
    remedy = "give a text file with two agent numbers per line"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError("topology.path", path, "a readable text file", f"{remedy} ({error})") from error
    edges = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            sender, receiver = (int(word) for word in words)
        except ValueError as error:
            raise TopologyError(
                "topology.path", f"{path}:{number}: {line}", "two agent numbers", remedy
            ) from error
        edges.append((sender, receiver))
    return edges


def _pairs_of(graph: nx.Graph) -> Ints:
    return np.array(list(graph.edges()), dtype=np.int64).reshape(-1, 2)
