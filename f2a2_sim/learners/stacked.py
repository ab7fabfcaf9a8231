"""Many small multilayer perceptrons as one: stacked parameters, batched products, hand-written gradients.

Every agent is one row of a flat buffer ``[agents, P]``, and every matrix of its networks is a view of
that row, so that a batched matrix product reads parameters where they lie, the optimiser sees one
long vector per agent, and a message is a slice of the row.

A `StackedMlp` may have several *branches*: networks of the same shape on the same input (twin
critics).  Their first layers lie side by side as one matrix ``[inputs, branches * hidden]``, which
makes the largest product of an update one product instead of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAK = 0.01
_ALIGN = 16  # floats: segments start on 64-byte boundaries


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros for an army's worth of numbers.

    In main memory it comes from numpy, which asks for huge pages and for pages only when they are first
    written: 4 KiB pages cost a gather from a replay of 0.9 GB about half its speed.
    """
    if device.type != "cpu" or prod(shape) == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


@dataclass(frozen=True)
class MlpShape:
    """Sizes of a stacked perceptron; ``branches`` networks share the input."""

    inputs: int
    hidden: int
    hidden_layers: int
    outputs: int
    branches: int = 1

    def segments(self) -> Iterator[tuple[int, tuple[int, ...], int]]:
        """(offset in the row, shape, fan-in) of each parameter array, in order: weight, bias, layer by layer.

        The first layer is ``[inputs, branches * hidden]`` and ``[branches * hidden]``; every further one
        ``[branches, fan_in, fan_out]`` and ``[branches, fan_out]``.
        """
        wide = self.branches * self.hidden
        shapes: list[tuple[tuple[int, ...], int]] = [
            ((self.inputs, wide), self.inputs),
            ((wide,), self.inputs),
        ]
        for layer in range(self.hidden_layers):
            out = self.outputs if layer == self.hidden_layers - 1 else self.hidden
            shapes.append(((self.branches, self.hidden, out), self.hidden))
            shapes.append(((self.branches, out), self.hidden))
        offset = 0
        for shape, fan_in in shapes:
            yield offset, shape, fan_in
            offset += _padded(prod(shape))

    @property
    def size(self) -> int:
        """Floats of one row, padding included."""
        return sum(_padded(prod(shape)) for _, shape, _ in self.segments())

    @property
    def parameters(self) -> int:
        """Trained numbers of one row, padding left out."""
        return sum(prod(shape) for _, shape, _ in self.segments())

    def views(self, rows: Tensor) -> list[Tensor]:
        """The parameter arrays within ``rows`` ``[b, size]`` (last dimension dense), each ``[b, *shape]``."""
        return [rows.narrow(1, offset, prod(shape)).view(-1, *shape) for offset, shape, _ in self.segments()]

    def initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row drawn as torch.nn.Linear draws it: uniform in +-1/sqrt(fan_in); padding 0."""
        row = np.zeros(self.size)
        for offset, shape, fan_in in self.segments():
            size = prod(shape)
            row[offset : offset + size] = (2.0 * generator.random(size) - 1.0) / sqrt(fan_in)
        return row


class StackedMlp:
    """Forward and backward passes for blocks of up to ``block`` agents, in buffers allocated once."""

    def __init__(self, shape: MlpShape, block: int, batch: int, like: Tensor) -> None:
        self.shape = shape
        b, n, m, h = block, batch, shape.branches, shape.hidden
        self._first = like.new_empty(b, n, m * h)
        self._hidden = [[like.new_empty(b, n, h) for _ in range(m)] for _ in range(shape.hidden_layers - 1)]
        self._outputs = like.new_empty(m, b, n, shape.outputs)

    def forward(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Outputs ``[branches, b, n, outputs]`` for ``inputs`` ``[b, n, inputs]`` and ``[b, size]``.

        They lie in a buffer of this object and are overwritten by the next call, like the
        activations that `backward` needs.
        """
        b, n, _ = inputs.shape
        views = self.shape.views(parameters)
        first = self._first[:b]
        torch.baddbmm(views[1].unsqueeze(1), inputs, views[0], out=first)
        torch.nn.functional.leaky_relu_(first, LEAK)
        for layer in range(self.shape.hidden_layers):
            weight, bias = views[2 + 2 * layer], views[3 + 2 * layer]
            for branch in range(self.shape.branches):
                out = self._layer_output(layer, branch, b)
                below = self._activation(layer, branch, b)
                torch.baddbmm(bias[:, branch].unsqueeze(1), below, weight[:, branch], out=out)
                if layer < self.shape.hidden_layers - 1:
                    torch.nn.functional.leaky_relu_(out, LEAK)
        return self._outputs[:, :b, :n]

    def backward(self, parameters: Tensor, inputs: Tensor, output_gradients: Tensor, out: Tensor) -> None:
        """Write the parameters' gradient to ``out`` ``[b, size]`` (its padding is left as it is).

        ``output_gradients`` is ``[branches, b, n, outputs]``; activations are those of the last
        `forward`, of which the first ``n`` inputs are used, so a forward pass over more inputs may precede.
        """
        b, n, _ = inputs.shape
        views, gradients = self.shape.views(parameters), self.shape.views(out)
        upstream = list(output_gradients)
        wide = inputs.new_empty(b, n, self.shape.branches * self.shape.hidden)
        for layer in reversed(range(self.shape.hidden_layers)):
            weight, g_weight, g_bias = (
                views[2 + 2 * layer],
                gradients[2 + 2 * layer],
                gradients[3 + 2 * layer],
            )
            for branch in range(self.shape.branches):
                below = self._activation(layer, branch, b)[:, :n]
                g_out = upstream[branch]
                torch.bmm(below.transpose(1, 2), g_out, out=g_weight[:, branch])
                torch.sum(g_out, dim=1, out=g_bias[:, branch])
                g_below = torch.bmm(g_out, weight[:, branch].transpose(1, 2))
                if layer == 0:
                    columns = slice(branch * self.shape.hidden, (branch + 1) * self.shape.hidden)
                    target = wide[:, :, columns]
                else:
                    target = g_below
                torch.ops.aten.leaky_relu_backward.grad_input(g_below, below, LEAK, True, grad_input=target)
                upstream[branch] = target
        torch.bmm(inputs.transpose(1, 2), wide, out=gradients[0])
        torch.sum(wide, dim=1, out=gradients[1])

    def _layer_output(self, layer: int, branch: int, b: int) -> Tensor:
        if layer == self.shape.hidden_layers - 1:
            return self._outputs[branch, :b]
        return self._hidden[layer][branch][:b]

    def _activation(self, layer: int, branch: int, b: int) -> Tensor:
        """What layer ``layer`` (0 = first after the input layer) of ``branch`` reads."""
        if layer == 0:
            return self._first[:b, :, branch * self.shape.hidden : (branch + 1) * self.shape.hidden]
        return self._hidden[layer - 1][branch][:b]


class StackedAdam:
    """Adam (Kingma and Ba 2015; torch's defaults) with one step count per agent, fused over each row."""

    def __init__(self, parameters: Tensor, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        shape = (parameters.shape[0], parameters.shape[1])
        self.first_moment = zeros(shape, parameters.dtype, parameters.device)
        self.second_moment = zeros(shape, parameters.dtype, parameters.device)
        self.steps = parameters.new_zeros(parameters.shape[0], dtype=torch.float32)

    def apply(self, parameters: Tensor, gradients: Tensor, rows: slice, columns: slice, decay: float) -> None:
        """Step ``columns`` of ``parameters[rows]`` against ``gradients + decay * parameters``.

        ``gradients`` is ``[b, columns]``.  Count the step first (`count_step`).
        """
        torch._fused_adam_(
            list(parameters[rows, columns].unbind(0)),
            list(gradients.unbind(0)),
            list(self.first_moment[rows, columns].unbind(0)),
            list(self.second_moment[rows, columns].unbind(0)),
            [],
            list(self.steps[rows].unbind(0)),
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def count_step(self, rows: slice) -> None:
        self.steps[rows] += 1


def clip_rows(gradients: Tensor, limit: float) -> None:
    """Scale each row of ``[b, columns]`` to a Euclidean norm of at most ``limit``, in place."""
    norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    gradients.mul_((limit / norms.clamp_min(1e-30)).clamp_max(1.0))


def blocks_of(rows: NDArray[np.int64], block: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Cut ``rows`` into runs of neighbouring rows, at most ``block`` long.

    Yields the run as a slice of fleet rows, and where its members stand in ``rows``.  A run is a slice so
    that stacked parameters are read where they lie.
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    bounds = [*np.flatnonzero(np.diff(ordered, prepend=-2) != 1).tolist(), len(ordered)]
    for begin, end in pairwise(bounds):
        for at in range(begin, end, block):
            stop = min(at + block, end)
            yield slice(int(ordered[at]), int(ordered[stop - 1]) + 1), order[at:stop]
