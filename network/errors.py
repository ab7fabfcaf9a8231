"""Errors about links and graphs that a user can mend: key, value, what was expected, what to do."""

from __future__ import annotations


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
