"""What can become of a message, and the arrays in which the carrier speaks of many at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

from network.streams import Floats, Ints


class Fate(IntEnum):
    """What became of a message; each ends in exactly one of these, or is in flight."""

    IN_FLIGHT = 0
    """On its way, or waiting for the transmitter."""
    DELIVERED = 1
    LOST = 2
    """Lost on the way, given up by retransmission, or cut off by a partition."""
    QUEUE_DROPPED = 3
    """Refused by a full queue of its sender."""
    ABSENT_DROPPED = 4
    """Its receiver was off when it arrived, or its sender went off before transmitting it."""
    EXPIRED = 5
    """Older than the carrier's ``max_age_s`` when it arrived."""


@dataclass(frozen=True)
class Sends:
    """Messages of one broadcast, ordered as the senders given and their neighbours: arrays ``[m]``."""

    sender: Ints
    receiver: Ints
    tx_start_s: Floats
    """Start of transmission; inf if the queue refused the message."""
    tx_end_s: Floats
    """End of the last transmission, resends included; inf if the queue refused the message."""
    arrival_s: Floats
    """Arrival as scheduled now; inf if there will be none."""
    fate: NDArray[Any]
    """Fate codes as known at sending: IN_FLIGHT, LOST or QUEUE_DROPPED."""


@dataclass(frozen=True)
class Deliveries:
    """Messages that arrived, in order of arrival and then of sending: arrays ``[m]``."""

    receiver: Ints
    sender: Ints
    version: Ints
    sent_s: Floats
    arrival_s: Floats

    def __len__(self) -> int:
        return len(self.receiver)


@dataclass
class MessageCounts:
    """Totals since the start. sent + duplicated = delivered + lost + queue_dropped + absent_dropped + expired
    + in_flight."""

    sent: int = 0
    duplicated: int = 0
    """Copies that the network made."""
    delivered: int = 0
    lost: int = 0
    queue_dropped: int = 0
    absent_dropped: int = 0
    expired: int = 0
    in_flight: int = 0
    bytes_sent: int = 0
    """Bytes given to transmitters, resends included, refused messages not."""

    def missing(self) -> int:
        """How many messages have vanished: 0, or the conservation law is broken."""
        ended = self.delivered + self.lost + self.queue_dropped + self.absent_dropped + self.expired
        return self.sent + self.duplicated - ended - self.in_flight

    def as_dict(self) -> dict[str, int]:
        return asdict(self)
