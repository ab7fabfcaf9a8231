"""Errors about links, graphs, keys and messages; those that a user can mend name key, value and remedy."""

from __future__ import annotations

from typing import Literal

Refusal = Literal["malformed", "oversized", "version"]


class NetworkSpecError(ValueError):
    """A link, graph or partition that cannot exist; the message names the key and the remedy."""

    def __init__(self, key: str, value: object, expected: str, remedy: str) -> None:
        self.key = key
        self.value = value
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{key} = {value!r}: expected {expected}; {remedy}")


class TopologyError(NetworkSpecError):
    """A graph that cannot be built for the number of agents."""


class LinkError(NetworkSpecError):
    """A link whose figures contradict each other, or a trace file that cannot be used."""


class KeyFileError(NetworkSpecError):
    """A key or a list of members that is missing, damaged, in the way, or open to others."""


class EndpointError(NetworkSpecError):
    """An address that cannot be bound or connected to, or may not be without keys."""


class WireError(ValueError):
    """A message that was refused, or cannot be sent: ``reason`` is what the refusals are counted by."""

    def __init__(self, reason: Refusal, text: str) -> None:
        self.reason: Refusal = reason
        super().__init__(f"{reason} message: {text}")
