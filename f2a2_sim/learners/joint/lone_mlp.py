"""Perceptrons of a block of agents on a CPU, agent by agent: what is read next is still in the cache.

The functions are those of `f2a2_sim.learners.stacked.StackedMlp`, which is for GPUs here: with the batches
that joint critics learn from, one agent's products keep a processor busy. Nothing is copied to lie side by
side but the outputs, and gradients are written where they belong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from f2a2_sim.learners import lone
from f2a2_sim.learners.products import linear, through_leak, write_transposed
from f2a2_sim.learners.stacked import LoneMlpArrays, MlpArrays, MlpShape, StackedMlp


class LoneMlps:
    """Forward and backward passes of a block of ``b`` agents; a backward pass belongs to the last forward.

    Branches, ``inputs`` and arrays are as `StackedMlp` has them. Threads need one each.
    """

    def __init__(self) -> None:
        self._reads: list[list[list[Tensor]]] = []  # by agent and branch, of each layer after the first

    def forward(self, parameters: MlpArrays, inputs: Tensor) -> Tensor:
        """Outputs ``[branches, b, n, outputs]`` for ``inputs`` ``[b, n, inputs + 1]``, last column ones."""
        pairs = zip(inputs.unbind(0), parameters.alone, strict=True)
        return self.forward_from_first(parameters, [linear(x, a.first, leaky=True) for x, a in pairs])

    def forward_from_first(self, parameters: MlpArrays, first: Sequence[Tensor]) -> Tensor:
        """The same, from what the first layer puts out for each agent ``[n, branches * hidden]``."""
        self._reads = []
        outputs = []
        for arrays, wide in zip(parameters.alone, first, strict=True):
            branches = arrays.branches
            below = [wide] if len(branches) == 1 else list(wide.chunk(len(branches), dim=1))
            reads = []
            for layers, read in zip(branches, below, strict=True):
                of_branch = [read]
                for weight, bias in layers[:-1]:
                    of_branch.append(linear(of_branch[-1], weight, bias, leaky=True))
                outputs.append(linear(of_branch[-1], *layers[-1]))
                reads.append(of_branch)
            self._reads.append(reads)
        return torch.unflatten(torch.stack(outputs), 0, (len(first), -1)).transpose(0, 1)

    def backward(
        self, parameters: MlpArrays, inputs: Tensor, output_gradients: Tensor, out: MlpArrays
    ) -> None:
        """Write to ``out`` the parameters' gradient for dL/d(outputs) ``[branches, b, n, outputs]``."""
        first = self.backward_to_first(parameters, output_gradients, out)
        for x, gradient, into in zip(inputs.unbind(0), first, out.alone, strict=True):
            write_transposed(x, gradient, into.first)

    def backward_to_first(
        self, parameters: MlpArrays, output_gradients: Tensor, out: MlpArrays | None
    ) -> list[Tensor]:
        """The gradient of the first layer's products, of each agent ``[n, branches * hidden]``.

        That of the further layers' parameters is written to ``out``, if there is one.
        """
        into: Sequence[LoneMlpArrays | None] = [None] * len(self._reads) if out is None else out.alone
        by_agent = output_gradients.transpose(0, 1).unbind(0)
        first = []
        for arrays, reads, upstream, own in zip(parameters.alone, self._reads, by_agent, into, strict=True):
            branches, n = arrays.branches, upstream.shape[1]
            wide = upstream.new_empty(n, arrays.first.shape[1])
            places = [wide] if len(branches) == 1 else wide.chunk(len(branches), dim=1)
            writes = [None] * len(branches) if own is None else own.branches
            for branch in zip(branches, reads, upstream.unbind(0), writes, places, strict=True):
                _branch_backward(*branch)
            first.append(wide)
        return first


Layers = list[tuple[Tensor, Tensor]]  # of one branch, the first one left out: weight and bias


def _branch_backward(
    layers: Layers, reads: list[Tensor], gradient: Tensor, out: Layers | None, place: Tensor
) -> None:
    """From dL/d(outputs) ``[n, outputs]`` down to what the first layer put out, which goes to ``place``."""
    for at in reversed(range(len(layers))):
        if out is not None:
            of_weight, of_bias = out[at]
            torch.sum(gradient, dim=0, out=of_bias)
            write_transposed(reads[at], gradient, of_weight)
        behind = linear(gradient, layers[at][0].mT)
        gradient = through_leak(behind, reads[at], place if at == 0 else None)


def passes_of(shape: MlpShape, block: int, batch: int, like: Tensor) -> StackedMlp | LoneMlps:
    """What computes passes of ``block`` agents with ``batch`` inputs each, in the form for their device."""
    if lone.computed_alone(like):
        return LoneMlps()
    with torch.inference_mode(False):  # or its memory could be written in that mode alone
        memory = [like.new_zeros(size) for size in StackedMlp.memory_shapes(shape, block, batch)]
    return StackedMlp(shape.hidden, memory)
