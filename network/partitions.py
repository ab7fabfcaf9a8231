"""Scheduled cuts of the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from network.errors import TopologyError
from network.spec import PartitionSpec
from network.streams import Bools, Floats, Ints, WordFamily, generator


class Partitions:
    """Decides which messages a cut stops; a cut acts on the instant of arrival."""

    def __init__(self, specs: Sequence[PartitionSpec], n_agents: int, family: WordFamily) -> None:
        """``family`` is drawn from for cuts whose members are not named."""
        self._specs = specs
        self._side = [_sides(spec, n_agents, generator(family, number)) for number, spec in enumerate(specs)]

    def __bool__(self) -> bool:
        return bool(self._specs)

    def cut(self, sender: Ints, receiver: Ints, arrival_s: Floats) -> Bools:
        """Whether each message, arriving then, is stopped: bool ``[m]``."""
        stopped = np.zeros(len(sender), dtype=np.bool_)
        for spec, side in zip(self._specs, self._side, strict=True):
            active = (arrival_s >= spec.start_s) & (arrival_s < spec.end_s)
            stopped |= active & (side[sender] != side[receiver])
        return stopped


def _sides(spec: PartitionSpec, n_agents: int, rng: np.random.Generator) -> Ints:
    """The group of each agent: int64 ``[n_agents]``, 0 for those in no group."""
    side = np.zeros(n_agents, dtype=np.int64)
    if spec.fraction is not None:
        side[rng.permutation(n_agents)[: round(spec.fraction * n_agents)]] = 1
        return side
    for number, group in enumerate(spec.groups or (), start=1):
        for agent in group:
            if not 0 <= agent < n_agents:
                raise TopologyError(
                    "partitions.groups",
                    agent,
                    f"agent numbers from 0 to {n_agents - 1}",
                    "correct the number or raise world.agents",
                )
            side[agent] = number
    return side
