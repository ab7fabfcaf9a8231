"""What happens to the connections of a socket, in words for the log."""

from __future__ import annotations

from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_FAILED |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILED
# Events that nobody fetches: beyond this the socket's own traffic would wait for them to be fetched.
_UNREAD_EVENTS = 100_000
_EVENTS_PER_CALL = 1000


class Watch:
    """Observes one socket from when it is made; make it before the socket binds or connects."""

    def __init__(self, socket: zmq.Socket[bytes], name: str) -> None:
        """``name``: the peer of a connected socket; of a bound one, a word for any of its peers."""
        self._socket = socket
        self._name = name
        endpoint = f"inproc://watch-{id(self)}"
        socket.monitor(endpoint, _EVENTS)
        self._monitor: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
        self._monitor.rcvhwm = _UNREAD_EVENTS
        self._monitor.linger = 0
        self._monitor.connect(endpoint)
        self._failed = 0
        self._last_failure: Any = None

    def events(self) -> list[str]:
        """What has happened since the last call, oldest first; never blocks.

        A handshake that fails again and again for the same reason is told once, until one succeeds.
        """
        lines = []
        for _ in range(_EVENTS_PER_CALL):
            try:
                found = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            line = self._line(found["event"])
            if line is not None:
                lines.append(line)
        return lines

    def close(self) -> None:
        """Stop observing; before the socket is closed, or after."""
        if not self._monitor.closed:
            if not self._socket.closed:
                self._socket.disable_monitor()
            self._monitor.close()

    def _line(self, event: Any) -> str | None:
        """What to say of an event, if anything; a failed handshake is followed by a disconnection, too."""
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._last_failure = None
            return f"{self._name} connected"
        if event == zmq.EVENT_DISCONNECTED:
            if self._failed == 0:
                return f"{self._name} disconnected"
            self._failed -= 1
            return None
        self._failed += 1
        if event == self._last_failure:
            return None
        self._last_failure = event
        return f"handshake with {self._name} failed (not a member, or another key?)"
