"""Where the parameters of an agent's attention critics lie in its row, for one critic or for twins.

A row is ``[attention 1, attention 2 | the rest of 1, of 2]``: what all agents can share without sharing what
each trains alone (``consensus.shared: attention``) is one slice of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.standardise import standardise


class AttentionTwins:
    """``twins`` critics of one ``shape`` in a row."""

    def __init__(self, shape: AttentionShape, twins: int) -> None:
        self.shape = shape
        self.twins = twins

    @property
    def size(self) -> int:
        """Floats of a row, padding included."""
        return self.twins * self.shape.size

    @property
    def attention_columns(self) -> slice:
        """Columns of all critics' attention blocks."""
        return slice(0, self.twins * self.shape.attention_columns.stop)

    def initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row ``[size]``, a twin after the other."""
        row = np.empty(self.size)
        cut = self.shape.attention_columns.stop
        for twin in range(self.twins):
            drawn = self.shape.initial(generator)
            first, rest = self._begin(twin)
            row[first : first + cut] = drawn[:cut]
            row[rest : rest + self.shape.size - cut] = drawn[cut:]
        return row

    def arrays(self, rows: Tensor, twin: int) -> CriticArrays:
        """Views of a twin in ``rows`` ``[b, >= size]``, of parameters, targets or a gradient."""
        cut = self.shape.attention_columns.stop
        first, rest = self._begin(twin)
        places = [first + s.offset if s.offset < cut else rest + s.offset - cut for s in self.shape.segments]
        return self.shape.arrays(rows, places)

    def activations(self, batch: int) -> int:
        """Numbers that a pass through all critics of one agent holds, inputs included."""
        shape, n = self.shape, self.shape.n_agents
        inputs = sum(g.count * (shape.n_actions + g.observation_size + 1) for g in shape.groups)
        return batch * (inputs + self.twins * ((5 * n + 6) * shape.hidden + 3 * shape.heads * n))

    def _begin(self, twin: int) -> tuple[int, int]:
        """Where a twin's attention block and the rest of it begin."""
        cut = self.shape.attention_columns.stop
        return twin * cut, self.twins * cut + twin * (self.shape.size - cut)


def observed_by_group(shape: AttentionShape, seen: Tensor) -> list[Tensor]:
    """What is seen ``[b, n, batch, size]`` by group, each agent's own size, standardised by the batch."""
    values = standardise(seen).values
    return [values[:, group.agents, :, : group.observation_size] for group in shape.groups]


def entered(shape: AttentionShape, actions: Tensor, like: Tensor) -> Tensor:
    """Actions int64 ``[b, n, batch]`` one-hot ``[b, n, batch, actions]``, standardised by the batch."""
    one_hot = nn.functional.one_hot(actions, shape.n_actions)
    return standardise(one_hot.to(like.dtype)).values
