"""Whether the agents' networks are computed one after the other, or all of a block at once."""

from __future__ import annotations

from torch import Tensor


def computed_alone(like: Tensor) -> bool:
    """Each by itself on a CPU, where what is read next is then in the cache; on a GPU all of them at once."""
    return like.device.type == "cpu"
