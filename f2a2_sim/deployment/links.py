"""An agent's sockets: its line to the world, its inbox, and an outbox to each peer that it sends to."""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import zmq

from f2a2_sim.deployment.messages import Fields
from network.errors import EndpointError
from network.keys import agent_name
from network.sockets import Inbox, Line, Outbox, Security, Watch
from network.voice import Voice
from network.wire import Limits

_LINGER_S = 5.0
_INBOX_MESSAGES = 8  # unread from each peer, before it has to wait
_OUTBOX_MESSAGES = 4  # on their way to a slow peer, before each kind's newest waits


class AgentLinks:
    """Opened at once; to be closed whatever happens."""

    def __init__(
        self,
        world: str,
        bind: str,
        address: str | None,
        security: Security,
        voice: Voice,
        log: Callable[[str], None],
    ) -> None:
        """``world``: its endpoint; ``bind``: where to listen to peers, who use ``address`` if there is one.

        Raises EndpointError, KeyFileError.
        """
        self._security = security
        self._voice = voice
        self._log = log
        self._context: zmq.Context[Any] = zmq.Context()
        self._watches: dict[str, Watch] = {}
        self._endpoints: dict[int, str] = {}
        self._outboxes: dict[int, Outbox] = {}
        self._connected: set[str] = set()
        self._closing: list[Callable[[], None]] = [self._context.term, security.close]
        try:
            self._open(world, bind, address)
        except BaseException:
            self.close()
            raise

    def _open(self, world: str, bind: str, address: str | None) -> None:
        limits = Limits()
        self._security.gate(self._context)
        self.line = Line(self._context, self._security, limits)
        self._closing.append(lambda: self.line.close(linger_s=_LINGER_S))
        self._watches["world"] = Watch(self.line.socket, "world")
        self.line.connect(world)
        self.inbox = Inbox(self._context, self._security, limits, _INBOX_MESSAGES)
        self._closing.append(self.inbox.close)
        self._watches["peers"] = Watch(self.inbox.socket, "a peer")
        bound = self.inbox.bind(bind)
        self.endpoint = address or reachable(bound, world)
        self._poller = zmq.Poller()
        self._poller.register(self.line.socket, zmq.POLLIN)
        self._poller.register(self.inbox.socket, zmq.POLLIN)

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        for box in self._outboxes.values():
            box.close(linger_s=_LINGER_S)
        while self._closing:
            self._closing.pop()()

    # ------------------------------------------------------------ to and from the world

    def say(self, kind: str, fields: Fields, tensors: Mapping[str, Any] | None = None) -> bool:
        """Tell the world something; False if it is not there, or has too much unread."""
        return self.line.send(self._voice.frames(kind, fields.model_dump(), tensors))

    def poll(self, wait_s: float, world: bool = True) -> None:
        """Wait for a message of a peer, or also of the ``world``."""
        wait_ms = int(1000 * wait_s) + 1
        if world:
            self._poller.poll(wait_ms)
        else:
            self.inbox.socket.poll(wait_ms)

    # ------------------------------------------------------------ peers

    def outbox(self, peer: int) -> Outbox:
        """The socket to a peer, connected as soon as it is known where that is."""
        if peer not in self._outboxes:
            name = agent_name(peer)
            box = Outbox(self._context, self._security, name, _OUTBOX_MESSAGES)
            self._watches[name] = Watch(box.socket, name)
            self._outboxes[peer] = box
            if peer in self._endpoints:
                self._connect(peer)
        return self._outboxes[peer]

    def locate(self, peer: int, endpoint: str) -> None:
        """The peer is to be found there."""
        if self._endpoints.get(peer) == endpoint:
            return
        if peer in self._endpoints:
            self._log(f"{agent_name(peer)} is now at {endpoint}")
        self._endpoints[peer] = endpoint
        if peer in self._outboxes:
            self._connect(peer)

    def _connect(self, peer: int) -> None:
        """Send to where the roster says that a peer is; what is no address is only noted."""
        try:
            self._outboxes[peer].connect(self._endpoints[peer])
        except EndpointError as error:
            self._log(f"{agent_name(peer)} cannot be reached: {error}")

    def stand(self, peers: Iterable[int]) -> bool:
        """Whether all of them are connected."""
        return all(agent_name(peer) in self._connected for peer in peers)

    def note_events(self) -> bool:
        """Log who has come and gone and who was refused; whether the world has been connected anew."""
        world_is_back = False
        for line in self._security.events():
            self._log(line)
        for name, watch in self._watches.items():
            for line in watch.events():
                if line.endswith(" connected"):
                    self._connected.add(name)
                    world_is_back |= name == "world"
                elif line.endswith(" disconnected"):
                    self._connected.discard(name)
                self._log(line)
        return world_is_back


def reachable(bound: str, world: str) -> str:
    """The address of a bound endpoint for others: its host, or where that is all of this machine's addresses,
    the one by which this machine reaches the world. Raises EndpointError if there is no way to the world."""
    parts = urlsplit(bound)
    if parts.scheme != "tcp" or parts.hostname not in ("0.0.0.0", "::"):
        return bound
    host = urlsplit(world).hostname or "127.0.0.1"
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    with sockets.socket(family, sockets.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, urlsplit(world).port or 9))  # sends nothing
        except OSError as error:
            what = "the address of a machine that can be reached"
            raise EndpointError("world", world, what, f"correct the address ({error.strerror})") from error
        own = probe.getsockname()[0]
    return f"tcp://[{own}]:{parts.port}" if ":" in own else f"tcp://{own}:{parts.port}"
