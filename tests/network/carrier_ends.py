"""The ends of some links, simulated or over sockets of 127.0.0.1: what tests of carriers send and hear with.

Times are given to the carriers, not measured: where real messages are waited for, a deadline bounds the wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

from f2a2_sim.randomness import Streams
from network.carrier import SimulatedCarrier
from network.keys import Identity, Members, agent_name
from network.messages import MessageCounts, Sends
from network.protocol import Carrier
from network.sockets import Inbox, Outbox, Security
from network.spec import (
    CompleteTopology,
    LinkSpec,
    RingPlusRandomTopology,
    RingTopology,
    TopologySpec,
)
from network.wire import Limits, Message, encode
from network.zmq_carrier import ZmqCarrier
from tests.network.processes import until

SEED = 7
WIDTH = 5
SIZE_BYTES = 1000
DEADLINE_S = 5.0
SETTLED_S = 0.03
"""How long nothing has come where nothing more should."""
CLOGGED_S = 0.5
"""How long a copy has waited where nothing more can be sent."""
REDRAWN = RingPlusRandomTopology(share=0.4, redraw="every_round")
TOPOLOGIES: list[TopologySpec] = [
    CompleteTopology(),
    RingTopology(),
    RingPlusRandomTopology(share=0.4, redraw="never"),
    REDRAWN,
]


def ended(counts: MessageCounts, unusable: int = 0) -> int:
    """Messages whose end is known."""
    fates = counts.delivered + counts.lost + counts.queue_dropped + counts.absent_dropped + counts.expired
    return fates + unusable


def wait_until(condition: Callable[[], bool]) -> None:
    until(condition, DEADLINE_S)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Heard(NamedTuple):
    """A copy that was delivered."""

    receiver: int
    sender: int
    round: int
    content: list[float]
    sent_s: float


def content_of(agent: int, round_number: int, width: int = WIDTH) -> NDArray[np.float32]:
    """What an agent sends in a round: no two of them are alike."""
    return np.arange(width, dtype=np.float32) + 100.0 * agent + 0.25 * round_number


class Shelf:
    """The copies that an agent has, by version: a cargo without learners."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.kept: list[tuple[int, NDArray[Any]]] = []
        self.kinds = 1
        """Rounds take turns at being of so many kinds."""

    def keep(self, round_number: int, values: NDArray[Any]) -> int:
        self.kept.append((round_number, values))
        return len(self.kept) - 1

    def kind(self, version: int) -> str:
        return f"kind {self.kept[version][0] % self.kinds}"

    def pack(self, version: int) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        round_number, values = self.kept[version]
        return {"round": round_number}, {"parameters": values}

    def unpack(self, message: Message) -> int | None:
        values = message.tensors.get("parameters")
        if values is None or values.shape != (self.width,) or not np.isfinite(values).all():
            return None
        return self.keep(message.fields["round"], np.array(values))


class Ends:
    """All ends of some links: the carrier at each agent, and what is delivered there."""

    carriers: Sequence[Carrier]

    def __init__(self, shelves: Sequence[Shelf]) -> None:
        self.shelves = shelves
        self.everybody = np.ones(len(shelves), dtype=np.bool_)

    def send(self, agent: int, round_number: int, now_s: float = 0.0) -> Sends:
        """Broadcast what the agent has to say in that round."""
        shelf = self.shelves[agent]
        version = shelf.keep(round_number, content_of(agent, round_number, shelf.width))
        return self.carriers[agent].broadcast(now_s, np.array([agent]), np.array([version]), SIZE_BYTES)

    def hear(self, now_s: float = 0.0, agents: Sequence[int] | None = None) -> list[Heard]:
        """What has arrived by then, at all agents or at some."""
        heard = []
        for carrier in self.distinct(agents):
            got = carrier.drain(now_s, self.everybody)
            for receiver, sender, version, sent_s in zip(
                got.receiver.tolist(), got.sender.tolist(), got.version.tolist(), got.sent_s, strict=True
            ):
                round_number, values = self.shelves[receiver].kept[version]
                heard.append(Heard(receiver, sender, round_number, values.tolist(), float(sent_s)))
        return heard

    def distinct(self, agents: Sequence[int] | None = None) -> list[Carrier]:
        chosen = range(len(self.carriers)) if agents is None else agents
        return list({id(self.carriers[agent]): self.carriers[agent] for agent in chosen}.values())

    def hear_all(self, count: int, now_s: float = 0.0) -> list[Heard]:
        """What arrives until ``count`` messages have come and nothing follows them; fails at a deadline."""
        heard: list[Heard] = []
        deadline_s = time.monotonic() + DEADLINE_S
        while len(heard) < count:
            assert time.monotonic() < deadline_s, f"{len(heard)} of {count} messages after {DEADLINE_S} s"
            self.pump(now_s)
            heard += self.hear(now_s)
        return heard + self.hear_rest(now_s)

    def hear_rest(self, now_s: float = 0.0) -> list[Heard]:
        """What arrives until nothing has for a while."""
        heard: list[Heard] = []
        quiet_since_s = time.monotonic()
        while time.monotonic() < quiet_since_s + SETTLED_S:
            self.pump(now_s)
            more = self.hear(now_s)
            if more:
                heard += more
                quiet_since_s = time.monotonic()
        return heard

    def hear_out(self, now_s: float = 0.0) -> list[Heard]:
        """What arrives until every message's end is known and nothing follows; fails at a deadline."""
        heard: list[Heard] = []

        def all_ended() -> bool:
            self.pump(now_s)
            heard.extend(self.hear(now_s))
            counts = self.totals()
            return counts.in_flight == 0 and ended(counts) == counts.sent + counts.duplicated

        wait_until(all_ended)
        return heard + self.hear_rest(now_s)

    def pump(self, now_s: float) -> None:
        """Whatever must be done for messages to move."""

    def totals(self) -> MessageCounts:
        """Sums over all ends; in flight is what nothing is known of."""
        counts = MessageCounts()
        for carrier in self.distinct():
            for name, value in carrier.counts.as_dict().items():
                setattr(counts, name, getattr(counts, name) + value)
        return counts


class SimulatedEnds(Ends):
    """One simulated carrier, looked at from every agent; versions are those of one shelf for all."""

    def __init__(self, n_agents: int, topology: TopologySpec, max_age_s: float | None = None) -> None:
        super().__init__([Shelf(WIDTH)] * n_agents)
        carrier = SimulatedCarrier(n_agents, topology, LinkSpec(), Streams(SEED, 0), max_age_s=max_age_s)
        self.carriers = [carrier] * n_agents

    def hear_rest(self, now_s: float = 0.0) -> list[Heard]:
        return self.hear(now_s)


class RealEnds(Ends):
    """Carriers over sockets of 127.0.0.1, whose links stand when the first message is sent."""

    carriers: list[ZmqCarrier]

    def __init__(
        self,
        stack: ExitStack,
        securities: Sequence[Security],
        topology: TopologySpec,
        max_age_s: float | None = None,
        emulator: Callable[[], SimulatedCarrier | None] = lambda: None,
        width: int = WIDTH,
        held_bytes: int = 1 << 20,
        unsent: int = 64,
        unread: int = 64,
    ) -> None:
        """``unsent``, ``unread``: messages that a socket keeps before newer ones displace them."""
        n_agents = len(securities)
        super().__init__([Shelf(width) for _ in range(n_agents)])
        self._securities = securities
        self._unsent = unsent
        self._contexts = [self._context(stack, security) for security in securities]
        self._stack = stack
        self.inboxes = [
            Inbox(context, security, Limits(), unread)
            for context, security in zip(self._contexts, securities, strict=True)
        ]
        self._endpoints = [inbox.bind("tcp://127.0.0.1:*") for inbox in self.inboxes]
        for inbox in self.inboxes:
            stack.callback(inbox.close)
        self._boxes: dict[tuple[int, int], Outbox] = {}
        self.carriers = []
        for agent in range(n_agents):
            carrier = ZmqCarrier(
                n_agents,
                agent,
                topology,
                Streams(SEED, 0),
                self.inboxes[agent],
                self._outboxes_of(agent),
                session=agent + 1,
                max_age_s=max_age_s,
                emulator=emulator(),
                held_bytes=held_bytes,
            )
            carrier.cargo = self.shelves[agent]
            self.carriers.append(carrier)

    @staticmethod
    def _context(stack: ExitStack, security: Security) -> zmq.Context[Any]:
        context: zmq.Context[Any] = zmq.Context()
        stack.callback(context.term)
        stack.callback(security.close)
        return context

    def _outboxes_of(self, agent: int) -> Callable[[int], Outbox]:
        return lambda peer: self.outbox(agent, peer)

    def outbox(self, agent: int, peer: int) -> Outbox:
        """The socket from one agent to another."""
        if (agent, peer) not in self._boxes:
            box = Outbox(self._contexts[agent], self._securities[agent], agent_name(peer), self._unsent)
            self._stack.callback(box.close)
            box.connect(self._endpoints[peer])
            self._boxes[agent, peer] = box
        return self._boxes[agent, peer]

    def connect(self, *pairs: tuple[int, int]) -> None:
        """Wait until these links stand, or those of the graph."""
        graph = self.carriers[0].graph
        links = pairs or zip(graph.sender.tolist(), graph.receiver.tolist(), strict=True)
        for sender, receiver in links:
            socket = self.outbox(sender, receiver).socket
            assert socket.poll(round(1000 * DEADLINE_S), zmq.POLLOUT), f"no link {sender} to {receiver}"

    def pump(self, now_s: float) -> None:
        for carrier in self.carriers:
            carrier.pump(now_s)

    def clog(self, sender: int) -> None:
        """Broadcast a round 0 again and again, until a copy has waited for long: later ones will, too."""

        def stuck() -> bool:
            self.send(sender, 0)
            quiet_until_s = time.monotonic() + CLOGGED_S
            while self.carriers[sender].counts.in_flight and time.monotonic() < quiet_until_s:
                self.pump(0.0)
            return self.carriers[sender].counts.in_flight > 0

        wait_until(stuck)

    def unusable(self) -> int:
        return sum(carrier.unusable for carrier in self.carriers)

    def raw(self, sender: int, receiver: int, message: Message) -> None:
        """Let an agent's socket send what no carrier would."""
        box = self.outbox(sender, receiver)
        box.offer(encode(message))
        wait_until(box.flush)


Make = Callable[..., Any]


def securities_of(kind: str, n_agents: int) -> list[Security]:
    if kind == "insecure":
        return [Security.insecure() for _ in range(n_agents)]
    pairs = [tuple(key.decode() for key in zmq.curve_keypair()) for _ in range(n_agents)]
    members = Members({agent_name(agent): public for agent, (public, _) in enumerate(pairs)})
    return [
        Security.curve(Identity(agent_name(agent), public, secret), members)
        for agent, (public, secret) in enumerate(pairs)
    ]
