"""Sockets that messages go by: `Outbox` to `Inbox` between agents, `Line` to `Hub` between agents and world.

None of them ever blocks, and what a peer does can neither stop them nor make them keep more than the limits
and the high-water marks say. Messages that may not come in are counted and dropped.
"""

from __future__ import annotations

import errno
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import zmq

from network.errors import EndpointError, WireError
from network.keys import WORLD
from network.security import Security
from network.watch import Watch
from network.wire import WORLD_NUMBER, Limits, Message, decode

__all__ = ["Hub", "Inbox", "Line", "Outbox", "Security", "Watch"]

GIVE_UP_S = 20.0
"""A peer's system that has not answered for so long is given up, by means of TCP. ZeroMQ's heartbeats are not
used: libzmq 4.3.5 aborts the whole process (its issue 4364) when one falls due on a connection that has
broken while messages of the peer waited to be read."""
HANDSHAKE_S = 10.0
RECONNECT_S = (0.1, 2.0)
"""Wait before connecting again: the first one, and what its doublings end at."""

_DISCONNECT_S = 0.1
_REFUSED_PER_CALL = 256
_OLD_SESSIONS = 1024
# Encryption and framing add some bytes to a frame, of which ZeroMQ checks the whole.
_FRAME_OVERHEAD = 1024

Frames = Sequence[bytes | memoryview]


class Inbox:
    """A bound socket that any member may send to."""

    def __init__(
        self, context: zmq.Context[Any], security: Security, limits: Limits, high_water_mark: int = 64
    ) -> None:
        """``high_water_mark``: messages kept unread for each connection; then its sender has to wait."""
        self.socket = _new_socket(context, zmq.PULL, security.secure_server, high_water_mark, limits)
        self._security = security
        self._entry = _Entry(security, limits)

    @property
    def counts(self) -> Counter[str]:
        """Messages refused: "malformed", "oversized", "version", "replayed" or "impostor"."""
        return self._entry.counts

    def bind(self, endpoint: str) -> str:
        """Listen there, and return the address in full: ``tcp://127.0.0.1:*`` lets the system choose a port.

        Raises EndpointError.
        """
        return _bind(self.socket, self._security, endpoint)

    def receive(self) -> Message | None:
        """The next message that may come in; None if there is none now."""
        return self._entry.next_of(self.socket)

    def close(self) -> None:
        self.socket.close(linger=0)


class Outbox:
    """A connected socket to the inbox of one peer; of what cannot be sent yet it keeps each kind's newest."""

    def __init__(
        self, context: zmq.Context[Any], security: Security, peer_name: str, high_water_mark: int = 2
    ) -> None:
        """Raises KeyFileError if the peer is no member."""
        secure = partial(security.secure_client, peer_name=peer_name)
        self.socket = _new_socket(context, zmq.PUSH, secure, high_water_mark)
        self._security = security
        self._endpoint: str | None = None
        self._waiting: dict[str, Frames] = {}
        self.dropped = 0
        """Messages that a newer one of their kind has displaced."""

    @property
    def waiting(self) -> frozenset[str]:
        """The kinds of the messages that could not be sent yet."""
        return frozenset(self._waiting)

    def connect(self, endpoint: str) -> None:
        """Send there from now on, whether or not anybody listens yet; raises EndpointError."""
        self._endpoint = _connect(self.socket, self._security, self._endpoint, endpoint)

    def offer(self, message: Frames, kind: str = "") -> bool:
        """Send a message, or keep it until `flush`; False if that displaced an older one of its kind.

        The frames of a message that is kept must not change.
        """
        if self.flush() and _send(self.socket, message):
            return True
        displaced = self._waiting.pop(kind, None) is not None
        self.dropped += displaced
        self._waiting[kind] = message  # behind all others: receivers want them in the order of their numbers
        return not displaced

    def flush(self) -> bool:
        """Try to send what waits, oldest first; whether nothing waits any more."""
        for kind, message in list(self._waiting.items()):
            if not _send(self.socket, message):
                return False
            del self._waiting[kind]
        return True

    def close(self, linger_s: float = 0.0) -> None:
        """Give up what waits after one more try; what was sent may take ``linger_s`` seconds to leave."""
        self.flush()
        self._waiting = {}
        self.socket.close(linger=round(linger_s * 1000))


class Hub:
    """The world's bound socket, which every agent's line is connected to."""

    def __init__(
        self, context: zmq.Context[Any], security: Security, limits: Limits, high_water_mark: int = 64
    ) -> None:
        """``high_water_mark``: messages kept for each connection, unread and unsent."""
        self.socket = _new_socket(context, zmq.ROUTER, security.secure_server, high_water_mark, limits)
        self.socket.router_mandatory = True  # an error for who is not there, not silence
        self._security = security
        self._entry = _Entry(security, limits)
        self._routes: dict[int, bytes] = {}

    @property
    def counts(self) -> Counter[str]:
        """Messages refused: "malformed", "oversized", "version", "replayed" or "impostor"."""
        return self._entry.counts

    @property
    def agents(self) -> tuple[int, ...]:
        """Those who have been heard, in order of their first message; some may be gone."""
        return tuple(self._routes)

    def bind(self, endpoint: str) -> str:
        """Listen there, and return the address in full; raises EndpointError."""
        return _bind(self.socket, self._security, endpoint)

    def receive(self) -> Message | None:
        """The next message of an agent that may come in; None if there is none now."""
        for _ in range(_REFUSED_PER_CALL):
            frames = _frames(self.socket)
            if frames is None:
                return None
            message = self._entry.admit(frames[1:])
            if message is None:
                continue
            if message.sender == WORLD_NUMBER:
                self._entry.counts["impostor"] += 1
                continue
            self._routes[message.sender] = frames[0].bytes
            return message
        return None

    def send(self, agent: int, frames: Frames) -> bool:
        """Send to an agent by the connection that it was last heard on; False if that cannot take it now.

        After a reconnection an agent must be heard before it can be sent to.
        """
        route = self._routes.get(agent)
        return route is not None and _send(self.socket, [route, *frames])

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what was sent may take ``linger_s`` seconds to leave."""
        self.socket.close(linger=round(linger_s * 1000))


class Line:
    """An agent's socket to the world's hub."""

    def __init__(
        self, context: zmq.Context[Any], security: Security, limits: Limits, high_water_mark: int = 64
    ) -> None:
        """Raises KeyFileError if there is no member "world"."""
        secure = partial(security.secure_client, peer_name=WORLD)
        self.socket = _new_socket(context, zmq.DEALER, secure, high_water_mark, limits)
        self._security = security
        self._endpoint: str | None = None
        self._entry = _Entry(None, limits)

    @property
    def counts(self) -> Counter[str]:
        """Messages refused: "malformed", "oversized", "version", "replayed" or "impostor"."""
        return self._entry.counts

    def connect(self, endpoint: str) -> None:
        """Connect there from now on, whether or not anybody listens yet; raises EndpointError."""
        self._endpoint = _connect(self.socket, self._security, self._endpoint, endpoint)

    def send(self, frames: Frames) -> bool:
        """Send to the world; False if it is not there, or has too much unread."""
        return _send(self.socket, frames)

    def receive(self) -> Message | None:
        """The next message of the world that may come in; None if there is none now."""
        return self._entry.next_of(self.socket)

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what was sent may take ``linger_s`` seconds to leave."""
        self.socket.close(linger=round(linger_s * 1000))


class _Entry:
    """Lets messages in that are well-formed, of who they say, and new; counts the others by reason."""

    def __init__(self, security: Security | None, limits: Limits) -> None:
        """``security``: what checks the sender; None if it can only be the world."""
        self._security = security
        self._limits = limits
        self._last: dict[int, tuple[int, int]] = {}
        self._ended: dict[int, OrderedDict[int, None]] = {}
        self.counts: Counter[str] = Counter()

    def next_of(self, socket: zmq.Socket[bytes]) -> Message | None:
        """The next message there that may come in; None if there is none now."""
        for _ in range(_REFUSED_PER_CALL):
            frames = _frames(socket)
            if frames is None:
                return None
            message = self.admit(frames)
            if message is not None:
                return message
        return None

    def admit(self, frames: Sequence[zmq.Frame]) -> Message | None:
        """The message in these frames, or None if it was refused."""
        try:
            message = decode([frame.buffer for frame in frames], self._limits)
        except WireError as error:
            self.counts[error.reason] += 1
            return None
        if not self._is_genuine(frames[0], message.sender):
            self.counts["impostor"] += 1
            return None
        if not self._is_new(message):
            self.counts["replayed"] += 1
            return None
        return message

    def _is_genuine(self, frame: zmq.Frame, sender: int) -> bool:
        if self._security is None:
            return sender == WORLD_NUMBER  # whose key the connection was made with
        return self._security.is_from(frame, sender)

    def _is_new(self, message: Message) -> bool:
        """Note a message's number; False if it is not above the last one, or of a session that has ended.

        A session ends when its sender is heard in another one. Sessions need not grow, as the clock of a
        device may be behind after a restart. The last 1,024 that have ended are known for each sender.
        """
        session, sequence = self._last.get(message.sender, (None, -1))
        if session == message.session:
            if message.sequence <= sequence:
                return False
        elif session is not None:
            ended = self._ended.setdefault(message.sender, OrderedDict())
            if message.session in ended:
                return False
            ended[session] = None
            if len(ended) > _OLD_SESSIONS:
                ended.popitem(last=False)
        self._last[message.sender] = (message.session, message.sequence)
        return True


def _new_socket(
    context: zmq.Context[Any],
    kind: int,
    secure: Callable[[zmq.Socket[bytes]], None],
    high_water_mark: int,
    limits: Limits | None = None,
) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    try:
        secure(socket)
    except BaseException:
        socket.close()
        raise
    socket.linger = 0
    socket.set_hwm(high_water_mark)
    socket.maxmsgsize = _FRAME_OVERHEAD + (limits.message_bytes if limits is not None else 0)
    socket.immediate = True  # nothing piles up for a peer that is not there
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 10
    socket.tcp_keepalive_intvl = 5
    socket.tcp_keepalive_cnt = 2
    socket.handshake_ivl = round(HANDSHAKE_S * 1000)
    socket.reconnect_ivl, socket.reconnect_ivl_max = (round(wait_s * 1000) for wait_s in RECONNECT_S)
    if kind in (zmq.PULL, zmq.ROUTER):
        # What a bound socket says must be acknowledged in time. Not so what is said to it: it may be full.
        socket.tcp_maxrt = round(GIVE_UP_S * 1000)
    return socket


def _bind(socket: zmq.Socket[bytes], security: Security, endpoint: str) -> str:
    security.check_endpoint(endpoint)
    socket.ipv6 = "[" in endpoint
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise EndpointError(
            "endpoint", endpoint, "a free address of this machine", f"choose another one ({error.strerror})"
        ) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _connect(socket: zmq.Socket[bytes], security: Security, old: str | None, endpoint: str) -> str:
    """Connect to an endpoint instead of the old one, unless it is the same."""
    security.check_endpoint(endpoint)
    if endpoint == old:
        return endpoint
    if old is not None:
        socket.disconnect(old)
        # It does so in its own time, and until then would take messages for nobody.
        deadline_s = time.monotonic() + _DISCONNECT_S
        while socket.poll(0, zmq.POLLOUT) and time.monotonic() < deadline_s:
            time.sleep(0.0005)
    socket.ipv6 = "[" in endpoint
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise EndpointError(
            "endpoint", endpoint, "tcp://HOST:PORT or ipc://PATH", f"correct the address ({error.strerror})"
        ) from error
    return endpoint


def _send(socket: zmq.Socket[bytes], frames: Frames) -> bool:
    """Whether the frames could be handed to ZeroMQ at once."""
    try:
        socket.send_multipart(frames, zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (errno.EAGAIN, errno.EHOSTUNREACH):
            return False
        raise
    return True


def _frames(socket: zmq.Socket[bytes]) -> list[zmq.Frame] | None:
    """The frames of the next message, with what is known of their connection; None if there is none."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
