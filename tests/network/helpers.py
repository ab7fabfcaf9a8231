"""Small carriers and shorthand for the tests of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.randomness import Streams
from network.carrier import SimulatedCarrier
from network.messages import Deliveries, Sends
from network.spec import CompleteTopology, EdgeListTopology, LinkSpec, TopologySpec

ONE_LINK = EdgeListTopology(edges=((0, 1),), directed=True)
STAR = EdgeListTopology(edges=tuple((0, r) for r in range(1, 6)), directed=True)


def carrier(
    n_agents: int = 2, topology: TopologySpec = ONE_LINK, links: Any = None, *, seed: int = 7, **more: Any
) -> SimulatedCarrier:
    """A carrier over fresh streams of that seed."""
    spec = LinkSpec() if links is None else links
    return SimulatedCarrier(n_agents, topology, spec, Streams(seed, 0), **more)


def complete(n_agents: int, links: Any = None, **more: Any) -> SimulatedCarrier:
    return carrier(n_agents, CompleteTopology(), links, **more)


def send(carrier: SimulatedCarrier, now_s: float, senders: Any = (0,), size_bytes: int = 1000) -> Sends:
    """Broadcast with version numbers equal to the senders' numbers."""
    numbers = np.array(senders, dtype=np.int64)
    return carrier.broadcast(now_s, numbers, numbers, size_bytes)


def drain(carrier: SimulatedCarrier, until_s: float = 1e9, off: Any = ()) -> Deliveries:
    online = np.ones(carrier.n_agents, dtype=np.bool_)
    online[list(off)] = False
    return carrier.drain(until_s, online)


def everything(deliveries: Deliveries) -> list[NDArray[Any]]:
    """All columns, to compare bit for bit."""
    return [
        deliveries.receiver,
        deliveries.sender,
        deliveries.version,
        deliveries.sent_s,
        deliveries.arrival_s,
    ]
