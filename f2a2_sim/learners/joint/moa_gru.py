"""Stacked gated recurrent units: one network per agent, batched products, hand-written gradients.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014, in the form of
torch.nn.GRU, per layer (x: the layer below, or the input):

    r = sigmoid(W_r x + b_r + U_r h + c_r)         reset gate
    z = sigmoid(W_z x + b_z + U_z h + c_z)         update gate
    v = tanh(W_v x + b_v + r (U_v h + c_v))        candidate
    h' = (1 - z) v + z h

All agents' networks are rows of one buffer, as in `f2a2_sim.learners.stacked`.  The axes of what passes
through are [agent, sequence, unit], with time as a list in front: every step's numbers are then dense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.stacked import padded


@dataclass(frozen=True)
class GruLayer:
    """Views of one layer of ``b`` networks; columns are [reset | update | candidate]."""

    below: Tensor  # W [b, inputs, 3 hidden]
    below_bias: Tensor  # b [b, 1, 3 hidden]
    before: Tensor  # U [b, hidden, 3 hidden]
    before_bias: Tensor  # c [b, 1, 3 hidden]


@dataclass(frozen=True)
class GruShape:
    """Sizes of a stacked recurrent network."""

    inputs: int
    hidden: int
    layers: int

    def segments(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(offset in the row, shape) of each parameter array, layer by layer, as in `GruLayer`."""
        offset, gates = 0, 3 * self.hidden
        for layer in range(self.layers):
            below = self.inputs if layer == 0 else self.hidden
            for shape in ((below, gates), (1, gates), (self.hidden, gates), (1, gates)):
                yield offset, shape
                offset += padded(prod(shape))

    @property
    def size(self) -> int:
        """Floats of one row, padding included."""
        return sum(padded(prod(shape)) for _, shape in self.segments())

    @property
    def parameters(self) -> int:
        """Trained numbers of one row, padding left out."""
        return sum(prod(shape) for _, shape in self.segments())

    def arrays(self, rows: Tensor) -> list[GruLayer]:
        """The layers within ``rows`` ``[b, size]`` (last dimension dense)."""
        views = [rows.narrow(1, offset, prod(shape)).view(-1, *shape) for offset, shape in self.segments()]
        return [GruLayer(*views[at : at + 4]) for at in range(0, len(views), 4)]

    def initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row drawn as torch.nn.GRU draws it: uniform in +-1/sqrt(hidden); padding 0."""
        row = np.zeros(self.size)
        for offset, shape in self.segments():
            row[offset : offset + prod(shape)] = 2.0 * generator.random(prod(shape)) - 1.0
        return row / sqrt(self.hidden)


class StackedGru:
    """Passes through the networks of ``block`` agents with ``sequences`` sequences of ``steps`` steps each.

    What a pass leaves for the way back lies in buffers that the next pass overwrites.  With ``keeps`` false
    there is no way back, and the buffers are those of one step.
    """

    def __init__(
        self, shape: GruShape, block: int, steps: int, sequences: int, like: Tensor, keeps: bool = True
    ) -> None:
        self._shape = shape
        self._steps = steps
        kept = range(steps if keeps else 1)
        dense = (block, sequences, shape.hidden)
        wide = (block, sequences, 3 * shape.hidden)
        self._memory = [
            [_Step(like.new_empty(wide), like.new_empty(wide), like.new_empty(dense)) for _ in kept]
            for _ in range(shape.layers)
        ]
        self._scratch = [like.new_empty(dense) for _ in range(shape.layers + 2 if keeps else 0)]

    def forward(
        self, parameters: Sequence[GruLayer], inputs: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """The top layer after the last step ``[b, sequences, hidden]``, overwritten by the next pass.

        ``inputs`` is ``[b, steps, sequences, inputs]``; the last ``lengths`` ``[b, sequences]`` steps are the
        sequence, and what lies before them is ignored.  A sequence without steps ends in 0.
        """
        masks = None if lengths is None else self._masks(lengths, inputs)
        state: list[Tensor | None] = [None] * self._shape.layers
        for step in range(self._steps):
            below = inputs[:, step]
            for at, (layer, kept) in enumerate(zip(parameters, self._memory, strict=True)):
                memory = kept[step % len(kept)]
                _advance(layer, memory, below, state[at])
                if masks is not None:
                    memory.state.mul_(masks[step])
                state[at] = below = memory.state
        return below

    def backward(
        self,
        parameters: Sequence[GruLayer],
        inputs: Tensor,
        gradient: Tensor,
        out: Sequence[GruLayer],
        lengths: Tensor | None = None,
    ) -> None:
        """Write the parameters' gradient to ``out``, from that of the last `forward`'s result."""
        masks = None if lengths is None else self._masks(lengths, inputs)
        *upstream, spare, product = self._scratch  # upstream: dL/dh of each layer, from all that is later
        for g_state, layer in zip(upstream, out, strict=True):
            g_state.zero_()
            for array in (layer.below, layer.below_bias, layer.before, layer.before_bias):
                array.zero_()
        upstream[-1].copy_(gradient)
        for step in reversed(range(self._steps)):
            for at in reversed(range(self._shape.layers)):
                g_state, layer, into = upstream[at], parameters[at], out[at]
                memory = self._memory[at][step]
                before = self._memory[at][step - 1].state if step > 0 else None
                if masks is not None:
                    g_state.mul_(masks[step])
                _retreat(memory, before, g_state, spare, product)
                below = self._memory[at - 1][step].state if at > 0 else inputs[:, step]
                torch.baddbmm(into.below, below.mT, memory.gates, out=into.below)
                into.below_bias.add_(memory.gates.sum(dim=1, keepdim=True))
                into.before_bias.add_(memory.recurrent.sum(dim=1, keepdim=True))
                if before is not None:
                    torch.baddbmm(into.before, before.mT, memory.recurrent, out=into.before)
                    torch.baddbmm(spare, memory.recurrent, layer.before.mT, out=g_state)
                if at > 0:
                    torch.baddbmm(upstream[at - 1], memory.gates, layer.below.mT, out=upstream[at - 1])

    def _masks(self, lengths: Tensor, inputs: Tensor) -> list[Tensor]:
        """1 where a sequence has begun, by step ``[b, sequences, 1]``."""
        first = (self._steps - lengths).unsqueeze(-1)
        return [(first <= step).to(inputs.dtype) for step in range(self._steps)]


@dataclass(frozen=True)
class _Step:
    """What one layer leaves of one step, and on the way back the gradient in its place."""

    gates: Tensor  # [r | z | v] [b, sequences, 3 hidden]; then dL/d(W x + b)
    recurrent: Tensor  # U h + c [b, sequences, 3 hidden]; then dL/d(U h + c)
    state: Tensor  # h' [b, sequences, hidden]


def _advance(layer: GruLayer, memory: _Step, below: Tensor, before: Tensor | None) -> None:
    """One step of one layer; ``before`` is None where it is 0."""
    hidden = memory.state.shape[-1]
    gates, recurrent = memory.gates, memory.recurrent
    torch.baddbmm(layer.below_bias, below, layer.below, out=gates)
    if before is None:
        recurrent.copy_(layer.before_bias.expand_as(recurrent))
    else:
        torch.baddbmm(layer.before_bias, before, layer.before, out=recurrent)
    gates[..., : 2 * hidden].add_(recurrent[..., : 2 * hidden]).sigmoid_()
    reset, update, candidate = torch.split(gates, hidden, dim=-1)
    # tanh(x) = 2 sigmoid(2 x) - 1: torch's own takes twice as long.
    candidate.addcmul_(reset, recurrent[..., 2 * hidden :]).mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    if before is None:
        torch.addcmul(candidate, candidate, update, value=-1.0, out=memory.state)
    else:
        torch.lerp(candidate, before, update, out=memory.state)


def _retreat(
    memory: _Step, before: Tensor | None, g_state: Tensor, spare: Tensor, product: Tensor
) -> None:
    """From dL/dh' in ``g_state`` (overwritten): gradients into ``memory``, z dL/dh' into ``spare``."""
    hidden = memory.state.shape[-1]
    reset, update, candidate = torch.split(memory.gates, hidden, dim=-1)
    proposed = memory.recurrent[..., 2 * hidden :]
    torch.mul(g_state, update, out=spare)
    if before is None:
        torch.mul(g_state, candidate, out=product).neg_()
    else:
        torch.sub(before, candidate, out=product).mul_(g_state)
    g_state.sub_(spare)
    torch.ops.aten.sigmoid_backward.grad_input(product, update, grad_input=update)
    torch.ops.aten.tanh_backward.grad_input(g_state, candidate, grad_input=candidate)
    torch.mul(candidate, proposed, out=product)
    torch.mul(candidate, reset, out=proposed)
    torch.ops.aten.sigmoid_backward.grad_input(product, reset, grad_input=reset)
    memory.recurrent[..., : 2 * hidden].copy_(memory.gates[..., : 2 * hidden])
