"""The graph as it is now, in the arrays from which broadcasts are made."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from network.groups import LinkGroups
from network.registry import LinkRegistry
from network.spec import TopologySpec
from network.streams import Floats, Ints, StreamSource, generator, padded
from network.topology import Graph, build_graph, is_redrawn
from network.transmit import Load

_MAX_PREFETCH = 64
_PREFETCH_PER_AGENT = 512
_PREFETCH_IN_ALL = 1 << 21


class Batch(NamedTuple):
    """Every link of some senders, in their order: arrays ``[m]``."""

    sender: Ints
    receiver: Ints
    slot: Ints
    rank: Ints
    """Place of the link among those of its sender."""
    degree: Ints
    """Number of links of each sender."""
    extra_latency_s: Floats | None
    parts: list[tuple[int, Ints | None]]
    """Groups of links with one spec, and which messages are theirs (None: all)."""
    loads: dict[int, Load]
    """What is offered to the transmitters, by message size: kept while the batch is."""


class Wiring:
    """Graph, slots of its links, and the batches of links that a broadcast needs."""

    def __init__(
        self, n_agents: int, topology: TopologySpec, groups: LinkGroups, streams: StreamSource
    ) -> None:
        self._n_agents = n_agents
        self._topology = topology
        self._groups = groups
        self._streams = streams
        self._redrawn = is_redrawn(topology)
        self._redraws = 0
        self._registry = LinkRegistry(n_agents)
        self._described = 0
        self._incoming: tuple[Ints, Ints] | None = None
        self._batches: dict[int, Batch] = {}
        self.slot_group: Ints = np.zeros(0, dtype=np.int64)
        self.slot_sender: Ints = np.zeros(0, dtype=np.int64)
        self.slot_receiver: Ints = np.zeros(0, dtype=np.int64)
        self._install()

    @property
    def links(self) -> int:
        """Number of links that exist or have existed."""
        return self._registry.size

    @property
    def room(self) -> int:
        """Number of links for which there is room in per-link arrays."""
        return len(self.slot_group)

    def ids(self, slots: Ints) -> Ints:
        """Link ids, ``sender * n_agents + receiver``."""
        return self._registry.ids(slots)

    def groups_of(self, slots: Ints) -> Ints:
        """Group of each link."""
        return self.slot_group[slots]

    def prefetch(self) -> int:
        """How many random elements of a link to prepare at once: more where broadcasts are small."""
        links, width = len(self.graph.sender), 4
        if self._redrawn:
            return width
        most = min(_PREFETCH_PER_AGENT * self._n_agents, _PREFETCH_IN_ALL)
        while width < _MAX_PREFETCH and 2 * width * links <= most:
            width *= 2
        return width

    def in_neighbours(self, agent: int) -> Ints:
        """Those who send to this agent, ascending."""
        if self._incoming is None:
            order = np.argsort(self.graph.receiver, kind="stable")
            degree = np.bincount(self.graph.receiver, minlength=self._n_agents)
            first = np.concatenate([[0], np.cumsum(degree)])
            self._incoming = (first, self.graph.sender[order])
        first, sender = self._incoming
        return sender[first[agent] : first[agent + 1]]

    def redraw(self, number: int) -> bool:
        """Draw the random edges for the ``number``-th time; False if the topology does not say so."""
        if self._redrawn:
            self._redraws = number
            self._install()
        return self._redrawn

    def batch(self, senders: Ints) -> Batch:
        """All links of the senders; kept for one sender and for all senders in order."""
        if len(senders) == 1:
            key = int(senders[0])
        elif len(senders) == self._n_agents and bool((senders == self._everyone).all()):
            key = -1
        else:
            return self._make_batch(senders)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = self._make_batch(senders)
        return batch

    def load(self, batch: Batch, size_bytes: int | Ints) -> Load:
        """What the batch offers to the transmitters with that message size (one, or one per sender)."""
        if not isinstance(size_bytes, int):
            return self._make_load(batch, np.repeat(np.asarray(size_bytes, dtype=np.int64), batch.degree))
        load = batch.loads.get(size_bytes)
        if load is None:
            batch.loads.clear()
            load = self._make_load(batch, np.full(len(batch.slot), size_bytes, dtype=np.int64))
            batch.loads[size_bytes] = load
        return load

    def connected(self) -> Ints:
        """Slots of the links that exist now."""
        return self._graph_slots

    def state(self) -> dict[str, Any]:
        return {"redraws": self._redraws, "registry": self._registry.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._registry.load_state(state["registry"])
        self._redraws = int(state["redraws"])
        self._described = 0
        self._install()

    # ------------------------------------------------------------ making

    def _install(self) -> None:
        """Build the graph of the present redraw and describe its links."""
        rng = generator(self._streams.family("topology"), self._redraws)
        self.graph: Graph = build_graph(self._topology, self._n_agents, rng)
        self._everyone = np.arange(self._n_agents)
        self._incoming = None
        self._batches = {}
        self._graph_slots = self._registry.slots(self.graph.ids)
        begin, end = self._described, self._registry.size
        if end > self.room:
            room = max(end, int(1.5 * self.room))
            for name in ("slot_group", "slot_sender", "slot_receiver"):
                setattr(self, name, padded(getattr(self, name), room, 0))
        ids = self._registry.all_ids()[begin:end]
        sender, receiver = np.divmod(ids, self._n_agents)
        self.slot_sender[begin:end] = sender
        self.slot_receiver[begin:end] = receiver
        self.slot_group[begin:end] = self._groups.of_sender[sender]
        if self._groups.of_link_id:
            for slot, link_id in enumerate(ids.tolist(), start=begin):
                self.slot_group[slot] = self._groups.of_link_id.get(link_id, self.slot_group[slot])
        self._described = end

    def _make_batch(self, senders: Ints) -> Batch:
        graph = self.graph
        first = graph.first[senders]
        degree = graph.first[senders + 1] - first
        before = np.cumsum(degree) - degree
        rank = np.arange(int(degree.sum()), dtype=np.int64) - np.repeat(before, degree)
        link = np.repeat(first, degree) + rank
        slot = self._graph_slots[link]
        extra = None if graph.extra_latency_s is None else graph.extra_latency_s[link]
        parts: list[tuple[int, Ints | None]] = [(0, None)]
        if len(self._groups.specs) > 1:
            groups = self.slot_group[slot]
            present = np.unique(groups).tolist()
            parts = [(group, np.flatnonzero(groups == group)) for group in present]
            if len(present) == 1:
                parts = [(present[0], None)]
        return Batch(graph.sender[link], graph.receiver[link], slot, rank, degree, extra, parts, {})

    def _make_load(self, batch: Batch, sizes: Ints) -> Load:
        packets = np.ones(len(sizes), dtype=np.int64)
        for group, chosen in batch.parts:
            mtu = self._groups.mtu_bytes[group]
            if mtu is not None:
                part = slice(None) if chosen is None else chosen
                packets[part] = -(-sizes[part] // mtu)
        return Load(batch.sender, batch.slot, batch.rank, packets, sizes)
