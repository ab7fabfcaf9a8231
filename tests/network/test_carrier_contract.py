"""What every carrier promises, simulated or over sockets, with and without keys; then what only sockets do.

Times are given to the carriers, not measured: where real messages are waited for, a deadline bounds the wait.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from f2a2_sim.randomness import Streams
from network.carrier import SimulatedCarrier
from network.keys import Identity, Members, agent_name
from network.messages import MessageCounts, Sends
from network.protocol import Carrier
from network.sockets import Inbox, Outbox, Security
from network.spec import (
    BernoulliLoss,
    CompleteTopology,
    ConstantLatency,
    EdgeListTopology,
    LinkSpec,
    PartitionSpec,
    RingPlusRandomTopology,
    RingTopology,
    TopologySpec,
    UniformLatency,
)
from network.streams import generator
from network.topology import build_graph
from network.wire import Limits, Message, encode
from network.zmq_carrier import COPY, ZmqCarrier

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
KINDS = ("simulated", "insecure", "curve")


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


@pytest.fixture
def real() -> Iterator[Make]:
    """Makes ends over sockets, whose links stand."""
    with ExitStack() as stack:

        def make(n_agents: int, topology: TopologySpec, kind: str = "insecure", **more: Any) -> RealEnds:
            ends = RealEnds(stack, securities_of(kind, n_agents), topology, **more)
            ends.connect()
            return ends

        yield make


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, real: Make) -> Make:
    """Makes ends of each kind."""
    kind = request.param
    if kind == "simulated":
        return SimulatedEnds
    return lambda n_agents, topology, **more: real(n_agents, topology, kind, **more)


def ended(counts: MessageCounts, unusable: int = 0) -> int:
    """Messages whose end is known."""
    fates = counts.delivered + counts.lost + counts.queue_dropped + counts.absent_dropped + counts.expired
    return fates + unusable


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


# ================================================================ over sockets only


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S} s"
        time.sleep(0.001)


# ---------------------------------------------------------------- what is of no use


def unusable(ends: RealEnds, count: int) -> None:
    """Wait until agent 1 has got so many useless copies; nothing may be delivered to it."""

    def all_found() -> bool:
        assert not ends.hear(agents=[1])
        return ends.carriers[1].unusable == count

    wait_until(all_found)


@pytest.mark.parametrize("kind", ["insecure", "curve"])
def test_copies_of_no_use_are_counted_and_not_delivered(real: Make, kind: str) -> None:
    ends = real(3, CompleteTopology(), kind)
    good = content_of(0, 1)
    bad = [
        {"parameters": good[:-1]},
        {"parameters": np.where(good == good[2], np.float32(np.nan), good)},
        {"parameters": np.where(good == good[0], np.float32(np.inf), good)},
        {"parameters": good[None]},
        {"other": good},
        {},
    ]
    for number, tensors in enumerate(bad, start=1):
        ends.raw(0, 1, Message(COPY, 0, 77, number, 0.0, {"round": 1}, tensors))
        unusable(ends, number)
    assert ends.carriers[1].link_table()["unusable"].tolist() == [len(bad), 0, 0]
    ends.raw(0, 1, Message(COPY, 0, 77, 100, 0.0, {"round": 1}, {"parameters": good}))
    assert [h.content for h in ends.hear_all(1)] == [good.tolist()]
    assert ends.carriers[1].counts.delivered == 1 and ends.unusable() == len(bad)


def test_copies_from_nobody_in_the_run_are_of_no_use(real: Make) -> None:
    ends = real(3, CompleteTopology())
    for number, sender in enumerate((3, 999_999, -1, 1), start=1):
        tensors = {"parameters": content_of(0, 1)}
        ends.raw(0, 1, Message(COPY, sender, 77, number, 0.0, {"round": 1}, tensors))
        unusable(ends, number)
    assert ends.carriers[1].counts.delivered == 0


def test_without_cargo_copies_are_of_no_use(real: Make) -> None:
    ends = real(2, CompleteTopology())
    ends.carriers[1].cargo = None
    ends.send(0, 1)
    wait_until(lambda: ends.hear(agents=[1]) or ends.carriers[1].unusable == 1)


def test_other_messages_go_elsewhere_and_are_not_counted(real: Make) -> None:
    ends = real(2, CompleteTopology())
    got: list[Message] = []
    ends.carriers[1].other = got.append
    ends.carriers[0].tell(np.array([1]), "policy", 3.0, {"step": 4}, {"weights": np.ones(3)})
    ends.send(0, 1)
    assert [h.round for h in ends.hear_all(1)] == [1]
    assert [(m.kind, m.sender, m.fields, m.sent_s) for m in got] == [("policy", 0, {"step": 4}, 3.0)]
    assert ends.totals().sent == ends.totals().delivered == 1


def test_a_flood_is_read_in_parts(real: Make) -> None:
    ends = real(2, CompleteTopology())
    for k in range(20):
        ends.send(0, k)
    parts: list[int] = []

    def all_read() -> bool:
        parts.append(len(ends.hear(agents=[1])))
        return sum(parts) == 20

    time.sleep(SETTLED_S)
    wait_until(all_read)
    assert max(parts) == 8


# ---------------------------------------------------------------- slow peers


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the memory figures of Linux")
def test_a_peer_that_never_reads_costs_bounded_memory_and_hears_the_newest_when_it_does(real: Make) -> None:
    megabyte, messages = 1 << 20, 300
    ends = real(3, CompleteTopology(), width=megabyte // 4, unsent=2, unread=2)
    shelf = ends.shelves[0]
    sizes = []
    for k in range(messages):
        shelf.kept = []
        ends.send(0, k)
        ends.hear(agents=[2])
        ends.shelves[2].kept = []
        ends.pump(0.0)
        sizes.append(resident_bytes())
    assert max(sizes) - sizes[20] < 30 * megabyte, "of the 300 MB that were sent"
    assert ends.carriers[0].counts.queue_dropped > messages // 2
    assert ends.carriers[0].counts.in_flight >= 1
    heard = ends.hear_out()
    of_slow = [h.round for h in heard if h.receiver == 1]
    assert of_slow == sorted(of_slow) and of_slow[-1] == messages - 1
    counts = ends.totals()
    assert counts.in_flight == 0 and ended(counts) == counts.sent == 2 * messages
    assert counts.bytes_sent == SIZE_BYTES * (counts.sent - counts.queue_dropped)


def test_only_copies_are_counted_among_what_a_slow_peer_misses(real: Make) -> None:
    ends = real(2, CompleteTopology(), width=1 << 18, unsent=1, unread=1)
    sender = ends.carriers[0]
    weights = {"weights": np.zeros(1 << 18, dtype=np.float32)}
    for k in range(60):
        if k % 2:
            sender.tell(np.array([1]), "policy", 0.0, {}, weights)
        else:
            ends.send(0, k)
    assert ends.outbox(0, 1).dropped > 20
    ends.hear_out()
    counts = ends.totals()
    assert counts.in_flight == 0 and 0 < counts.queue_dropped < 30
    assert ended(counts) == counts.sent == 30


def test_the_newest_of_each_kind_waits(real: Make) -> None:
    ends = real(2, CompleteTopology(), width=1 << 18, unsent=1, unread=1)
    ends.shelves[0].kinds = 2
    ends.clog(0)
    before = ends.carriers[0].counts.queue_dropped
    for k in (2, 4, 6, 7):  # the last one alone is of the second kind
        ends.send(0, k)
    assert ends.carriers[0].counts.in_flight == 2
    assert ends.carriers[0].counts.queue_dropped - before == 3
    heard = [h.round for h in ends.hear_out()]
    assert heard[-2:] == [6, 7] and set(heard[:-2]) == {0}
    counts = ends.totals()
    assert counts.in_flight == 0 and ended(counts) == counts.sent
    assert counts.bytes_sent == SIZE_BYTES * (counts.sent - counts.queue_dropped)


def test_what_waits_when_a_process_ends_is_lost(real: Make) -> None:
    ends = real(2, CompleteTopology(), width=1 << 18, unsent=1, unread=1)
    ends.clog(0)
    old = ends.carriers[0]
    assert old.counts.in_flight == 1
    again = real(2, CompleteTopology()).carriers[0]
    again.load_state(old.state())
    assert again.counts.lost == 1 and again.counts.in_flight == 0
    assert again.counts.missing() == old.counts.missing()


# ---------------------------------------------------------------- the emulated network

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


def test_an_edge_of_one_direction_carries_one_way(real: Make) -> None:
    ends = real(2, EdgeListTopology(edges=((0, 1),), directed=True))
    ends.send(1, 1)
    ends.send(0, 1)
    assert [h.receiver for h in ends.hear_all(1)] == [1]
