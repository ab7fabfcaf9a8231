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

from f2a2_sim.learners.stacked import MlpArrays, MlpShape, evaluate
from f2a2_sim.learners.standardise import RunningMoments, standardise


class Actors:
    """The policies in the columns ``rows`` ``[n, shape.size]`` of a fleet's parameters."""

    def __init__(self, shape: MlpShape, sizes: Sequence[int], rows: Tensor) -> None:
        self.shape = shape
        self.rows = rows
        self.moments = RunningMoments(len(sizes), shape.inputs, rows)
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

    def frozen(self) -> FrozenActors:
        """All policies as they are now: what agents know of each other's while they learn."""
        every = torch.arange(self.rows.shape[0], device=self.rows.device)
        return FrozenActors(self.shape.arrays(self.rows.clone()), self.moments.part(every))

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

    def reset(self, rows: Tensor) -> None:
        """Forget the moments of some agents."""
        self.moments.mean[rows] = 0.0
        self.moments.variance[rows] = 1.0


class FrozenActors:
    """Everybody's policy at one moment."""

    def __init__(self, arrays: MlpArrays, moments: RunningMoments) -> None:
        self._arrays = arrays
        self._moments = moments

    def logits(self, observations: Tensor) -> Tensor:
        """``[b, n, batch, actions]`` of everybody's raw observations ``[b, n, batch, size]``."""
        b, n, batch, size = observations.shape
        by_agent = observations.transpose(0, 1).reshape(n, b * batch, size)
        inputs = torch.nn.functional.pad(self._moments.standardise(by_agent), (0, 1), value=1.0)
        return evaluate(self._arrays, inputs).view(n, b, batch, -1).transpose(0, 1)
