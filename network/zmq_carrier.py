"""The real carrier: one agent's end of the links, over ZeroMQ sockets.

It offers what the simulated carrier does (`network.protocol.Carrier`), for the one agent that lives here:
a broadcast leaves on the sockets of its neighbours, and draining hands over what has come. A version is
turned into a message's content, and back, by a `Cargo`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgpack
import numpy as np
import zmq
from numpy.typing import NDArray

from network.carrier import SimulatedCarrier
from network.messages import Deliveries, Fate, MessageCounts, Sends
from network.sockets import Inbox, Outbox
from network.spec import TopologySpec
from network.streams import Bools, Floats, Ints, StreamSource, generator
from network.topology import Graph, build_graph, is_redrawn
from network.wire import Message, encode

COPY = "copy"
"""Kind of the messages that carry an agent's copy of the shared parameters."""
HELD_BYTES = 256 * 1024 * 1024
"""How much may be on its way in an emulated network, in all messages of an agent."""

_NO_INTS: Ints = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Floats = np.zeros(0)
_NOTHING = Deliveries(_NO_INTS, _NO_INTS, _NO_INTS, _NO_FLOATS, _NO_FLOATS)
# Messages read in one draining: a flood can neither hold the agent nor make it keep any number of copies.
_MOST_AT_ONCE, _AT_ONCE_PER_AGENT = 256, 4
_RETRY_S = 0.01  # ZeroMQ does not say when a peer takes messages again
_TOTALS = ("sent", "duplicated", "lost", "queue_dropped", "delivered", "expired", "unusable")
_TOTALS_OF_EMULATOR = ("duplicated", "lost", "queue_dropped")


class Cargo(Protocol):
    """What versions stand for, at this agent."""

    def kind(self, version: int) -> str:
        """What that version is one of: to a slow peer the newest of each kind waits."""
        ...

    def pack(self, version: int) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """Fields and tensors of the message that carries that version; they are copied at once."""
        ...

    def unpack(self, message: Message) -> int | None:
        """Keep what a message carries, by copying it; its version here, or None if it is of no use."""
        ...


class ZmqCarrier:
    """The links of ``agent`` to its neighbours.

    ``outbox`` gives the socket to a peer. Where a peer takes its messages too slowly the newest of each kind
    waits and older ones are dropped (counted as queue_dropped). With an ``emulator``, a simulated carrier of
    the same scenario and seed, each message leaves when that one says it should arrive, twice, or never: the
    same losses and delays as in the simulation, on top of what the real network does. Copies that the
    emulated network holds are limited to ``held_bytes``; beyond that new ones are queue_dropped when due.
    """

    def __init__(
        self,
        n_agents: int,
        agent: int,
        topology: TopologySpec,
        streams: StreamSource,
        inbox: Inbox,
        outbox: Callable[[int], Outbox],
        session: int,
        max_age_s: float | None = None,
        emulator: SimulatedCarrier | None = None,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.n_agents = n_agents
        self.agent = agent
        self.cargo: Cargo | None = None
        """Set before the first broadcast; as long as there is none, copies that come are of no use."""
        self.other: Callable[[Message], None] = lambda message: None
        """Who gets messages that are no copies."""
        self._topology = topology
        self._streams = streams
        self._inbox = inbox
        self._outbox = outbox
        self._session = session
        self._sequence = 0
        self._max_age_s = max_age_s
        self._emulator = emulator
        self._emulated_s = -np.inf
        self._held_bytes = held_bytes
        self._held: dict[int, tuple[str, list[Any]]] = {}
        self._everybody = np.ones(n_agents, dtype=np.bool_)
        self._waiting: set[int] = set()
        """Receivers for whom something waits."""
        self._unsent_bytes: dict[tuple[int, str], int] = {}
        """Of the newest counted message, by receiver and kind."""
        self._pumped_s = -np.inf
        self._own: dict[str, Ints] = {name: np.zeros(n_agents, dtype=np.int64) for name in _TOTALS}
        """Totals by peer ``[n_agents]``, without those that the emulator counts itself."""
        self._delay_s = np.zeros(n_agents)
        self._bytes_sent = 0
        self._strays = 0
        self._draw(0)

    # ------------------------------------------------------------ graph

    def redraw(self, number: int) -> None:
        """See `network.protocol.Carrier.redraw`."""
        if is_redrawn(self._topology):
            self._draw(number)
            if self._emulator is not None:
                self._emulator.redraw(number)

    def _draw(self, number: int) -> None:
        self._drawn = number
        rng = generator(self._streams.family("topology"), number)
        self.graph: Graph = build_graph(self._topology, self.n_agents, rng)

    def out_neighbours(self, agent: int) -> Ints:
        """Those to whom that agent sends, ascending."""
        return self.graph.neighbours(agent)

    def in_neighbours(self, agent: int) -> Ints:
        """Those who send to that agent, ascending."""
        return np.sort(self.graph.sender[self.graph.receiver == agent])

    # ------------------------------------------------------------ sending

    def broadcast(self, now_s: float, senders: Ints, versions: Ints, size_bytes: int | Ints) -> Sends:
        """Send the agent's message to each of its neighbours; ``senders`` is this agent alone.

        When a message arrives only an emulator knows; without one ``arrival_s`` is inf, and the times of
        transmission are those of packing and of handing over to each socket.
        """
        assert senders.tolist() == [self.agent], "a real carrier sends for its own agent only"
        assert self.cargo is not None, "a carrier needs cargo before its first broadcast"
        began = time.perf_counter()
        receivers = self.out_neighbours(self.agent)
        kind = self.cargo.kind(int(versions[0]))
        frames = self._frames(COPY, now_s, *self.cargo.pack(int(versions[0])))
        self._own["sent"][receivers] += 1
        if self._emulator is not None:
            return self._emulate(now_s, senders, size_bytes, kind, frames)
        size = int(np.max(size_bytes))
        handed_over_s = np.empty(len(receivers))
        for place, receiver in enumerate(receivers.tolist()):
            self._bytes_sent += size
            self._offer(receiver, kind, frames, size)
            handed_over_s[place] = time.perf_counter()
        count = len(receivers)
        ends_s = now_s + (handed_over_s - began)
        starts_s = np.concatenate([[now_s], ends_s])[:count]
        fate = np.full(count, Fate.IN_FLIGHT, dtype=np.int8)
        return Sends(np.full(count, self.agent), receivers, starts_s, ends_s, np.full(count, np.inf), fate)

    def tell(
        self,
        receivers: Ints,
        kind: str,
        now_s: float,
        fields: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
    ) -> None:
        """Send a message of another kind, at once and uncounted."""
        frames = self._frames(kind, now_s, fields, tensors)
        for receiver in receivers.tolist():
            self._offer(receiver, kind, frames)

    def _frames(
        self, kind: str, now_s: float, fields: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
    ) -> list[Any]:
        """A message with the next number: one copy of its tensors, from which all sockets send."""
        self._sequence += 1
        header, *data = encode(
            Message(kind, self.agent, self._session, self._sequence, now_s, fields, tensors)
        )
        return [header, *(zmq.Frame(part) for part in data)]

    def _offer(self, receiver: int, kind: str, frames: list[Any], counted_bytes: int | None = None) -> None:
        box = self._outbox(receiver)
        displaced = not box.offer(frames, kind)
        if counted_bytes is not None:
            if displaced:
                self._own["queue_dropped"][receiver] += 1
                self._bytes_sent -= self._unsent_bytes[receiver, kind]
            self._unsent_bytes[receiver, kind] = counted_bytes
        if box.waiting:
            self._waiting.add(receiver)

    def pump(self, now_s: float) -> None:
        """Send what is due by now, and what has been waiting for a slow peer."""
        self._pumped_s = now_s
        self._waiting = {peer for peer in self._waiting if not self._outbox(peer).flush()}
        if self._emulator is not None and self._emulator.next_arrival_s() <= now_s:
            self._deliver_emulated(now_s)

    def next_departure_s(self) -> float:
        """When `pump` has something to do next; inf if nothing is planned."""
        emulated_s = np.inf if self._emulator is None else self._emulator.next_arrival_s()
        return min(emulated_s, self._pumped_s + _RETRY_S) if self._waiting else emulated_s

    def sender_off(self, now_s: float, agents: Ints) -> int:
        """Nothing here goes off without its process."""
        return 0

    # ------------------------------------------------------------ the emulated network

    def _emulate(
        self, now_s: float, senders: Ints, size_bytes: int | Ints, kind: str, frames: list[Any]
    ) -> Sends:
        """Let the emulated network decide on a broadcast; its versions are the messages' numbers."""
        assert self._emulator is not None
        self._emulated_s = max(self._emulated_s, now_s)  # a run's clock may be set back, that one's may not
        number = np.array([self._sequence])
        sends = self._emulator.broadcast(self._emulated_s, senders, number, size_bytes)
        size = sum(memoryview(part).nbytes for part in frames)
        if self._held_now() + size <= self._held_bytes:
            self._held[self._sequence] = kind, frames
        self._deliver_emulated(now_s)
        return sends

    def _deliver_emulated(self, now_s: float) -> None:
        """Send for real what has arrived in the emulated network."""
        assert self._emulator is not None
        self._emulated_s = max(self._emulated_s, now_s)
        due = self._emulator.drain(self._emulated_s, self._everybody)
        for receiver, number in zip(due.receiver.tolist(), due.version.tolist(), strict=True):
            if number in self._held:
                kind, (header, *data) = self._held[number]
                # Receivers let in growing numbers only, and the emulated network may change the order.
                self._sequence += 1
                self._offer(receiver, kind, [_renumbered(header, self._sequence), *data], 0)
            else:
                self._own["queue_dropped"][receiver] += 1
        for number in self._held.keys() - set(self._emulator.versions_in_flight().tolist()):
            del self._held[number]

    def _held_now(self) -> int:
        return sum(memoryview(part).nbytes for _, frames in self._held.values() for part in frames)

    def _of_emulator(self, name: str) -> Ints:
        """A column of the emulator's table, by receiver: int64 ``[n_agents]``."""
        values = np.zeros(self.n_agents, dtype=np.int64)
        if self._emulator is not None:
            table = self._emulator.link_table()
            mine = table["sender"] == self.agent
            values[table["receiver"][mine]] = table[name][mine]
        return values

    # ------------------------------------------------------------ arriving

    def versions_in_flight(self) -> Ints:
        """None: a real message holds what it carries."""
        return _NO_INTS

    def next_arrival_s(self) -> float:
        """Nobody knows; the inbox's socket tells when something is there."""
        return np.inf

    def drain(self, until_s: float, online: Bools) -> Deliveries:
        """The copies that have come, in the order in which they did; ``until_s`` is now.

        Other messages go to `other`. Copies older than the carrier's ``max_age_s`` are counted as expired.
        """
        senders, versions, sent_s = [], [], []
        for _ in range(min(_MOST_AT_ONCE, _AT_ONCE_PER_AGENT * self.n_agents)):
            message = self._inbox.receive()
            if message is None:
                break
            sender = message.sender
            if message.kind != COPY:
                self.other(message)
                continue
            if not 0 <= sender < self.n_agents or sender == self.agent:
                self._strays += 1
                continue
            age_s = max(until_s - message.sent_s, 0.0)
            if self._max_age_s is not None and age_s > self._max_age_s:
                self._own["expired"][sender] += 1
                continue
            version = None if self.cargo is None else self.cargo.unpack(message)
            if version is None:
                self._own["unusable"][sender] += 1
                continue
            self._own["delivered"][sender] += 1
            self._delay_s[sender] += age_s
            senders.append(sender)
            versions.append(version)
            sent_s.append(min(message.sent_s, until_s))
        if not senders:
            return _NOTHING
        count = len(senders)
        return Deliveries(
            np.full(count, self.agent, dtype=np.int64),
            np.array(senders, dtype=np.int64),
            np.array(versions, dtype=np.int64),
            np.array(sent_s),
            np.full(count, until_s),
        )

    # ------------------------------------------------------------ what became of them

    @property
    def counts(self) -> MessageCounts:
        """Totals of this end: what was sent from here and what arrived here; in flight is what waits here.

        Only with the sums over all agents is a message's end known: what was sent or duplicated was
        delivered, lost, queue_dropped, expired or `unusable`, or else is in flight.
        """
        totals = {name: int(values.sum()) for name, values in self._totals().items() if name != "unusable"}
        emulated = 0 if self._emulator is None else self._emulator.counts.bytes_sent
        return MessageCounts(
            **totals, in_flight=int(self._in_flight().sum()), bytes_sent=self._bytes_sent + emulated
        )

    @property
    def unusable(self) -> int:
        """Copies that came whole, but from no agent of this run, of a wrong shape, or with odd numbers."""
        return int(self._own["unusable"].sum()) + self._strays

    def link_table(self) -> dict[str, Any]:
        """What this end knows of each peer, arrays ``[n_agents]``: sent to it, and delivered from it."""
        return {**self._totals(), "delay_s": self._delay_s.copy()}

    def _totals(self) -> dict[str, Ints]:
        emulated = {name: self._of_emulator(name) for name in _TOTALS_OF_EMULATOR}
        return {name: values + emulated.get(name, 0) for name, values in self._own.items()}

    def _in_flight(self) -> Ints:
        """How many copies for each peer wait here: int64 ``[n_agents]``."""
        count = np.zeros(self.n_agents, dtype=np.int64)
        for receiver, kind in self._unsent_bytes:
            count[receiver] += kind in self._outbox(receiver).waiting
        if self._emulator is not None:
            ended = sum(self._of_emulator(name) for name in ("delivered", "lost", "queue_dropped"))
            count += self._of_emulator("sent") + self._of_emulator("duplicated") - ended
        return count

    # ------------------------------------------------------------ checkpoint

    def state(self) -> dict[str, Any]:
        """The counts, the graph's number, and the emulator's state if there is one."""
        return {
            **self.link_table(),
            "in_flight": self._in_flight(),
            "bytes_sent": self.counts.bytes_sent,
            "drawn": self._drawn,
            "emulator": {} if self._emulator is None else self._emulator.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting from such a state. What was on its way when the process ended is lost with it."""
        self._draw(int(state["drawn"]))
        self._bytes_sent = int(state["bytes_sent"])
        self._waiting, self._unsent_bytes, self._held = set(), {}, {}
        if self._emulator is not None:
            if state["emulator"]:
                self._emulator.load_state(state["emulator"])
                self._emulated_s = float(state["emulator"]["now_s"])
                self._emulator.drain(np.inf, self._everybody)
            else:
                self._emulator.redraw(self._drawn)
            self._bytes_sent -= self._emulator.counts.bytes_sent
        for name in _TOTALS:
            self._own[name][...] = state[name]
        self._own["lost"] += state["in_flight"]
        for name in _TOTALS_OF_EMULATOR:
            self._own[name] -= self._of_emulator(name)
        self._delay_s[...] = state["delay_s"]


def _renumbered(header: bytes, sequence: int) -> bytes:
    """The header of a message, made here, as that of another one with the same content."""
    packed: bytes = msgpack.packb({**msgpack.unpackb(header), "sequence": sequence})
    return packed
