"""The simulated carrier: takes broadcasts, decides what becomes of each message, and hands over what arrives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from network.errors import LinkError
from network.inflight import Flight, InFlight
from network.links import DuplicationModel, LatencyModel
from network.loss import LossModel
from network.messages import Deliveries, Fate, MessageCounts, Sends
from network.partitions import Partitions
from network.registry import LinkRegistry
from network.spec import LinkSpec, PartitionSpec, RingPlusRandomTopology, TopologySpec
from network.streams import Bools, Floats, Ints, StreamSource, padded
from network.topology import Graph, build_graph
from network.totals import DUPLICATED, SENT, LinkTotals
from network.transmit import Load, Transmitters

_STATE_VERSION = 1
_MAX_PREFETCH = 32
_NOTHING = Deliveries(*(np.zeros(0, dtype=np.int64) for _ in range(3)), *(np.zeros(0) for _ in range(2)))


class _Batch(NamedTuple):
    """Every link of some senders, in their order: arrays ``[m]``."""

    sender: Ints
    receiver: Ints
    slot: Ints
    rank: Ints
    degree: Ints
    """Number of links of each sender."""
    extra_latency_s: Floats | None
    parts: list[tuple[int, Ints | None]]
    """Groups of links with one spec, and which messages are theirs (None: all)."""


class _Air(NamedTuple):
    """What happens to the messages of a broadcast on the way: arrays ``[m]``."""

    lost: Bools
    retries: Ints | None
    """Further attempts, or None if no link retransmits."""
    sent_share: Floats | None
    """Airtime of all attempts, as a multiple of the message's own; None if no link retransmits."""


class SimulatedCarrier:
    """Carries messages between agents in virtual time.

    The fate on the way (queue, loss, delay) is decided when a message is sent; absence of the receiver,
    partitions and age when it arrives. Message k of a link meets the k-th element of that link's own
    random streams, so neither other links nor the batching of broadcasts can change what happens to it.
    """

    def __init__(
        self,
        n_agents: int,
        topology: TopologySpec,
        links: LinkSpec | Sequence[LinkSpec],
        streams: StreamSource,
        partitions: Sequence[PartitionSpec] = (),
        *,
        link_overrides: Mapping[tuple[int, int], LinkSpec] | None = None,
        max_age_s: float | None = None,
    ) -> None:
        """``links``: the spec of every sender's outgoing links, or one for all.

        ``link_overrides``: other specs for single links (sender, receiver); uplink and queue stay the sender's.
        ``max_age_s``: messages that arrive older than this are counted as expired. ``streams`` must offer
        the purposes loss, latency, duplication, topology and partition, used by nobody else.
        Raises LinkError or TopologyError for what cannot exist.
        """
        per_sender = [links] * n_agents if isinstance(links, LinkSpec) else list(links)
        if len(per_sender) != n_agents:
            raise LinkError("links", len(per_sender), f"one link spec for each of {n_agents} agents", "add or drop some")
        overrides = dict(link_overrides or {})
        for (sender, receiver), spec in overrides.items():
            _check_override(sender, receiver, spec, n_agents, per_sender)
        self.n_agents = n_agents
        self.counts = MessageCounts()
        self._topology = topology
        self._streams = streams
        self._max_age_s = max_age_s
        self._now_s = -np.inf
        self._redraws = 0

        specs = list(dict.fromkeys([*per_sender, *overrides.values()]))
        number = {spec: index for index, spec in enumerate(specs)}
        self._specs = specs
        self._group_of_sender = np.array([number[spec] for spec in per_sender], dtype=np.int64)
        self._overrides = {s * n_agents + r: number[spec] for (s, r), spec in overrides.items()}
        self._bandwidth_bps = np.array([np.inf if s.bandwidth_bps is None else s.bandwidth_bps for s in specs])
        self._timeout_s = np.array([0.0 if spec.arq is None else spec.arq.timeout_s for spec in specs])
        self._arq = any(spec.arq is not None for spec in specs)
        self._ordered = np.array([spec.ordered for spec in specs])
        self._any_ordered = bool(self._ordered.any())
        self._mtu_bytes = [spec.mtu_bytes for spec in specs]

        self._registry = LinkRegistry(n_agents)
        self._slot_group: Ints = np.zeros(0, dtype=np.int64)
        self._slot_sender: Ints = np.zeros(0, dtype=np.int64)
        self._slot_receiver: Ints = np.zeros(0, dtype=np.int64)
        self._described = 0
        self._last_arrival_s: Floats = np.zeros(0)
        self._in_flight = InFlight()
        self._totals = LinkTotals()
        self._partitions = Partitions(
            partitions, n_agents, [self._rng("partition", index) for index in range(len(partitions))]
        )
        self._finite = bool(np.isfinite(self._bandwidth_bps).any())
        varying = np.array([spec.arq is not None and spec.bandwidth_bps is not None for spec in specs])[
            self._group_of_sender
        ]
        varying[[sender for sender, _ in overrides]] = True
        self._transmitters = Transmitters(n_agents, specs, self._group_of_sender, varying.astype(np.int64))
        graph = build_graph(topology, n_agents, self._rng("topology", 0))
        width = self._prefetch(graph)
        slot_group = self._groups
        self._latency = LatencyModel(specs, slot_group, self._registry.ids, streams.family("latency"), width)
        self._loss = LossModel(specs, slot_group, self._registry.ids, streams.family("loss"), width)
        self._duplication = DuplicationModel(
            specs, slot_group, self._registry.ids, streams.family("duplication"), width, self._latency.quantiles
        )
        self._install(graph)

    # ------------------------------------------------------------ graph

    @property
    def graph(self) -> Graph:
        """The links that exist now."""
        return self._graph

    def out_neighbours(self, agent: int) -> Ints:
        """Those to whom this agent sends, ascending."""
        return self._graph.neighbours(agent)

    def in_neighbours(self, agent: int) -> Ints:
        """Those who send to this agent, ascending."""
        if self._incoming is None:
            order = np.argsort(self._graph.receiver, kind="stable")
            degree = np.bincount(self._graph.receiver, minlength=self.n_agents)
            first = np.concatenate([[0], np.cumsum(degree)])
            self._incoming = (first, self._graph.sender[order])
        first, sender = self._incoming
        return sender[first[agent] : first[agent + 1]]

    def redraw(self) -> None:
        """Draw the random edges anew, if the topology says so; messages under way are not touched."""
        if isinstance(self._topology, RingPlusRandomTopology) and self._topology.redraw == "every_round":
            self._redraws += 1
            self._install(build_graph(self._topology, self.n_agents, self._rng("topology", self._redraws)))

    def _install(self, graph: Graph) -> None:
        self._graph = graph
        self._incoming: tuple[Ints, Ints] | None = None
        self._batches: dict[int, _Batch] = {}
        self._graph_slots = self._registry.slots(graph.ids)
        self._describe_new_slots()

    def _describe_new_slots(self) -> None:
        """Make room for the links that have got a slot, and fill in their sender, receiver and spec."""
        begin, end = self._described, self._registry.size
        if end > len(self._slot_group):
            room = max(end, int(1.5 * len(self._slot_group)))
            for name in ("_slot_group", "_slot_sender", "_slot_receiver"):
                setattr(self, name, padded(getattr(self, name), room, 0))
            self._last_arrival_s = padded(self._last_arrival_s, room, -np.inf)
            for part in (self._latency, self._loss, self._duplication, self._totals, self._transmitters):
                part.resize(room)
        ids = self._registry.all_ids()[begin:end]
        sender, receiver = np.divmod(ids, self.n_agents)
        self._slot_sender[begin:end] = sender
        self._slot_receiver[begin:end] = receiver
        self._slot_group[begin:end] = self._group_of_sender[sender]
        if self._overrides:
            for slot, link_id in enumerate(ids.tolist(), start=begin):
                self._slot_group[slot] = self._overrides.get(link_id, self._slot_group[slot])
        self._described = end

    def _groups(self, slots: Ints) -> Ints:
        return self._slot_group[slots]

    def _prefetch(self, graph: Graph) -> int:
        """How many random elements of a link to prepare at once: more where broadcasts are small."""
        if isinstance(self._topology, RingPlusRandomTopology) and self._topology.redraw == "every_round":
            return 4
        degree = max(len(graph.sender) / self.n_agents, 1.0)
        return int(2 ** np.clip(np.ceil(np.log2(256 / degree)), 2, np.log2(_MAX_PREFETCH)))

    def _rng(self, purpose: str, index: int) -> np.random.Generator:
        """A generator that depends on the run's seed, the purpose and the index only."""
        words = self._streams.family(purpose).words(np.zeros(1, np.int64), np.array([index], dtype=np.int64), 1)
        return np.random.default_rng(words[0].tolist())

    # ------------------------------------------------------------ sending

    def broadcast(self, now_s: float, senders: Ints, versions: Ints, size_bytes: int | Ints) -> Sends:
        """Send one message over every outgoing link of each sender: one computation for all of them.

        ``senders`` int64 ``[b]``, distinct; ``versions`` int64 ``[b]``; ``size_bytes``: one size for all
        or int64 ``[b]``, positive. Time may not go back. Loss, latency and queue are decided here.
        """
        if now_s < self._now_s:
            raise ValueError(f"broadcast at {now_s} s after one at {self._now_s} s: time may not go back")
        self._now_s = now_s
        batch = self._batch(np.asarray(senders, dtype=np.int64))
        slot, count = batch.slot, len(batch.slot)
        if count == 0:
            return Sends(*(np.zeros(0, dtype=np.int64),) * 2, *(np.zeros(0),) * 3, np.zeros(0, dtype=np.int8))
        if len(batch.degree) == 1:
            version: Ints | int = int(versions[0])
        else:
            version = np.repeat(np.asarray(versions, dtype=np.int64), batch.degree)
        size: Ints | int = (
            size_bytes if isinstance(size_bytes, int) else np.repeat(np.asarray(size_bytes, np.int64), batch.degree)
        )
        latency = self._latency.take(slot)
        load = self._load(batch, size)
        admitted = self._transmitters.admit(now_s, load) if self._finite else None
        air = self._pass(batch, load, admitted)

        if self._finite:
            start, end = self._transmit(now_s, batch, load, air, admitted)
        else:
            start = end = np.full(count, now_s)
        heard = end if batch.extra_latency_s is None else end + batch.extra_latency_s
        if air.retries is not None:
            heard = heard + air.retries * self._timeout_s[self._slot_group[slot]]
        arrival = heard + latency
        gone = air.lost if admitted is None else (air.lost | ~admitted)
        alive = np.flatnonzero(~gone)
        if self._any_ordered:
            self._keep_order(slot, arrival, alive)

        first = 2 * self.counts.sent  # even numbers for messages, the odd one after it for a copy
        self.counts.sent += count
        self._totals.note(slot, SENT)
        sequence = first + 2 * alive
        self._in_flight.add(
            arrival[alive], sequence, now_s, start[alive], slot[alive],
            version if isinstance(version, int) else version[alive],
        )
        if self._duplication.active:
            self._duplicate(now_s, slot, version, alive, sequence, start, heard, arrival)
        fate = self._note_losses(slot, air.lost, gone, admitted)
        arrival[gone] = np.inf
        self._count_bytes(load, air, admitted)
        self.counts.in_flight = len(self._in_flight)
        return Sends(batch.sender, batch.receiver, start, end, arrival, fate)

    def sender_off(self, now_s: float, agents: Ints) -> int:
        """These agents went off: drop their messages that wait for the transmitter; returns how many.

        A message whose transmission has begun goes on. Losses counted at sending stay counted as lost.
        """
        if not self._finite:
            return 0
        off = np.zeros(self.n_agents, dtype=np.bool_)
        off[agents] = True
        links = np.flatnonzero(off[self._slot_sender[: self._registry.size]])
        self._transmitters.stop(now_s, np.asarray(agents, dtype=np.int64), links)
        flight = self._in_flight.all()
        waiting = off[self._slot_sender[flight.slot]] & (flight.tx_start_s > now_s)
        dropped = int(np.count_nonzero(waiting))
        if dropped:
            self._in_flight.replace_all(flight.rows(~waiting))
            self.counts.absent_dropped += dropped
            self.counts.in_flight = len(self._in_flight)
            self._totals.note(flight.slot[waiting], int(Fate.ABSENT_DROPPED))
            self._last_arrival_s[links] = -np.inf
            under_way = flight.rows(~waiting & off[self._slot_sender[flight.slot]])
            np.maximum.at(self._last_arrival_s, under_way.slot, under_way.arrival_s)
        return dropped

    # ------------------------------------------------------------ arriving

    def next_arrival_s(self) -> float:
        """Time of the next arrival; inf if nothing is in flight."""
        return self._in_flight.next_arrival_s()

    def drain(self, until_s: float, online: Bools) -> Deliveries:
        """Everything that arrives up to and including ``until_s``, in order of arrival and then of sending.

        ``online`` bool ``[n_agents]``: a message to an agent that is off now is counted as absent_dropped,
        so drain up to an instant before an agent changes there.
        """
        flight = self._in_flight.take_until(until_s)
        if flight is None:
            return _NOTHING
        counts = self.counts
        sender, receiver = self._slot_sender[flight.slot], self._slot_receiver[flight.slot]
        present = online[receiver]
        fate: Any = int(Fate.DELIVERED)
        if self._partitions or self._max_age_s is not None or not present.all():
            fate = self._fates(flight, sender, receiver, present)
            kept = np.flatnonzero(fate == Fate.DELIVERED)
            counts.lost += int(np.count_nonzero(fate == Fate.LOST))
            counts.absent_dropped += int(np.count_nonzero(fate == Fate.ABSENT_DROPPED))
            counts.expired += int(np.count_nonzero(fate == Fate.EXPIRED))
            self._totals.note(flight.slot, fate)
            flight, sender, receiver = flight.rows(kept), sender[kept], receiver[kept]
        else:
            self._totals.note(flight.slot, fate)
        self._totals.note_delays(flight.slot, flight.arrival_s - flight.sent_s)
        counts.delivered += len(flight.slot)
        counts.in_flight = len(self._in_flight)
        assert counts.missing() == 0, f"messages have vanished or appeared: {counts}"
        return Deliveries(receiver, sender, flight.version, flight.sent_s, flight.arrival_s)

    def link_table(self) -> dict[str, Any]:
        """Totals of every link that exists or has existed, as columns ``[links]`` in slot order."""
        links = self._registry.size
        counts = self._totals.counts()[:links]
        delivered = counts[:, Fate.DELIVERED]
        connected = np.zeros(links, dtype=np.bool_)
        connected[self._graph_slots] = True
        with np.errstate(invalid="ignore"):
            mean = self._totals.delay_s()[:links] / delivered
        return {
            "sender": self._slot_sender[:links].copy(),
            "receiver": self._slot_receiver[:links].copy(),
            "sent": counts[:, SENT].copy(),
            "duplicated": counts[:, DUPLICATED].copy(),
            "delivered": delivered.copy(),
            "lost": counts[:, Fate.LOST].copy(),
            "queue_dropped": counts[:, Fate.QUEUE_DROPPED].copy(),
            "absent_dropped": counts[:, Fate.ABSENT_DROPPED].copy(),
            "expired": counts[:, Fate.EXPIRED].copy(),
            "latency_mean_s": mean,
            "currently_connected": connected,
        }

    # ------------------------------------------------------------ checkpoint

    def state(self) -> dict[str, Any]:
        """Everything that changes, as nested dicts of arrays, numbers and strings."""
        return {
            "format": _STATE_VERSION,
            "now_s": self._now_s,
            "redraws": self._redraws,
            "counts": self.counts.as_dict(),
            "registry": self._registry.state(),
            "last_arrival_s": self._last_arrival_s.copy(),
            "latency": self._latency.state(),
            "loss": self._loss.state(),
            "duplication": self._duplication.state(),
            "transmitters": self._transmitters.state(),
            "totals": self._totals.state(),
            "in_flight": self._in_flight.all()._asdict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of a carrier made with the same arguments; the future is the same bit for bit."""
        if state["format"] != _STATE_VERSION:
            raise LinkError("format", state["format"], f"carrier state of format {_STATE_VERSION}", "start a new run")
        self._now_s = float(state["now_s"])
        self._redraws = int(state["redraws"])
        self.counts = MessageCounts(**{name: int(value) for name, value in state["counts"].items()})
        self._registry.load_state(state["registry"])
        self._described = 0
        self._describe_new_slots()
        self._install(build_graph(self._topology, self.n_agents, self._rng("topology", self._redraws)))
        self._last_arrival_s = np.asarray(state["last_arrival_s"], dtype=np.float64).copy()
        self._latency.load_state(state["latency"])
        self._loss.load_state(state["loss"])
        self._duplication.load_state(state["duplication"])
        self._transmitters.load_state(state["transmitters"])
        self._totals.load_state(state["totals"])
        for part in (self._latency, self._loss, self._duplication, self._totals, self._transmitters):
            part.resize(len(self._slot_group))
        self._last_arrival_s = padded(self._last_arrival_s, len(self._slot_group), -np.inf)
        self._in_flight.replace_all(Flight(**{name: np.asarray(v) for name, v in state["in_flight"].items()}))

    # ------------------------------------------------------------ parts of a broadcast

    def _batch(self, senders: Ints) -> _Batch:
        """All links of the senders; kept for one sender and for all senders in order."""
        if len(senders) == 1:
            key = int(senders[0])
        elif len(senders) == self.n_agents and bool((senders == np.arange(self.n_agents)).all()):
            key = -1
        else:
            return self._make_batch(senders)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = self._make_batch(senders)
        return batch

    def _make_batch(self, senders: Ints) -> _Batch:
        graph = self._graph
        first = graph.first[senders]
        degree = graph.first[senders + 1] - first
        before = np.cumsum(degree) - degree
        rank = np.arange(int(degree.sum()), dtype=np.int64) - np.repeat(before, degree)
        link = np.repeat(first, degree) + rank
        slot = self._graph_slots[link]
        extra = None if graph.extra_latency_s is None else graph.extra_latency_s[link]
        parts: list[tuple[int, Ints | None]] = [(0, None)]
        if len(self._specs) > 1:
            groups = self._slot_group[slot]
            present = np.unique(groups).tolist()
            parts = [(group, np.flatnonzero(groups == group)) for group in present]
            if len(present) == 1:
                parts = [(present[0], None)]
        return _Batch(graph.sender[link], graph.receiver[link], slot, rank, degree, extra, parts)

    def _load(self, batch: _Batch, size: Ints | int) -> Load:
        count = len(batch.slot)
        sizes = np.full(count, size, dtype=np.int64) if isinstance(size, int) else size
        packets = np.ones(count, dtype=np.int64)
        for group, chosen in batch.parts:
            mtu = self._mtu_bytes[group]
            if mtu is not None:
                part = slice(None) if chosen is None else chosen
                packets[part] = -(-sizes[part] // mtu)
        return Load(batch.sender, batch.slot, batch.rank, packets, sizes)

    def _pass(self, batch: _Batch, load: Load, admitted: Bools | None) -> _Air:
        """Draw losses and retransmissions of the messages that the queues took."""
        count = len(batch.slot)
        lost = np.zeros(count, dtype=np.bool_)
        if not self._loss.active:
            return _Air(lost, None, None)
        retries = np.zeros(count, dtype=np.int64) if self._arq else None
        share = np.ones(count) if self._arq else None
        for group, chosen in batch.parts:
            part: Any = slice(None) if chosen is None else chosen
            if admitted is not None:
                part = np.flatnonzero(admitted) if chosen is None else chosen[admitted[chosen]]
            packets = load.packets[part]
            passage = self._loss.transmit(group, batch.slot[part], packets)
            lost[part] = passage.lost
            if retries is not None and share is not None:
                retries[part] = passage.retries
                share[part] = passage.units_sent / self._loss.units(group, packets)
        return _Air(lost, retries, share)

    def _transmit(
        self, now_s: float, batch: _Batch, load: Load, air: _Air, admitted: Bools | None
    ) -> tuple[Floats, Floats]:
        """Start and end of each message's transmission; inf for those that the queues refused."""
        if len(self._specs) == 1:
            service = load.size_bytes * 8.0 / self._bandwidth_bps[0]
        else:
            service = load.size_bytes * 8.0 / self._bandwidth_bps[self._slot_group[batch.slot]]
        if air.sent_share is not None:
            service = service * air.sent_share
        if admitted is None:
            return self._transmitters.schedule(now_s, load, service)
        start, end = np.full(len(service), np.inf), np.full(len(service), np.inf)
        taken = Load(*(column[admitted] for column in load))
        start[admitted], end[admitted] = self._transmitters.schedule(now_s, taken, service[admitted])
        return start, end

    def _keep_order(self, slot: Ints, arrival: Floats, alive: Ints) -> None:
        """Where links are ordered, let no arrival come before an earlier one of its link."""
        chosen = alive[self._ordered[self._slot_group[slot[alive]]]]
        links = slot[chosen]
        arrival[chosen] = np.maximum(arrival[chosen], self._last_arrival_s[links])
        self._last_arrival_s[links] = arrival[chosen]

    def _duplicate(
        self, now_s: float, slot: Ints, version: Ints | int, alive: Ints, sequence: Ints, start: Floats,
        heard: Floats, arrival: Floats,
    ) -> None:
        """Add the copies that the network makes of messages that get through."""
        copied, delay = self._duplication.take(slot)
        which = np.flatnonzero(copied[alive])
        chosen = alive[which]
        if chosen.size == 0:
            return
        copy_arrival = heard[chosen] + delay[chosen]
        links = slot[chosen]
        if self._any_ordered:
            ordered = self._ordered[self._slot_group[links]]
            copy_arrival = np.where(ordered, np.maximum(copy_arrival, arrival[chosen]), copy_arrival)
            self._last_arrival_s[links[ordered]] = copy_arrival[ordered]
        self.counts.duplicated += len(chosen)
        self._totals.note(links, DUPLICATED)
        self._in_flight.add(
            copy_arrival, sequence[which] + 1, now_s, start[chosen], links,
            version if isinstance(version, int) else version[chosen],
        )

    def _note_losses(self, slot: Ints, lost: Bools, gone: Bools, admitted: Bools | None) -> Any:
        """Count what will not arrive; the fate code of each message."""
        fate = np.zeros(len(slot), dtype=np.int8)
        fate[lost] = Fate.LOST
        self.counts.lost += int(np.count_nonzero(lost))
        if admitted is not None:
            refused = ~admitted
            fate[refused] = Fate.QUEUE_DROPPED
            self.counts.queue_dropped += int(np.count_nonzero(refused))
        ended = np.flatnonzero(gone)
        if ended.size:
            self._totals.note(slot[ended], fate[ended])
        return fate

    def _count_bytes(self, load: Load, air: _Air, admitted: Bools | None) -> None:
        sent = load.size_bytes if air.sent_share is None else np.rint(load.size_bytes * air.sent_share)
        self.counts.bytes_sent += int(sent.sum() if admitted is None else sent[admitted].sum())

    def _fates(self, flight: Flight, sender: Ints, receiver: Ints, present: Bools) -> Any:
        """The fate code of each message at its arrival: a cut, then absence, then age."""
        fate = np.full(len(sender), int(Fate.DELIVERED), dtype=np.int64)
        if self._max_age_s is not None:
            fate[flight.arrival_s - flight.sent_s > self._max_age_s] = Fate.EXPIRED
        fate[~present] = Fate.ABSENT_DROPPED
        if self._partitions:
            fate[self._partitions.cut(sender, receiver, flight.arrival_s)] = Fate.LOST
        return fate


def _check_override(
    sender: int, receiver: int, spec: LinkSpec, n_agents: int, per_sender: Sequence[LinkSpec]
) -> None:
    """Raise LinkError unless the link can exist and leaves its sender's transmitter and queue as they are."""
    key = f"link_overrides[{sender}, {receiver}]"
    if not (0 <= sender < n_agents and 0 <= receiver < n_agents):
        raise LinkError(key, (sender, receiver), f"agent numbers from 0 to {n_agents - 1}", "correct the numbers")
    for name in ("uplink", "queue_packets", "queue_bytes"):
        of_sender = getattr(per_sender[sender], name)
        if getattr(spec, name) != of_sender:
            raise LinkError(
                f"{key}.{name}", getattr(spec, name), f"the sender's own value ({of_sender!r})",
                "set it on the sender: a link cannot change its sender's transmitter",
            )
