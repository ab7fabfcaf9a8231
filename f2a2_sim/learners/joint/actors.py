"""Policies of all agents as one stack: perceptrons on padded observations, standardised by running moments.

Observations of different sizes are padded with zeros to the largest, so that one product serves every
role; a padded input is always 0, and its weights start at 0 and never move.

Acting and learning standardise by the same running moments, which move with every update. (MAAC learns by
its batch's moments and acts by running ones: then pi and pi0 would differ though no weight had changed.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.products import linear
from f2a2_sim.learners.stacked import MlpShape, evaluate
from f2a2_sim.learners.standardise import RunningMoments, standardise


class Actors:
    """The policies in the columns ``rows`` ``[n, shape.size]`` of a fleet's parameters.

    ``moments`` are columns too ``[n, 2 shape.inputs]``, means and variances: a policy is of no use without.
    """

    def __init__(self, shape: MlpShape, sizes: Sequence[int], rows: Tensor, moments: Tensor) -> None:
        self.shape = shape
        self.rows = rows
        self.moments = RunningMoments.of(moments[:, : shape.inputs], moments[:, shape.inputs :])
        self._sizes = tuple(sizes)

    def initial(self, agent: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row drawn as torch.nn.Linear draws it for that agent's own size of observation."""
        size = self._sizes[agent]
        own = MlpShape(size, self.shape.hidden, self.shape.hidden_layers, self.shape.outputs)
        drawn, row = own.initial(generator), np.zeros(self.shape.size)
        pairs = zip(own.segments(), self.shape.segments(), strict=True)
        for layer, ((source, shape, _), (target, padded_shape, _)) in enumerate(pairs):
            count = int(np.prod(shape))
            values = drawn[source : source + count].reshape(shape)
            place = row[target : target + int(np.prod(padded_shape))].reshape(padded_shape)
            if layer == 0:
                place[:size], place[-1] = values[:-1], values[-1]
            else:
                place[...] = values
        return row

    def logits(self, agents: Tensor, observations: Tensor) -> Tensor:
        """``[r, batch, actions]`` of some agents' raw observations ``[r, batch, size]``."""
        arrays = self.shape.arrays(self.rows.index_select(0, agents))
        return evaluate(arrays, self.inputs(agents, observations))

    def inputs(self, agents: Tensor | slice, observations: Tensor) -> Tensor:
        """What the perceptrons read: standardised, with a 1 behind: ``[r, batch, size + 1]``."""
        standardised = self.moments.part(agents).standardise(observations)
        return torch.nn.functional.pad(standardised, (0, 1), value=1.0)

    def follow(self, run: slice, observations: Tensor) -> None:
        """Let the moments of neighbouring agents follow their own batches ``[b, batch, size]``."""
        self.moments.part(run).follow(standardise(observations))


class FrozenActors:
    """Everybody's policy at the moment of the last `freeze`; the first layers read raw observations.

    It is what agents know of each other's while they learn. One agent's activations stay in the cache from
    layer to layer, and those of all would not.
    """

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._rows = actors.rows.clone()
        first, *rest = actors.shape.views(self._rows)
        self._first = actors.moments.folded(first)
        self._raw = first
        further = [(w.squeeze(1), b.squeeze(1)) for w, b in zip(rest[0::2], rest[1::2], strict=True)]
        by_layer = [self._first, *further]
        self._policies = [[(w[agent], b[agent]) for w, b in by_layer] for agent in range(len(self._rows))]

    def freeze(self) -> None:
        """Take the policies as they are now, into the same memory."""
        self._rows.copy_(self._actors.rows)
        for kept, new in zip(self._first, self._actors.moments.folded(self._raw), strict=True):
            kept.copy_(new)

    def logits(self, observations: Tensor) -> Tensor:
        """``[b, n, batch, actions]`` of everybody's raw observations ``[b, n, batch, size]``."""
        b, n, batch, _ = observations.shape
        actions = len(self._policies[0][-1][1])
        logits = observations.new_empty(actions, n, b * batch)  # in the order that softmax is fast in
        for layers, seen, out in zip(self._policies, observations.unbind(1), logits.unbind(1), strict=True):
            *hidden, (weight, bias) = layers
            above = seen.reshape(b * batch, -1)
            for weights, biases in hidden:
                above = linear(above, weights, biases, leaky=True)
            torch.addmm(bias.unsqueeze(1), weight.mT, above.mT, out=out)
        return logits.view(actions, n, b, batch).permute(2, 1, 3, 0)
