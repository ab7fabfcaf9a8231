"""What stands for the processes of a deployment in tests: a context and its security each, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import zmq

from network.errors import EndpointError
from network.keys import Identity, Members
from network.security import Security
from network.sockets import Hub, Inbox, Line, Outbox, Watch
from network.wire import Limits, Message, encode

ANYWHERE = "tcp://127.0.0.1:*"
PATIENCE_S = 10.0
RELEASE_S = 2.0

Found = TypeVar("Found")


def until(look: Callable[[], Found], within_s: float = PATIENCE_S) -> Found:
    """What ``look`` returns as soon as it is true; fails if it never is."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.0005)
    return found


def never(look: Callable[[], object], for_s: float) -> None:
    """Fails if ``look`` returns something true within this time."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert not look()
        time.sleep(0.005)


def frames(
    sender: int, sequence: int, session: int = 1, kind: str = "test", values: int = 3
) -> list[bytes | memoryview]:
    """A message that carries its own number, and ``values`` float32."""
    weight = np.full(values, sequence, dtype=np.float32)
    return encode(Message(kind, sender, session, sequence, 0.0, {"number": sequence}, {"weight": weight}))


def bound(server: Hub | Inbox, endpoint: str) -> str:
    """Bind, as soon as whoever was there before has let go of the port: ZeroMQ closes sockets by and by."""
    deadline = time.monotonic() + RELEASE_S
    while True:
        try:
            return server.bind(endpoint)
        except EndpointError as error:
            if "in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Process:
    """One process: makes sockets, and closes all in the right order."""

    def __init__(self, security: Security, limits: Limits) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.security = security
        self.limits = limits
        self._open: list[Any] = []

    def hub(self, endpoint: str = ANYWHERE, **more: Any) -> tuple[Hub, str]:
        hub = self._kept(Hub(self.context, self.security, self.limits, **more))
        return hub, bound(hub, endpoint)

    def inbox(self, endpoint: str = ANYWHERE, **more: Any) -> tuple[Inbox, str]:
        inbox = self._kept(Inbox(self.context, self.security, self.limits, **more))
        return inbox, bound(inbox, endpoint)

    def line(self, endpoint: str, **more: Any) -> Line:
        line = self._kept(Line(self.context, self.security, self.limits, **more))
        line.connect(endpoint)
        return line

    def outbox(self, peer: str, endpoint: str | None, **more: Any) -> Outbox:
        outbox = self._kept(Outbox(self.context, self.security, peer, **more))
        if endpoint is not None:
            outbox.connect(endpoint)
        return outbox

    def watch(self, socket: zmq.Socket[bytes], name: str) -> Watch:
        return self._kept(Watch(socket, name))

    def raw(self, kind: int, endpoint: str | None = None, peer: str | None = None) -> zmq.Socket[bytes]:
        """A socket without any of our checks; with ``peer`` it has the process's keys and the peer's."""
        socket = self._kept(self.context.socket(kind))
        socket.linger = 0
        if peer is not None:
            self.security.secure_client(socket, peer)
        if endpoint is not None:
            socket.connect(endpoint)
        return socket

    def close(self) -> None:
        for thing in reversed(self._open):
            thing.close()
        self.security.close()
        self.context.destroy(linger=0)

    def _kept(self, thing: Any) -> Any:
        self._open.append(thing)
        return thing


class Deployment:
    """Makes processes of the members, or of others."""

    def __init__(self, members: Members, identities: dict[str, Identity], curve: bool) -> None:
        self.members = members
        self.identities = identities
        self.curve = curve
        self._processes: list[Process] = []

    def process(
        self,
        name: str,
        *,
        members: Members | None = None,
        identity: Identity | None = None,
        limits: Limits | None = None,
    ) -> Process:
        if self.curve:
            known = self.members if members is None else members
            whose = self.identities[name] if identity is None else identity
            security = Security.curve(whose, known)
        else:
            security = Security.insecure()
        made = Process(security, Limits() if limits is None else limits)
        self._processes.append(made)
        return made

    def close(self) -> None:
        for process in self._processes:
            process.close()
