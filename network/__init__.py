"""What happens to a message between two agents: graphs, links, and the simulated carrier.

Knows nothing of learning or devices. Start at :class:`network.carrier.SimulatedCarrier`; what a user may
write is in :mod:`network.spec`.
"""

from network.carrier import SimulatedCarrier
from network.errors import LinkError, NetworkSpecError, TopologyError
from network.messages import Deliveries, Fate, MessageCounts, Sends
from network.protocol import Carrier
from network.spec import LinkSpec, PartitionSpec, TopologySpec

__all__ = [
    "Carrier",
    "Deliveries",
    "Fate",
    "LinkError",
    "LinkSpec",
    "MessageCounts",
    "NetworkSpecError",
    "PartitionSpec",
    "Sends",
    "SimulatedCarrier",
    "TopologyError",
    "TopologySpec",
]
