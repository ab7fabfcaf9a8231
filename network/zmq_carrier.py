"""The real carrier: one agent's end of the links, over ZeroMQ sockets.

It offers what the simulated carrier does (`network.protocol.Carrier`), for the one agent that lives here:
a broadcast leaves on the sockets of its neighbours, and draining hands over what has come. A version is
turned into a message's content, and back, by a `Cargo`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
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

_NO_INTS: Ints = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Floats = np.zeros(0)
_NOTHING = Deliveries(_NO_INTS, _NO_INTS, _NO_INTS, _NO_FLOATS, _NO_FLOATS)
_MOST_AT_ONCE = 256  # messages read in one draining, so that a flood cannot hold the agent


class Cargo(Protocol):
    """What versions stand for, at this agent."""

    def pack(self, version: int) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """Fields and tensors of the message that carries that version."""
        ...

    def unpack(self, message: Message) -> int | None:
        """Keep what a message carries; its version here, or None if it is of no use."""
        ...


class ZmqCarrier:
    """The links of ``agent`` to its neighbours.

    ``outbox`` gives the socket to a peer. Where a peer takes its messages too slowly the newest waits and
    older ones are dropped (counted as queue_dropped). With an ``emulator``, a simulated carrier of the same
    scenario and seed, each message leaves when that one says it should arrive, or never: the same losses and
    delays as in the simulation, on top of what the real network does.

    ``counts`` are of this end: what was sent from here and what was delivered here. Only the sums over all
    agents obey the law of conservation.
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
    ) -> None:
        self.n_agents = n_agents
        self.agent = agent
        self.counts = MessageCounts()
        self.cargo: Cargo
        """Set before the first broadcast."""
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
        self._later: list[tuple[float, int, int, list[Any]]] = []
        self._dropped_before = np.zeros(n_agents, dtype=np.int64)
        self._sent = np.zeros(n_agents, dtype=np.int64)
        self._lost = np.zeros(n_agents, dtype=np.int64)
        self._queue_dropped = np.zeros(n_agents, dtype=np.int64)
        self._delivered = np.zeros(n_agents, dtype=np.int64)
        self._expired = np.zeros(n_agents, dtype=np.int64)
        self._delay_s = np.zeros(n_agents)
        self.unusable = 0
        """Copies that arrived whole, but of a shape or with numbers that are of no use."""
        self.graph: Graph
        self.redraw(0)

    # ------------------------------------------------------------ graph

    def redraw(self, number: int) -> None:
        """See `network.protocol.Carrier.redraw`."""
        if number == 0 or is_redrawn(self._topology):
            rng = generator(self._streams.family("topology"), number)
            self.graph = build_graph(self._topology, self.n_agents, rng)
            if self._emulator is not None and number:
                self._emulator.redraw(number)

    def out_neighbours(self, agent: int) -> Ints:
        """Those to whom that agent sends, ascending."""
        return self.graph.neighbours(agent)

    def in_neighbours(self, agent: int) -> Ints:
        """Those who send to that agent, ascending."""
        return np.sort(self.graph.sender[self.graph.receiver == agent])

    # ------------------------------------------------------------ sending

    def broadcast(self, now_s: float, senders: Ints, versions: Ints, size_bytes: int | Ints) -> Sends:
        """Send the agent's message to each of its neighbours; ``senders`` is this agent alone."""
        assert senders.tolist() == [self.agent], "a real carrier sends for its own agent only"
        receivers = self.out_neighbours(self.agent)
        count = len(receivers)
        fields, tensors = self.cargo.pack(int(versions[0]))
        fate = np.full(count, Fate.IN_FLIGHT, dtype=np.int8)
        leaves_s = np.full(count, now_s)
        if self._emulator is not None:
            planned = self._emulator.broadcast(now_s, senders, versions, size_bytes)
            self._emulator.drain(now_s, np.ones(self.n_agents, dtype=np.bool_))
            receivers, fate, leaves_s = planned.receiver, planned.fate, planned.arrival_s
        for receiver, code, at_s in zip(receivers.tolist(), fate.tolist(), leaves_s.tolist(), strict=True):
            self._sent[receiver] += 1
            if code == Fate.LOST:
                self._lost[receiver] += 1
            elif code == Fate.QUEUE_DROPPED:
                self._queue_dropped[receiver] += 1
            else:
                frames = self._frames(COPY, now_s, fields, tensors)
                if at_s > now_s:
                    heapq.heappush(self._later, (at_s, self._sequence, receiver, frames))
                else:
                    self._offer(receiver, frames)
        self._count()
        self.counts.bytes_sent += int(np.sum(size_bytes)) * int((fate != Fate.QUEUE_DROPPED).sum())
        sender = np.full(count, self.agent, dtype=np.int64)
        nowhere = np.full(count, np.inf)
        return Sends(sender, receivers, np.full(count, now_s), np.full(count, now_s), nowhere, fate)

    def tell(
        self,
        receivers: Ints,
        kind: str,
        now_s: float,
        fields: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
    ) -> None:
        """Send a message of another kind, at once and uncounted."""
        for receiver in receivers.tolist():
            self._offer(receiver, self._frames(kind, now_s, fields, tensors))

    def _frames(
        self, kind: str, now_s: float, fields: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
    ) -> list[Any]:
        self._sequence += 1
        return list(encode(Message(kind, self.agent, self._session, self._sequence, now_s, fields, tensors)))

    def _offer(self, receiver: int, frames: list[Any]) -> None:
        self._outbox(receiver).offer(frames)

    def pump(self, now_s: float) -> None:
        """Send what is due by now, and what has been waiting for a slow peer."""
        while self._later and self._later[0][0] <= now_s:
            _, _, receiver, frames = heapq.heappop(self._later)
            self._offer(receiver, frames)
        for receiver in np.flatnonzero(self._sent).tolist():
            box = self._outbox(receiver)
            if box.waiting:
                box.flush()
        self._count()

    def next_departure_s(self) -> float:
        """When `pump` has something to do next; inf if nothing is planned."""
        return self._later[0][0] if self._later else np.inf

    def sender_off(self, now_s: float, agents: Ints) -> int:
        """Nothing here goes off without its process."""
        return 0

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
        for _ in range(_MOST_AT_ONCE):
            message = self._inbox.receive()
            if message is None:
                break
            if message.kind != COPY:
                self.other(message)
                continue
            age_s = max(until_s - message.sent_s, 0.0)
            if self._max_age_s is not None and age_s > self._max_age_s:
                self._expired[message.sender] += 1
                continue
            version = self.cargo.unpack(message)
            if version is None:
                self.unusable += 1
                continue
            self._delivered[message.sender] += 1
            self._delay_s[message.sender] += age_s
            senders.append(message.sender)
            versions.append(version)
            sent_s.append(min(message.sent_s, until_s))
        self._count()
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

    def _count(self) -> None:
        for receiver in np.flatnonzero(self._sent).tolist():
            dropped = self._outbox(receiver).dropped
            self._queue_dropped[receiver] += dropped - self._dropped_before[receiver]
            self._dropped_before[receiver] = dropped
        counts = self.counts
        counts.sent = int(self._sent.sum())
        counts.lost = int(self._lost.sum())
        counts.queue_dropped = int(self._queue_dropped.sum())
        counts.delivered = int(self._delivered.sum())
        counts.expired = int(self._expired.sum())

    def link_table(self) -> dict[str, Any]:
        """What this end knows of each peer, arrays ``[n_agents]``: sent to it, and delivered from it."""
        return {
            "sent": self._sent.copy(),
            "lost": self._lost.copy(),
            "queue_dropped": self._queue_dropped.copy(),
            "delivered": self._delivered.copy(),
            "expired": self._expired.copy(),
            "delay_s": self._delay_s.copy(),
        }

    # ------------------------------------------------------------ checkpoint

    def state(self) -> dict[str, Any]:
        """The counts; what was on its way when a process ended is lost with it."""
        return {"bytes_sent": self.counts.bytes_sent, **self.link_table()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting from such a state."""
        self.counts.bytes_sent = int(state["bytes_sent"])
        for name in ("sent", "lost", "queue_dropped", "delivered", "expired", "delay_s"):
            getattr(self, f"_{name}")[...] = state[name]
        self._count()
