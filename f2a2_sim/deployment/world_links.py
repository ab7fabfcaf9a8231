"""The world's socket, which every agent's line is connected to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zmq

from f2a2_sim.deployment.messages import Fields
from network.sockets import Hub, Security, Watch
from network.voice import Voice
from network.wire import Limits, Message


class WorldLinks:
    """Opened at once, but nobody can connect before `bind`; to be closed whatever happens."""

    def __init__(self, security: Security, voice: Voice) -> None:
        self._security = security
        self._voice = voice
        self._context: zmq.Context[Any] = zmq.Context()
        security.gate(self._context)
        self._hub = Hub(self._context, security, Limits())
        self._watch = Watch(self._hub.socket, "an agent")

    def bind(self, endpoint: str) -> str:
        """Listen there, and return the address in full; raises EndpointError."""
        return self._hub.bind(endpoint)

    def say(self, agent: int, kind: str, fields: Fields, tensors: Mapping[str, Any] | None = None) -> bool:
        """Tell an agent something; False if it cannot take that now."""
        return self._hub.send(agent, self._voice.frames(kind, fields.model_dump(), tensors))

    def wait(self, wait_s: float) -> None:
        """For a message, or so long."""
        self._hub.socket.poll(int(1000 * wait_s) + 1)

    def receive(self) -> Message | None:
        """The next message; None if there is none now."""
        return self._hub.receive()

    def check_endpoint(self, endpoint: str) -> None:
        """Raise EndpointError for an address that may not be used here."""
        self._security.check_endpoint(endpoint)

    def events(self) -> list[str]:
        """Who has come and gone, and who was refused, since the last call."""
        return [*self._security.events(), *self._watch.events()]

    def close(self) -> None:
        self._watch.close()
        self._hub.close(linger_s=2.0)
        self._security.close()
        self._context.term()
