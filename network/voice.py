"""What one process says: messages that are numbered, within a session that begins with the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from network.wire import Message, encode


class Voice:
    """Makes the messages of one sender for one socket of its own."""

    def __init__(self, sender: int, clock: Callable[[], float] = lambda: 0.0) -> None:
        """``clock``: seconds, for `Message.sent_s`."""
        self.sender = sender
        self.session = int.from_bytes(os.urandom(8), "big") >> 1
        self._clock = clock
        self._sequence = 0

    def message(
        self, kind: str, fields: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
    ) -> Message:
        """The next message; see `network.wire.Message`."""
        self._sequence += 1
        return Message(kind, self.sender, self.session, self._sequence, self._clock(), fields, tensors or {})

    def frames(
        self, kind: str, fields: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
    ) -> list[bytes | memoryview]:
        """The next message, encoded; raises WireError for what cannot be one."""
        return encode(self.message(kind, fields, tensors))
