"""Sockets of a deployment, over TCP within this machine: who hears what, who comes back, who never waits."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq

from network import sockets
from network.errors import EndpointError, KeyFileError
from network.keys import Identity, Members
from network.security import Security
from network.sockets import Inbox, Line, Outbox
from network.wire import Message
from tests.network.processes import ANYWHERE, Deployment, Process, frames, never, until


def numbers(socket: object, count: int) -> list[int]:
    """Sequences of the next ``count`` messages."""
    return [until(socket.receive).sequence for _ in range(count)]  # type: ignore[attr-defined]


def say(line: Line, sender: int, sequence: int, session: int = 1) -> None:
    until(lambda: line.send(frames(sender, sequence, session)))


def delivered(outbox: Outbox, message: list[bytes | memoryview]) -> None:
    outbox.offer(message)
    until(outbox.flush)


def get_through(outbox: Outbox, inbox: Inbox, first: int) -> None:
    """Send newer and newer messages until one arrives: the first ones may go into a breaking connection."""
    sequences = itertools.count(first)
    until(lambda: outbox.offer(frames(0, next(sequences))) and inbox.receive())


# ---------------------------------------------------------------- world and agents


def test_world_and_agents_hear_each_other(deployment: Deployment) -> None:
    hub, endpoint = deployment.process("world").hub()
    lines = [deployment.process(f"agent-{n}").line(endpoint) for n in range(2)]
    for number, line in enumerate(lines):
        say(line, number, 1)
    heard = {message.sender: message for message in (until(hub.receive), until(hub.receive))}
    assert set(heard) == {0, 1} == set(hub.agents)
    assert isinstance(heard[1], Message) and heard[1].fields == {"number": 1}
    np.testing.assert_array_equal(heard[1].tensors["weight"], np.ones(3, dtype=np.float32))
    assert not heard[1].tensors["weight"].flags.writeable
    assert hub.send(1, frames(-1, 5)) and hub.send(0, frames(-1, 6))
    assert [until(line.receive).sequence for line in lines] == [6, 5]
    assert lines[0].receive() is None and hub.receive() is None
    assert not hub.counts and not lines[0].counts


def test_the_hub_does_not_wait_for_who_is_not_there(deployment: Deployment) -> None:
    hub, endpoint = deployment.process("world").hub()
    assert not hub.send(0, frames(-1, 1))
    agent = deployment.process("agent-0")
    line = agent.line(endpoint)
    say(line, 0, 1)
    until(hub.receive)
    line.close()
    sent = [0]

    def gone() -> bool:
        sent[0] += 1
        return not hub.send(0, frames(-1, sent[0]))

    until(gone)


def test_the_hub_does_not_wait_for_who_does_not_read(deployment: Deployment) -> None:
    hub, endpoint = deployment.process("world").hub(high_water_mark=2)
    line = deployment.process("agent-0").line(endpoint, high_water_mark=2)
    say(line, 0, 1)
    until(hub.receive)
    sent = 0
    while hub.send(0, frames(-1, sent + 1, values=250_000)):
        sent += 1
        time.sleep(0.002)
        assert sent < 200
    assert numbers(line, sent) == list(range(1, sent + 1))


def test_a_restarted_agent_takes_its_route_over_and_its_old_session_is_over(deployment: Deployment) -> None:
    hub, endpoint = deployment.process("world").hub()
    old, new = (deployment.process("agent-0").line(endpoint) for _ in range(2))
    say(old, 0, 100, session=7)
    until(hub.receive)
    say(new, 0, 1, session=3)  # a smaller number: its clock may have been behind
    assert until(hub.receive).session == 3
    assert hub.send(0, frames(-1, 1))
    assert until(new.receive).sequence == 1 and old.receive() is None
    say(old, 0, 101, session=7)
    until(lambda: hub.receive() or hub.counts["replayed"])
    assert hub.counts == {"replayed": 1}
    assert hub.send(0, frames(-1, 2))
    assert until(new.receive).sequence == 2 and old.receive() is None


def test_a_line_without_a_world_says_so_at_once(deployment: Deployment) -> None:
    world = deployment.process("world")
    hub, endpoint = world.hub()
    hub.close()
    line = deployment.process("agent-0").line(endpoint)
    never(lambda: line.send(frames(0, 1)), 0.1)
    hub, _ = world.hub(endpoint)
    say(line, 0, 2)
    assert numbers(hub, 1) == [2]


# ---------------------------------------------------------------- between agents


def test_an_outbox_keeps_the_newest(deployment: Deployment) -> None:
    outbox = deployment.process("agent-0").outbox("agent-1", None)
    assert outbox.offer(frames(0, 1)) and outbox.waiting and outbox.dropped == 0
    assert not outbox.offer(frames(0, 2)) and not outbox.offer(frames(0, 3))
    assert outbox.waiting and outbox.dropped == 2 and not outbox.flush()
    inbox, endpoint = deployment.process("agent-1").inbox()
    outbox.connect(endpoint)
    until(outbox.flush)
    assert not outbox.waiting
    assert outbox.offer(frames(0, 4))
    assert numbers(inbox, 2) == [3, 4]
    assert outbox.dropped == 2


def test_an_outbox_keeps_the_newest_of_each_kind(deployment: Deployment) -> None:
    outbox = deployment.process("agent-0").outbox("agent-1", None)
    kinds = ["copy", "step", "step", "policy", "copy"]
    kept = [outbox.offer(frames(0, number), kind) for number, kind in enumerate(kinds, 1)]
    assert kept == [True, True, False, True, False]
    assert outbox.waiting == {"copy", "step", "policy"} and outbox.dropped == 2
    inbox, endpoint = deployment.process("agent-1").inbox()
    outbox.connect(endpoint)
    until(outbox.flush)
    assert not outbox.waiting
    assert numbers(inbox, 3) == [3, 4, 5]  # in the order of their numbers, or they would be replays


def test_what_waits_goes_before_what_comes_after_it(deployment: Deployment) -> None:
    inbox, endpoint = deployment.process("agent-1").inbox()
    outbox = deployment.process("agent-0").outbox("agent-1", endpoint)
    outbox.offer(frames(0, 1))
    until(lambda: outbox.socket.getsockopt(zmq.EVENTS) & zmq.POLLOUT)
    assert outbox.offer(frames(0, 2)) and outbox.dropped == 0
    assert numbers(inbox, 2) == [1, 2]


def test_an_outbox_goes_where_the_peer_has_gone(deployment: Deployment) -> None:
    receiver = deployment.process("agent-1")
    (old, first), (new, second) = receiver.inbox(), receiver.inbox()
    outbox = deployment.process("agent-0").outbox("agent-1", first)
    delivered(outbox, frames(0, 1))
    assert numbers(old, 1) == [1]
    outbox.connect(second)
    outbox.connect(second)
    for sequence in (2, 3, 4, 5):
        delivered(outbox, frames(0, sequence))
    assert numbers(new, 4) == [2, 3, 4, 5]
    never(old.receive, 0.05)


def test_a_peer_that_never_reads_costs_little_and_gets_the_newest(deployment: Deployment) -> None:
    receiver, sender = deployment.process("agent-1"), deployment.process("agent-0")
    inbox, endpoint = receiver.inbox(high_water_mark=4)
    outbox = sender.outbox("agent-1", endpoint)
    delivered(outbox, frames(0, 1))
    before = psutil.Process().memory_info().rss
    offered = 1000
    for sequence in range(2, offered + 1):
        outbox.offer(frames(0, sequence, values=100_000))  # 400 MB in all
        if sequence % 10 == 0:
            time.sleep(0.001)
    assert psutil.Process().memory_info().rss - before < 60e6
    assert outbox.waiting
    read = []

    def newest() -> bool:
        outbox.flush()
        message = inbox.receive()
        read.extend([] if message is None else [message.sequence])
        return bool(read) and read[-1] == offered

    until(newest)
    assert read == sorted(read) and len(read) == offered - outbox.dropped
    assert outbox.dropped > 800 and not inbox.counts


def test_closing_may_wait_until_what_was_sent_has_left(deployment: Deployment) -> None:
    inbox, endpoint = deployment.process("agent-1").inbox()
    sender = deployment.process("agent-0")
    outbox = sender.outbox("agent-1", endpoint)
    delivered(outbox, frames(0, 1))
    outbox.offer(frames(0, 2, values=1_000_000))
    outbox.close(linger_s=5.0)
    assert numbers(inbox, 2) == [1, 2]


# ---------------------------------------------------------------- connections that break


def test_a_restart_on_the_same_port_is_found_and_reported(deployment: Deployment) -> None:
    receiver, sender = deployment.process("agent-1"), deployment.process("agent-0")
    inbox, endpoint = receiver.inbox()
    outbox = sender.outbox("agent-1", None)
    watch = sender.watch(outbox.socket, "agent-1")
    assert watch.events() == []
    outbox.connect(endpoint)
    delivered(outbox, frames(0, 1))
    assert numbers(inbox, 1) == [1]
    assert until(watch.events) == ["agent-1 connected"]
    inbox.close()
    assert until(watch.events) == ["agent-1 disconnected"]
    again, _ = deployment.process("agent-1").inbox(endpoint)
    get_through(outbox, again, 2)
    assert until(watch.events) == ["agent-1 connected"]


def test_a_bound_socket_reports_its_peers(deployment: Deployment) -> None:
    world = deployment.process("world")
    hub, endpoint = world.hub()
    watch = world.watch(hub.socket, "an agent")
    lines = [deployment.process(f"agent-{n}").line(endpoint) for n in range(2)]
    seen: list[str] = []
    until(lambda: seen.extend(watch.events()) or len(seen) == 2)
    lines[0].close()
    until(lambda: seen.extend(watch.events()) or len(seen) == 3)
    assert seen == ["an agent connected", "an agent connected", "an agent disconnected"]


def test_watches_close_before_their_socket_or_after(deployment: Deployment) -> None:
    agent = deployment.process("agent-0")
    for first in ("watch", "socket"):
        outbox = agent.outbox("agent-1", None)
        watch = agent.watch(outbox.socket, "agent-1")
        for thing in (watch, outbox) if first == "watch" else (outbox, watch):
            thing.close()
            thing.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "GIVE_UP_S", 0.4)


FLOOD = """
import sys, time
import numpy as np
import zmq
from network.sockets import Inbox, Outbox, Security
from network.wire import Limits, Message, encode

busy, gone = zmq.Context(), zmq.Context()
inbox = Inbox(busy, Security.insecure(), Limits(), high_water_mark=2)
outbox = Outbox(gone, Security.insecure(), "agent-0")
outbox.connect(inbox.bind("tcp://127.0.0.1:*"))
outbox.socket.poll(5000, zmq.POLLOUT)
for number in range(1, 40):
    outbox.offer(encode(Message("copy", 1, 5, number, 0.0, {}, {"numbers": np.zeros(200_000)})))
    time.sleep(0.01)
outbox.close()
gone.term()
time.sleep(2.5)  # a learner at work
assert inbox.receive() is not None
inbox.close()
busy.term()
"""


def test_a_peer_that_dies_while_its_messages_wait_takes_nobody_with_it() -> None:
    """ZeroMQ's heartbeats would end the process that does not read, at the next one that falls due."""
    done = subprocess.run([sys.executable, "-c", FLOOD], timeout=30.0, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("impatient")
def test_a_peer_that_is_full_is_not_given_up(secure: Deployment) -> None:
    inbox, endpoint = secure.process("agent-1").inbox(high_water_mark=2)
    sender = secure.process("agent-0")
    outbox = sender.outbox("agent-1", None)
    watch = sender.watch(outbox.socket, "agent-1")
    outbox.connect(endpoint)
    offered = 0

    def full() -> bool:
        nonlocal offered
        offered += 1
        outbox.offer(frames(0, offered, values=500_000))
        return outbox.dropped > 20

    until(full)
    assert watch.events() == ["agent-1 connected"]
    never(watch.events, 1.0)
    kept = offered - outbox.dropped
    read: list[int] = []
    while len(read) < kept:
        until(lambda: outbox.flush() or True)
        read += numbers(inbox, 1)
    assert read[-1] == offered and not inbox.counts


# ---------------------------------------------------------------- addresses and keys


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://192.168.1.5:5555",
        "tcp://localhost:5555",
        "tcp://example.org:5555",
        "tcp://eth0:5555",
        "tcp://[::]:5555",
        "tcp://[::ffff:10.0.0.1]:5555",
        "tcp://10.0.0.1:0;127.0.0.1:5555",
        "tcp://127.0.0.1:5;10.0.0.1:5555",
        "tcp://127.0.0.1.example.org:5555",
        "tcp://127.0.0.1",
        "udp://127.0.0.1:5555",
        "ws://127.0.0.1:5555",
        "127.0.0.1:5555",
        "tcp://",
        "",
    ],
)
def test_without_keys_nothing_leaves_the_machine(endpoint: str) -> None:
    agent = Process(Security.insecure(), sockets.Limits())
    try:
        for attempt in (agent.inbox, agent.hub, agent.line, lambda where: agent.outbox("agent-1", where)):
            with pytest.raises(EndpointError, match="endpoint = "):
                attempt(endpoint)
    finally:
        agent.close()


def test_every_kind_of_address_of_this_machine_carries_messages(
    deployment: Deployment, tmp_path: Path
) -> None:
    receiver, sender = deployment.process("agent-1"), deployment.process("agent-0")
    inbox, _ = receiver.inbox("tcp://127.0.0.2:*")
    endpoints = [inbox.socket.getsockopt_string(zmq.LAST_ENDPOINT), inbox.bind(f"ipc://{tmp_path}/inbox")]
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        endpoints.append(inbox.bind("tcp://[::1]:*"))  # where the machine has IPv6
    for sequence, endpoint in enumerate(endpoints, start=1):
        delivered(sender.outbox("agent-1", endpoint), frames(0, sequence))
        assert numbers(inbox, 1) == [sequence]


def test_addresses_that_cannot_be_had_are_named(secure: Deployment) -> None:
    world = secure.process("world")
    _, taken = world.hub()
    with pytest.raises(EndpointError, match=rf"endpoint = '{taken}': expected a free address"):
        world.hub(taken)
    with pytest.raises(EndpointError, match="inproc:// knows no keys"):
        world.hub("inproc://hub")
    with pytest.raises(EndpointError, match="correct the address"):
        secure.process("agent-0").line("tcp://no port")


def test_an_identity_has_to_be_that_of_the_list(keys: tuple[Members, dict[str, Identity]]) -> None:
    members, identities = keys
    other = identities["agent-1"]
    with pytest.raises(KeyFileError, match="expected the key that members"):
        Security.curve(Identity("agent-0", other.public_key, other.secret_key), members)
    with pytest.raises(KeyFileError, match="member = 'agent-9'"):
        Security.curve(Identity("agent-9", other.public_key, other.secret_key), members)


def test_peers_have_to_be_members(secure: Deployment) -> None:
    with pytest.raises(KeyFileError, match="member = 'agent-9'"):
        secure.process("agent-0").outbox("agent-9", None)


def test_one_security_guards_one_context(secure: Deployment) -> None:
    agent, other = secure.process("agent-0"), secure.process("agent-1")
    agent.security.gate(agent.context)
    agent.security.gate(agent.context)
    with pytest.raises(ValueError, match="one context"):
        agent.security.gate(other.context)
    agent.security.close()
    agent.security.close()


def test_counts_of_a_hub_begin_at_nothing(secure: Deployment) -> None:
    hub, _ = secure.process("world").hub(ANYWHERE)
    assert hub.receive() is None and hub.counts.total() == 0
