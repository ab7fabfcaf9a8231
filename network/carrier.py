"""The simulated carrier: takes broadcasts, decides what becomes of each message, hands over what arrives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from network.errors import LinkError
from network.groups import LinkGroups
from network.inflight import Flight, InFlight
from network.links import DuplicationModel, LatencyModel
from network.loss import LossModel
from network.messages import Deliveries, Fate, MessageCounts, Sends
from network.partitions import Partitions
from network.spec import LinkSpec, PartitionSpec, TopologySpec
from network.streams import Bools, Floats, Ints, StreamSource, padded
from network.topology import Graph
from network.totals import DUPLICATED, SENT, LinkTotals
from network.transmit import Load, Transmitters
from network.wiring import Batch, Wiring

_STATE_VERSION = 1
# An enumeration's members cost a look-up of a microsecond each, and most drainings take few.
_DELIVERED, _LOST, _QUEUE_DROPPED = int(Fate.DELIVERED), int(Fate.LOST), int(Fate.QUEUE_DROPPED)
_ABSENT_DROPPED, _EXPIRED = int(Fate.ABSENT_DROPPED), int(Fate.EXPIRED)
_NO_INTS: Ints = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Floats = np.zeros(0)
_NOTHING = Deliveries(_NO_INTS, _NO_INTS, _NO_INTS, _NO_FLOATS, _NO_FLOATS)


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

        ``link_overrides``: specs of single links (sender, receiver); uplink and queue stay the sender's.
        ``max_age_s``: messages that arrive older than this are counted as expired. ``streams`` must offer
        the purposes loss, latency, duplication, topology and partition, used by nobody else.
        Raises LinkError or TopologyError for what cannot exist.
        """
        groups = LinkGroups(n_agents, links, link_overrides)
        self.n_agents = n_agents
        self.counts = MessageCounts()
        self._groups = groups
        self._max_age_s = max_age_s
        self._now_s = -np.inf
        self._wiring = wiring = Wiring(n_agents, topology, groups, streams)
        width = wiring.prefetch()
        of_links = (groups.specs, wiring.groups_of, wiring.ids)
        self._latency = LatencyModel(*of_links, streams.family("latency"), width)
        self._loss = LossModel(*of_links, streams.family("loss"), width)
        self._duplication = DuplicationModel(
            *of_links, streams.family("duplication"), width, self._latency.quantiles
        )
        self._transmitters = Transmitters(n_agents, groups)
        self._partitions = Partitions(partitions, n_agents, streams.family("partition"))
        self._last_arrival_s: Floats = np.zeros(0)
        self._in_flight = InFlight()
        self._totals = LinkTotals()
        self._make_room()

    # ------------------------------------------------------------ graph

    @property
    def graph(self) -> Graph:
        """The links that exist now."""
        return self._wiring.graph

    def out_neighbours(self, agent: int) -> Ints:
        """Those to whom this agent sends, ascending."""
        return self._wiring.graph.neighbours(agent)

    def in_neighbours(self, agent: int) -> Ints:
        """Those who send to this agent, ascending."""
        return self._wiring.in_neighbours(agent)

    def redraw(self, number: int) -> None:
        """Draw the random edges anew, if the topology says so; messages under way are not touched."""
        if self._wiring.redraw(number):
            self._make_room()

    def _make_room(self) -> None:
        """Let all per-link arrays cover the links that have got a slot."""
        room = self._wiring.room
        if room > len(self._last_arrival_s) or room == 0:
            self._last_arrival_s = padded(self._last_arrival_s, room, -np.inf)
            for part in (self._latency, self._loss, self._duplication, self._totals, self._transmitters):
                part.resize(room)

    # ------------------------------------------------------------ sending

    def broadcast(self, now_s: float, senders: Ints, versions: Ints, size_bytes: int | Ints) -> Sends:
        """Send one message over every outgoing link of each sender: one computation for all of them.

        ``senders`` int64 ``[b]``, distinct; ``versions`` int64 ``[b]``; ``size_bytes``: one size for all
        or int64 ``[b]``, positive. Time may not go back. Loss, latency and queue are decided here.
        """
        if now_s < self._now_s:
            raise ValueError(f"broadcast at {now_s} s after one at {self._now_s} s: time may not go back")
        self._now_s = now_s
        batch = self._wiring.batch(np.asarray(senders, dtype=np.int64))
        slot, count = batch.slot, len(batch.slot)
        if count == 0:
            return Sends(_NO_INTS, _NO_INTS, _NO_FLOATS, _NO_FLOATS, _NO_FLOATS, np.zeros(0, dtype=np.int8))
        if len(batch.degree) == 1:
            version: Ints | int = int(versions[0])
        else:
            version = np.repeat(np.asarray(versions, dtype=np.int64), batch.degree)
        latency = self._latency.take(slot)
        load = self._wiring.load(batch, size_bytes)
        admitted = self._transmitters.admit(now_s, load) if self._groups.any_finite else None
        air = self._pass(batch, load, admitted)

        if self._groups.any_finite:
            start, end = self._transmit(now_s, batch, load, air, admitted)
        else:
            start = end = np.full(count, now_s)
        heard = end if batch.extra_latency_s is None else end + batch.extra_latency_s
        if air.retries is not None:
            heard = heard + air.retries * self._groups.timeout_s[self._wiring.slot_group[slot]]
        arrival = heard + latency
        gone = air.lost if admitted is None else (air.lost | ~admitted)
        alive = np.flatnonzero(~gone)
        if self._groups.any_ordered:
            self._keep_order(slot, arrival, alive)

        first = 2 * self.counts.sent  # even numbers for messages, the odd one after it for a copy
        self.counts.sent += count
        self._totals.note(slot, SENT)
        sequence = first + 2 * alive
        self._in_flight.add(
            arrival[alive],
            sequence,
            now_s,
            start[alive],
            slot[alive],
            version if isinstance(version, int) else version[alive],
        )
        if self._duplication.active:
            self._duplicate(now_s, slot, version, alive, sequence, start, heard, arrival)
        fate = self._note_losses(slot, air.lost, admitted)
        arrival[gone] = np.inf
        self._count_bytes(load, air, admitted)
        self.counts.in_flight = len(self._in_flight)
        return Sends(batch.sender, batch.receiver, start, end, arrival, fate)

    def sender_off(self, now_s: float, agents: Ints) -> int:
        """These agents went off: drop their messages that wait for the transmitter; returns how many.

        A message whose transmission has begun goes on. Losses counted at sending stay counted as lost.
        """
        if not self._groups.any_finite:
            return 0
        off = np.zeros(self.n_agents, dtype=np.bool_)
        off[agents] = True
        links = np.flatnonzero(off[self._wiring.slot_sender[: self._wiring.links]])
        self._transmitters.stop(now_s, np.asarray(agents, dtype=np.int64), links)
        flight = self._in_flight.all()
        waiting = off[self._wiring.slot_sender[flight.slot]] & (flight.tx_start_s > now_s)
        dropped = int(np.count_nonzero(waiting))
        if dropped:
            self._in_flight.replace_all(flight.rows(~waiting))
            self.counts.absent_dropped += dropped
            self.counts.in_flight = len(self._in_flight)
            self._totals.note(flight.slot[waiting], Fate.ABSENT_DROPPED)
            self._last_arrival_s[links] = -np.inf
            under_way = flight.rows(~waiting & off[self._wiring.slot_sender[flight.slot]])
            np.maximum.at(self._last_arrival_s, under_way.slot, under_way.arrival_s)
        return dropped

    # ------------------------------------------------------------ arriving

    def next_arrival_s(self) -> float:
        """Time of the next arrival; inf if nothing is in flight."""
        return self._in_flight.next_arrival_s()

    def versions_in_flight(self) -> Ints:
        """Versions of the messages on their way, in no particular order, each as often as it is carried."""
        return self._in_flight.all().version

    def drain(self, until_s: float, online: Bools) -> Deliveries:
        """Everything that arrives up to and including ``until_s``, in order of arrival and then of sending.

        ``online`` bool ``[n_agents]``: a message to an agent that is off now is counted as absent_dropped,
        so drain up to an instant before an agent changes there.
        """
        flight = self._in_flight.take_until(until_s)
        if flight is None:
            return _NOTHING
        counts = self.counts
        sender, receiver = self._wiring.slot_sender[flight.slot], self._wiring.slot_receiver[flight.slot]
        present = online[receiver]
        age_s = flight.arrival_s - flight.sent_s
        expired = self._max_age_s is not None and age_s.max() > self._max_age_s
        if self._partitions or expired or not present.all():
            fate = self._fates(flight, age_s, sender, receiver, present)
            kept = np.flatnonzero(fate == _DELIVERED)
            counts.lost += int(np.count_nonzero(fate == _LOST))
            counts.absent_dropped += int(np.count_nonzero(fate == _ABSENT_DROPPED))
            counts.expired += int(np.count_nonzero(fate == _EXPIRED))
            self._totals.note_fates(flight.slot, fate)
            flight, sender, receiver, age_s = flight.rows(kept), sender[kept], receiver[kept], age_s[kept]
        else:
            self._totals.note(flight.slot, _DELIVERED)
        self._totals.note_delays(flight.slot, age_s)
        counts.delivered += len(flight.slot)
        counts.in_flight = len(self._in_flight)
        assert counts.missing() == 0, f"messages have vanished or appeared: {counts}"
        return Deliveries(receiver, sender, flight.version, flight.sent_s, flight.arrival_s)

    def link_table(self) -> dict[str, Any]:
        """Totals of every link that exists or has existed, as columns ``[links]`` in slot order."""
        links = self._wiring.links
        counts = self._totals.counts()[:links]
        delivered = counts[:, Fate.DELIVERED]
        connected = np.zeros(links, dtype=np.bool_)
        connected[self._wiring.connected()] = True
        with np.errstate(invalid="ignore"):
            mean = self._totals.delay_s()[:links] / delivered
        return {
            "sender": self._wiring.slot_sender[:links].copy(),
            "receiver": self._wiring.slot_receiver[:links].copy(),
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
            "counts": self.counts.as_dict(),
            "wiring": self._wiring.state(),
            "last_arrival_s": self._last_arrival_s.copy(),
            "latency": self._latency.state(),
            "loss": self._loss.state(),
            "duplication": self._duplication.state(),
            "transmitters": self._transmitters.state(),
            "totals": self._totals.state(),
            "in_flight": self._in_flight.all()._asdict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from the state of a carrier with the same arguments; the future is the same to the bit."""
        if state["format"] != _STATE_VERSION:
            raise LinkError(
                "format", state["format"], f"carrier state of format {_STATE_VERSION}", "start a new run"
            )
        self._now_s = float(state["now_s"])
        self.counts = MessageCounts(**{name: int(value) for name, value in state["counts"].items()})
        self._wiring.load_state(state["wiring"])
        self._last_arrival_s = np.asarray(state["last_arrival_s"], dtype=np.float64).copy()
        for name in ("latency", "loss", "duplication", "transmitters", "totals"):
            part = getattr(self, f"_{name}")
            part.load_state(state[name])
            part.resize(self._wiring.room)
        self._last_arrival_s = padded(self._last_arrival_s, self._wiring.room, -np.inf)
        self._in_flight.replace_all(Flight(**{name: np.asarray(v) for name, v in state["in_flight"].items()}))

    # ------------------------------------------------------------ parts of a broadcast

    def _pass(self, batch: Batch, load: Load, admitted: Bools | None) -> _Air:
        """Draw losses and retransmissions of the messages that the queues took."""
        count = len(batch.slot)
        lost = np.zeros(count, dtype=np.bool_)
        if not self._loss.active:
            return _Air(lost, None, None)
        retries = np.zeros(count, dtype=np.int64) if self._groups.any_arq else None
        share = np.ones(count) if self._groups.any_arq else None
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
        self, now_s: float, batch: Batch, load: Load, air: _Air, admitted: Bools | None
    ) -> tuple[Floats, Floats]:
        """Start and end of each message's transmission; inf for those that the queues refused."""
        if len(self._groups.specs) == 1:
            service = load.size_bytes * 8.0 / self._groups.bandwidth_bps[0]
        else:
            service = load.size_bytes * 8.0 / self._groups.bandwidth_bps[self._wiring.slot_group[batch.slot]]
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
        chosen = alive[self._groups.ordered[self._wiring.slot_group[slot[alive]]]]
        links = slot[chosen]
        arrival[chosen] = np.maximum(arrival[chosen], self._last_arrival_s[links])
        self._last_arrival_s[links] = arrival[chosen]

    def _duplicate(
        self,
        now_s: float,
        slot: Ints,
        version: Ints | int,
        alive: Ints,
        sequence: Ints,
        start: Floats,
        heard: Floats,
        arrival: Floats,
    ) -> None:
        """Add the copies that the network makes of messages that get through."""
        copied, delay = self._duplication.take(slot)
        which = np.flatnonzero(copied[alive])
        chosen = alive[which]
        if chosen.size == 0:
            return
        copy_arrival = heard[chosen] + delay[chosen]
        links = slot[chosen]
        if self._groups.any_ordered:
            ordered = self._groups.ordered[self._wiring.slot_group[links]]
            copy_arrival = np.where(ordered, np.maximum(copy_arrival, arrival[chosen]), copy_arrival)
            self._last_arrival_s[links[ordered]] = copy_arrival[ordered]
        self.counts.duplicated += len(chosen)
        self._totals.note(links, DUPLICATED)
        self._in_flight.add(
            copy_arrival,
            sequence[which] + 1,
            now_s,
            start[chosen],
            links,
            version if isinstance(version, int) else version[chosen],
        )

    def _note_losses(self, slot: Ints, lost: Bools, admitted: Bools | None) -> Any:
        """Count what will not arrive; the fate code of each message."""
        fate = np.zeros(len(slot), dtype=np.int8)
        gone = slot[lost]
        fate[lost] = _LOST
        self.counts.lost += len(gone)
        self._totals.note(gone, _LOST)
        if admitted is not None:
            refused = slot[~admitted]
            fate[~admitted] = _QUEUE_DROPPED
            self.counts.queue_dropped += len(refused)
            self._totals.note(refused, _QUEUE_DROPPED)
        return fate

    def _count_bytes(self, load: Load, air: _Air, admitted: Bools | None) -> None:
        sent = load.size_bytes if air.sent_share is None else np.rint(load.size_bytes * air.sent_share)
        self.counts.bytes_sent += int(sent.sum() if admitted is None else sent[admitted].sum())

    def _fates(self, flight: Flight, age_s: Floats, sender: Ints, receiver: Ints, present: Bools) -> Any:
        """The fate code of each message at its arrival: a cut, then absence, then age."""
        fate = np.full(len(sender), _DELIVERED, dtype=np.int64)
        if self._max_age_s is not None:
            fate[age_s > self._max_age_s] = _EXPIRED
        fate[~present] = _ABSENT_DROPPED
        if self._partitions:
            fate[self._partitions.cut(sender, receiver, flight.arrival_s)] = _LOST
        return fate
