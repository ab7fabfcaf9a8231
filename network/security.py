"""Who may connect: CURVE keys on every socket and one authenticator a process, or anybody of one machine."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from network.errors import EndpointError, KeyFileError
from network.keys import WORLD, Identity, Members, agent_name
from network.wire import WORLD_NUMBER

_DOMAIN = "f2a2"
_SCHEMES = ("tcp", "ipc", "inproc")


def member_name(sender: int) -> str:
    """Which member speaks with this sender's number."""
    return WORLD if sender == WORLD_NUMBER else agent_name(sender)


class Security:
    """How sockets are secured: one a process, made with `curve` or `insecure`, closed before its context."""

    def __init__(self, identity: Identity | None, members: Members | None) -> None:
        self._identity = identity
        self._members = members
        self._refusals: SimpleQueue[str] = SimpleQueue()
        self._authenticator: ThreadAuthenticator | None = None
        self.counts: Counter[str] = Counter()
        """Connections by what became of them: "admitted" or "unknown_key"."""

    @classmethod
    def curve(cls, identity: Identity, members: Members) -> Security:
        """Everything encrypted, and only members get in.

        Raises KeyFileError if the identity is not the member that it says it is.
        """
        if members.public_key(identity.name) != identity.public_key:
            raise KeyFileError(
                "key", identity.name, "the key that members.json has for it", "copy both from the same folder"
            )
        return cls(identity, members)

    @classmethod
    def insecure(cls) -> Security:
        """No encryption and no authentication: every process of this machine may say anything as anybody."""
        return cls(None, None)

    def events(self) -> list[str]:
        """Who has been refused since the last call, in words; never blocks.

        There is a line for the first one, and then for each doubling of their number.
        """
        lines: list[str] = []
        with suppress(Empty):
            while True:
                lines.append(self._refusals.get_nowait())
        return lines

    @property
    def is_curve(self) -> bool:
        return self._identity is not None

    # ------------------------------------------------------------ sockets

    def gate(self, context: zmq.Context[Any]) -> None:
        """Start the authenticator of this context, once; `secure_server` does it, too."""
        if self._members is None:
            return
        if self._authenticator is not None:
            if self._authenticator.context is not context:
                raise ValueError("one Security guards the sockets of one context")
            return
        authenticator = _Authenticator(context)
        doorkeeper = _Doorkeeper(self._members, self.counts, self._refusals.put)
        authenticator.configure_curve_callback(_DOMAIN, doorkeeper)
        authenticator.start()
        self._authenticator = authenticator

    def close(self) -> None:
        """Stop the authenticator: nobody gets in any more. Does nothing the second time."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None

    def secure_server(self, socket: zmq.Socket[bytes]) -> None:
        """Let only members connect to a socket that will be bound."""
        if self._identity is None:
            return
        self.gate(socket.context)
        socket.curve_server = True
        self._give_keys(socket, self._identity)
        socket.zap_domain = _DOMAIN.encode()
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an authenticator nobody gets in

    def secure_client(self, socket: zmq.Socket[bytes], peer_name: str) -> None:
        """Let a socket connect only to the process that has this member's secret key.

        Raises KeyFileError if the peer is no member.
        """
        if self._identity is None or self._members is None:
            return
        socket.curve_serverkey = self._members.public_key(peer_name).encode()
        self._give_keys(socket, self._identity)

    def is_from(self, frame: zmq.Frame, sender: int) -> bool:
        """Whether the connection that a frame came by is of the sender that its message names."""
        if self._members is None:
            return True
        try:
            key = frame.get("User-Id")
        except zmq.ZMQError:  # it has come by no authenticated connection
            return False
        return isinstance(key, str) and self._members.name_of(key) == member_name(sender)

    def check_endpoint(self, endpoint: str) -> None:
        """Raise EndpointError for what is no address, or may not be used in this mode."""
        scheme, separator, address = endpoint.partition("://")
        if not separator or not address or scheme not in _SCHEMES:
            raise EndpointError("endpoint", endpoint, "tcp://HOST:PORT or ipc://PATH", "correct the address")
        if self.is_curve and scheme == "inproc":
            raise EndpointError("endpoint", endpoint, "tcp:// or ipc://", "inproc:// knows no keys")
        if not self.is_curve and scheme == "tcp" and not _is_loopback(address):
            raise EndpointError(
                "endpoint",
                endpoint,
                "127.0.0.1 or [::1] as long as there are no keys",
                "make keys (f2a2-sim keys FOLDER --agents N), or stay on one machine",
            )

    @staticmethod
    def _give_keys(socket: zmq.Socket[bytes], identity: Identity) -> None:
        socket.curve_publickey = identity.public_key.encode()
        socket.curve_secretkey = identity.secret_key.encode()


class _Authenticator(ThreadAuthenticator):
    """Lets the handshake of who is refused run out (300): ZeroMQ's clients never come back after a no (400).

    So a member that was started before its key was in the list of the others gets in once they have it.
    """

    def _send_zap_reply(
        self, request_id: bytes, status_code: bytes, status_text: bytes, user_id: str = "anonymous"
    ) -> None:
        code = b"300" if status_code == b"400" else status_code
        super()._send_zap_reply(request_id, code, status_text, user_id)


class _Doorkeeper:
    """Answers the authenticator, in its thread."""

    def __init__(self, members: Members, counts: Counter[str], log: Callable[[str], None]) -> None:
        self._members = members
        self._counts = counts
        self._log = log

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of the key gets in."""
        if self._members.name_of(key.decode("ascii")) is not None:
            self._counts["admitted"] += 1
            return True
        self._counts["unknown_key"] += 1
        refused = self._counts["unknown_key"]
        if refused & (refused - 1) == 0:
            self._log(f"refused a connection with a key that is no member's ({refused} so far)")
        return False


def _is_loopback(address: str) -> bool:
    """Whether HOST:PORT is an address, not a name, of this machine only."""
    host, _, _ = address.rpartition(":")
    try:
        if host.startswith("[") and host.endswith("]"):
            return ipaddress.IPv6Address(host[1:-1]).is_loopback
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
