"""Attackers against real sockets: none gets a message in, and good messages still come through afterwards."""

from __future__ import annotations

import os
import socket
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from network import sockets
from network.keys import Identity, Members
from network.sockets import Hub, Inbox
from network.wire import Limits
from tests.network.processes import Deployment, Process, frames, never, until

FUZZ_FRAMES = int(os.environ.get("F2A2_FUZZ_FRAMES", "2000"))
LIMITS = Limits(header_bytes=4096, message_bytes=100_000, tensors=4)


class Target:
    """A hub or an inbox, with a good agent that can tell whether it still works."""

    def __init__(self, deployment: Deployment, kind: str) -> None:
        self.name = "world" if kind == "hub" else "agent-1"
        self.process = deployment.process(self.name, limits=LIMITS)
        self.socket: Hub | Inbox
        self.socket, self.endpoint = self.process.hub() if kind == "hub" else self.process.inbox()
        self.attacker_kind = zmq.DEALER if kind == "hub" else zmq.PUSH
        self._good = deployment.process("agent-0").raw(self.attacker_kind, self.endpoint, self.name)
        self._sent = 0
        self.counts = self.socket.counts

    def works(self) -> None:
        """A good message comes through, and nothing before it."""
        self._sent += 1
        self._good.send_multipart(frames(0, self._sent))
        message = until(self.socket.receive)
        assert (message.sender, message.sequence) == (0, self._sent)

    def refused(self, **reasons: int) -> None:
        """Nothing comes in until so many have been refused."""
        until(lambda: self.nothing() and self.counts.total() >= sum(reasons.values()))
        assert self.counts == reasons
        self.works()

    def nothing(self) -> bool:
        assert self.socket.receive() is None
        return True


@pytest.fixture(params=["hub", "inbox"])
def target(request: pytest.FixtureRequest, secure: Deployment) -> Target:
    made = Target(secure, request.param)
    made.works()
    return made


def stranger(secure: Deployment, name: str = "agent-2") -> tuple[Process, Members]:
    """A process with new keys under a member's name, and a list that has them."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    theirs = {member: secure.members.public_key(member) for member in secure.members.names}
    members = Members({**theirs, name: public})
    return secure.process(name, members=members, identity=Identity(name, public, secret)), members


# ---------------------------------------------------------------- who is not a member


def test_a_client_without_keys_gets_nowhere(target: Target, secure: Deployment) -> None:
    attacker = secure.process("agent-2")
    plain = attacker.raw(target.attacker_kind)
    watch = attacker.watch(plain, target.name)
    plain.connect(target.endpoint)
    plain.send_multipart(frames(2, 1))
    assert until(watch.events)[0].startswith(f"handshake with {target.name} failed")
    target.nothing()
    target.works()
    assert not target.counts


def test_a_key_that_is_no_members_gets_nowhere(secure: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_S", 0.3)
    target = Target(secure, "hub")
    target.works()
    attacker, _ = stranger(secure)
    raw = attacker.raw(zmq.DEALER)
    watch = attacker.watch(raw, "world")
    attacker.security.secure_client(raw, "world")
    raw.connect(target.endpoint)
    raw.send_multipart(frames(2, 1))
    until(lambda: target.process.security.counts["unknown_key"] >= 2)  # it tries again, in vain
    refused = "refused a connection with a key that is no member's ({} so far)".format
    assert target.process.security.events()[:2] == [refused(1), refused(2)]
    assert until(watch.events) == ["handshake with world failed (not a member, or another key?)"]
    assert target.process.security.counts["admitted"] == 1
    target.nothing()
    target.works()
    assert not target.counts


def test_a_wrong_server_is_told_nothing(secure: Deployment) -> None:
    impostor, _ = stranger(secure, "world")
    hub, endpoint = impostor.hub()
    agent = secure.process("agent-0")
    line = agent.line("tcp://127.0.0.1:1")
    watch = agent.watch(line.socket, "world")
    line.connect(endpoint)
    assert until(watch.events) == ["handshake with world failed (not a member, or another key?)"]
    never(lambda: line.send(frames(0, 1)) or line.receive() or hub.receive(), 0.1)
    hub.close()
    good, _ = secure.process("world").hub(endpoint)  # the line finds the right one in the same place
    until(lambda: line.send(frames(0, 2)))
    assert until(good.receive).sequence == 2
    assert watch.events() == ["world connected"]
    good.close()
    assert until(watch.events) == ["world disconnected"]


def test_who_becomes_a_member_gets_in_without_a_restart(secure: Deployment) -> None:
    others = {name: secure.members.public_key(name) for name in ("world", "agent-1")}
    world = secure.process("world", members=Members(others))
    hub, endpoint = world.hub()
    line = secure.process("agent-0").line(endpoint)
    until(lambda: world.security.counts["unknown_key"])
    world.close()
    hub, _ = secure.process("world").hub(endpoint)
    until(lambda: line.send(frames(0, 1)))
    assert until(hub.receive).sender == 0


def test_without_its_authenticator_a_server_lets_nobody_in(target: Target, secure: Deployment) -> None:
    target.process.security.close()
    late = secure.process("agent-2")
    raw = late.raw(target.attacker_kind)
    watch = late.watch(raw, target.name)
    late.security.secure_client(raw, target.name)
    raw.connect(target.endpoint)
    raw.send_multipart(frames(2, 1))
    never(lambda: target.socket.receive() or f"{target.name} connected" in watch.events(), 0.3)
    target.works()  # who was in stays in


def test_random_bytes_over_tcp_are_no_connection(target: Target) -> None:
    rng = np.random.default_rng(3)
    host, port = target.endpoint.removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01"
    for start in (b"", greeting, greeting + b"CURVE".ljust(20, b"\0") + bytes(32)):
        for _ in range(20):
            with socket.create_connection((host, int(port))) as raw:
                try:
                    raw.sendall(start + rng.bytes(int(rng.integers(1, 3000))))
                except ConnectionError:
                    continue
    target.nothing()
    target.works()
    assert not target.counts


def test_who_connects_and_says_nothing_is_put_out(
    secure: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_S", 0.1)
    _, endpoint = secure.process("world").hub()
    with socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), timeout=10.0) as idle:
        while idle.recv(1000):  # a greeting, then the end
            pass


# ---------------------------------------------------------------- members that misbehave


def member(target: Target, secure: Deployment, name: str = "agent-2") -> zmq.Socket[bytes]:
    """A connection of a member, to send anything over."""
    return secure.process(name).raw(target.attacker_kind, target.endpoint, target.name)


@pytest.mark.parametrize("claimed", [0, 1, 3, 12, -1])
def test_a_member_cannot_speak_for_another(target: Target, secure: Deployment, claimed: int) -> None:
    raw = member(target, secure)
    raw.send_multipart(frames(claimed, 10**6))
    raw.send_multipart(frames(claimed, 1, session=99))
    target.refused(impostor=2)
    raw.send_multipart(frames(2, 1))  # for itself it can
    assert until(target.socket.receive).sender == 2
    if isinstance(target.socket, Hub):
        assert set(target.socket.agents) == {0, 2}


def test_an_impostor_gets_no_messages_of_the_one_it_claims_to_be(secure: Deployment) -> None:
    hub, endpoint = secure.process("world").hub()
    good = secure.process("agent-0").line(endpoint)
    until(lambda: good.send(frames(0, 1)))
    until(hub.receive)
    bad = secure.process("agent-2").line(endpoint)
    until(lambda: bad.send(frames(0, 2)))
    until(lambda: hub.receive() or hub.counts["impostor"])
    assert hub.send(0, frames(-1, 1))
    assert until(good.receive).sequence == 1
    assert bad.receive() is None


def test_the_world_is_not_to_be_played_at_its_own_hub(deployment: Deployment) -> None:
    hub, endpoint = deployment.process("world").hub()
    line = deployment.process("world").line(endpoint)
    until(lambda: line.send(frames(-1, 1)))
    until(lambda: hub.receive() or hub.counts["impostor"])
    assert hub.counts == {"impostor": 1} and hub.agents == ()


def test_a_line_hears_only_the_world(deployment: Deployment) -> None:
    hub, endpoint = deployment.process("world").hub()
    line = deployment.process("agent-0").line(endpoint)
    until(lambda: line.send(frames(0, 1)))
    until(hub.receive)
    for message in (frames(1, 1), frames(-1, 1), frames(-1, 1), [b"junk"], frames(-1, 2)):
        assert hub.send(0, message)
    assert [until(line.receive).sequence for _ in range(2)] == [1, 2]
    assert line.counts == {"impostor": 1, "replayed": 1, "malformed": 1}


def test_a_replay_is_refused(target: Target, secure: Deployment) -> None:
    raw = member(target, secure)
    for sequence, session in [(5, 1), (6, 1), (1, 2)]:
        raw.send_multipart(frames(2, sequence, session))
        assert until(target.socket.receive).sequence == sequence
    for sequence, session in [(1, 2), (0, 2), (6, 1), (7, 1), (10**6, 1)]:
        raw.send_multipart(frames(2, sequence, session))
    target.refused(replayed=5)
    raw.send_multipart(frames(2, 9, 2))
    assert until(target.socket.receive).sequence == 9


def test_old_sessions_do_not_pile_up(target: Target, secure: Deployment) -> None:
    raw = member(target, secure)
    for session in range(1200):
        raw.send_multipart(frames(2, 1, session))
        assert until(target.socket.receive).session == session
    ended: dict[int, Any] = target.socket._entry._ended
    assert len(ended[2]) == 1024
    raw.send_multipart(frames(2, 2, 1000))
    target.refused(replayed=1)


def test_what_is_too_large_is_refused_and_what_is_far_too_large_not_even_read(
    target: Target, secure: Deployment
) -> None:
    raw = member(target, secure)
    good = frames(2, 1)
    raw.send_multipart([bytes(LIMITS.header_bytes + 1)])
    raw.send_multipart([good[0], bytes(60_000), bytes(60_000)])
    raw.send_multipart([good[0], *[b""] * 50])
    claim = msgpack.unpackb(good[0])
    claim["tensors"] = [["weight", "float64", [2**60]]]
    raw.send_multipart([msgpack.packb(claim), b"tiny"])
    target.refused(oversized=4)

    watch = target.process.watch(raw, target.name)
    raw.send(bytes(LIMITS.message_bytes + 10_000))  # ends the connection, which is made anew
    seen: list[str] = []
    until(lambda: target.nothing() and (seen.extend(watch.events()) or len(seen) >= 2))
    assert seen == [f"{target.name} disconnected", f"{target.name} connected"]
    raw.send_multipart(frames(2, 1))
    assert until(target.socket.receive).sender == 2
    target.refused(oversized=4)


def test_random_frames_of_a_member_do_not_come_in(target: Target, secure: Deployment) -> None:
    raw = member(target, secure)
    rng = np.random.default_rng(4)
    good = [bytearray(frame) for frame in frames(2, 1)]
    sent = 0
    while sent < FUZZ_FRAMES // 4:
        if sent % 2:
            spoilt = [rng.bytes(int(rng.integers(0, 50))) for _ in range(rng.integers(1, 5))]
        else:
            spoilt = [bytes(good[0][: rng.integers(len(good[0]))]), bytes(good[1])]
        raw.send_multipart(spoilt)
        sent += 1
        if sent % 50 == 0:
            until(lambda: target.nothing() and target.counts.total() == sent)  # noqa: B023
    assert target.counts.total() == sent
    target.works()


def test_a_flood_of_bad_messages_does_not_hold_the_receiver(
    target: Target, secure: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = member(target, secure)
    for _ in range(1000):
        raw.send(b"junk")
    target.refused(malformed=1000)

    endless = iter([[zmq.Frame(b"route"), zmq.Frame(b"junk")]] * 2000)
    with monkeypatch.context() as patch:
        patch.setattr(sockets, "_frames", lambda socket: next(endless))
        assert target.socket.receive() is None
    assert 1000 < target.counts["malformed"] < 2000
    target.works()


def test_junk_without_keys_is_counted_too(keys: tuple[Members, dict[str, Identity]]) -> None:
    open_to_all = Deployment(*keys, curve=False)
    try:
        target = Target(open_to_all, "hub")
        target.works()
        raw = open_to_all.process("agent-2").raw(zmq.DEALER, target.endpoint)
        for junk in (b"", b"junk", bytes(5000)):
            raw.send(junk)
        raw.send_multipart(frames(2, 1)[:1])
        target.refused(malformed=3, oversized=1)
    finally:
        open_to_all.close()
