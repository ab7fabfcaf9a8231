"""What a carrier of messages offers, simulated or real."""

from __future__ import annotations

from typing import Any, Protocol

from network.messages import Deliveries, MessageCounts, Sends
from network.streams import Bools, Ints


class Carrier(Protocol):
    """Moves versioned messages along the links of a graph; times are seconds on the carrier's own clock."""

    n_agents: int

    @property
    def counts(self) -> MessageCounts:
        """What became of the messages so far."""
        ...

    def broadcast(self, now_s: float, senders: Ints, versions: Ints, size_bytes: int | Ints) -> Sends:
        """Send one message of each sender to each of its out-neighbours."""
        ...

    def versions_in_flight(self) -> Ints:
        """Versions of the messages on their way that only refer to what they carry."""
        ...

    def next_arrival_s(self) -> float:
        """Time of the next arrival; inf if none is known."""
        ...

    def drain(self, until_s: float, online: Bools) -> Deliveries:
        """What has arrived by then, in order of (arrival, sending)."""
        ...

    def sender_off(self, now_s: float, agents: Ints) -> int:
        """Drop what these agents have not begun to transmit; how many messages that was."""
        ...

    def out_neighbours(self, agent: int) -> Ints:
        """Those to whom this agent sends."""
        ...

    def in_neighbours(self, agent: int) -> Ints:
        """Those who send to this agent."""
        ...

    def redraw(self, number: int) -> None:
        """Draw random edges anew where the topology says so: the graph of consensus round ``number``.

        It follows from the scenario, its seed and that number, so that machines need not ask each other.
        """
        ...

    def link_table(self) -> dict[str, Any]:
        """Totals per link, as columns."""
        ...

    def state(self) -> dict[str, Any]:
        """All that changes, as nested dicts of arrays, numbers and strings."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        ...
