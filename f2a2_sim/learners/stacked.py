"""Many small multilayer perceptrons as one: stacked parameters, batched products, hand-written gradients.

Every agent is one row of a flat buffer ``[agents, P]``, and every matrix of its networks is a view of
that row, so that a batched matrix product reads parameters where they lie, the optimiser sees one
long vector per agent, and a message is a slice of the row.

A `StackedMlp` may have several *branches*: networks of the same shape on the same input (twin
critics).  Their first layers lie side by side as one matrix ``[inputs + 1, branches * hidden]``, which
makes the largest product of an update one product instead of two.  The last row of that matrix is the
bias: inputs come with a 1 behind them, so the product adds it, and its gradient needs no pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod, sqrt
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.products import LEAK, multiply, multiply_before_leak, multiply_transposed
from f2a2_sim.learners.rate_decay import RateDecay

Views = TypeVar("Views")

_LINE = 64  # bytes of a cache line
_ALIGN = 16  # floats: segments start on 64-byte boundaries


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros for an army's worth of numbers.

    In main memory it comes from numpy, which asks for huge pages and for pages only when they are first
    written: 4 KiB pages cost a gather from a replay of 0.9 GB about half its speed.
    """
    if device.type != "cpu" or prod(shape) == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    size = prod(shape) * dtype.itemsize
    memory = np.zeros(size + _LINE, dtype=np.uint8)
    start = -memory.ctypes.data % _LINE
    return torch.from_numpy(memory[start : start + size]).view(dtype).view(shape)


class Buffers:
    """Memory by what it is for, 0 at first, and the same whenever as much is asked for again.

    Not for threads to share. It can be written in torch's inference mode and outside of it.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Hashable, tuple[int, ...], torch.dtype], Tensor] = {}

    def __call__(self, name: Hashable, shape: tuple[int, ...], like: Tensor) -> Tensor:
        key = (name, shape, like.dtype)
        if key not in self._made:
            with torch.inference_mode(False):  # or it could be written in that mode alone
                self._made[key] = zeros(shape, like.dtype, like.device)
        return self._made[key]


def carve(shapes: list[tuple[int, ...]], like: Tensor) -> list[Tensor]:
    """Tensors of zeros out of one piece of memory, which is then large enough for huge pages."""
    ends = np.cumsum([padded(prod(shape)) for shape in shapes]).tolist()
    memory = zeros((ends[-1],), like.dtype, like.device)
    return [
        memory[end - padded(prod(shape)) :][: prod(shape)].view(shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


def padded(size: int) -> int:
    """``size`` floats, and as many more as fill the last cache line."""
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
        """(offset in the row, shape, fan-in) of each parameter array, in order, layer by layer.

        The first layer is ``[inputs + 1, branches * hidden]``, its last row the bias; every further one
        ``[branches, fan_in, fan_out]`` and ``[branches, fan_out]``.
        """
        first = (self.inputs + 1, self.branches * self.hidden)
        shapes: list[tuple[tuple[int, ...], int]] = [(first, self.inputs)]
        for layer in range(self.hidden_layers):
            out = self.outputs if layer == self.hidden_layers - 1 else self.hidden
            shapes.append(((self.branches, self.hidden, out), self.hidden))
            shapes.append(((self.branches, out), self.hidden))
        offset = 0
        for shape, fan_in in shapes:
            yield offset, shape, fan_in
            offset += padded(prod(shape))

    @property
    def size(self) -> int:
        """Floats of one row, padding included."""
        return sum(padded(prod(shape)) for _, shape, _ in self.segments())

    @property
    def parameters(self) -> int:
        """Trained numbers of one row, padding left out."""
        return sum(prod(shape) for _, shape, _ in self.segments())

    def views(self, rows: Tensor) -> list[Tensor]:
        """The parameter arrays within ``rows`` ``[b, size]`` (last dimension dense), each ``[b, *shape]``."""
        return [rows.narrow(1, offset, prod(shape)).view(-1, *shape) for offset, shape, _ in self.segments()]

    def arrays(self, rows: Tensor) -> MlpArrays:
        """The same, taken apart by branch."""
        first, *rest = self.views(rows)
        layers = [
            MlpLayer(
                weights=list(weight.unbind(1)),
                transposed=list(weight.transpose(2, 3).unbind(1)),
                biases=list(bias.unsqueeze(2).unbind(1)),
                bias=bias.transpose(0, 1),
            )
            for weight, bias in zip(rest[0::2], rest[1::2], strict=True)
        ]
        return MlpArrays(first, layers)

    def initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row drawn as torch.nn.Linear draws it: uniform in +-1/sqrt(fan_in); padding 0."""
        row = np.zeros(self.size)
        for offset, shape, fan_in in self.segments():
            size = prod(shape)
            row[offset : offset + size] = (2.0 * generator.random(size) - 1.0) / sqrt(fan_in)
        return row


@dataclass(frozen=True)
class MlpLayer:
    """Views of a layer after the first, by branch, made once: making a view costs as much as using it."""

    weights: list[Tensor]  # [b, fan_in, fan_out]
    transposed: list[Tensor]  # [b, fan_out, fan_in]
    biases: list[Tensor]  # [b, 1, fan_out]
    bias: Tensor  # of all branches, [branches, b, fan_out]


@dataclass(frozen=True)
class MlpArrays:
    """Views of the parameters, or of their gradients, of a block of agents.

    ``first`` is ``[b, inputs + 1, branches * hidden]``; ``layers`` are the further ones.
    """

    first: Tensor
    layers: list[MlpLayer]

    @cached_property
    def alone(self) -> list[LoneMlpArrays]:
        """The same, agent by agent."""
        branches = range(len(self.layers[0].weights))
        return [
            LoneMlpArrays(
                first,
                [[(at.weights[j][i], at.biases[j][i, 0]) for at in self.layers] for j in branches],
            )
            for i, first in enumerate(self.first)
        ]


@dataclass(frozen=True)
class LoneMlpArrays:
    """Views of one agent's parameters, or of their gradients."""

    first: Tensor  # [inputs + 1, branches * hidden]
    branches: list[list[tuple[Tensor, Tensor]]]  # layer by layer: [fan_in, fan_out] and [fan_out]


class StackedMlp:
    """Forward and backward passes for a block of ``block`` agents with ``batch`` inputs each.

    Activations lie in buffers, ``memory``, that the next pass overwrites.  What can be done for all branches
    at once is: small operations cost what they cost, however little there is to compute.
    """

    @staticmethod
    def memory_shapes(shape: MlpShape, block: int, batch: int) -> list[tuple[int, ...]]:
        """The buffers: outputs, first layer and its gradient, further hidden layers, their gradients."""
        hidden = (shape.branches, block, batch, shape.hidden)
        wide = (block, batch, shape.branches * shape.hidden)
        return [(*hidden[:3], shape.outputs), wide, wide, *[hidden] * (2 * shape.hidden_layers - 2)]

    def __init__(self, hidden: int, memory: list[Tensor]) -> None:
        outputs, self.first, self.first_gradient, *others = memory
        further, gradients = others[: len(others) // 2], others[len(others) // 2 :]

        def by_branch(wide: Tensor) -> Tensor:
            return wide.view(*wide.shape[:2], -1, hidden).permute(2, 0, 1, 3)

        reads = [by_branch(self.first), *further]
        self._layers = [
            _Passage(list(below.unbind(0)), out, list(out.unbind(0)), gradient)
            for below, out, gradient in zip(
                reads,
                [*further, outputs],
                [by_branch(self.first_gradient), *gradients],
                strict=True,
            )
        ]

    def forward(self, parameters: MlpArrays, inputs: Tensor) -> Tensor:
        """Outputs ``[branches, b, n, outputs]`` for ``inputs`` ``[b, n, inputs + 1]``, last column ones."""
        multiply(inputs, parameters.first, self.first)
        return self.forward_from_first(parameters)

    def forward_from_first(self, parameters: MlpArrays) -> Tensor:
        """The same, once ``first`` ``[b, n, branches * hidden]`` holds the first layer's products."""
        torch.nn.functional.leaky_relu_(self.first, LEAK)
        last = self._layers[-1]
        for layer, passage in zip(parameters.layers, self._layers, strict=True):
            for bias, read, weight, write in zip(
                layer.biases, passage.reads, layer.weights, passage.writes, strict=True
            ):
                multiply(read, weight, write, bias, leaky=passage is not last)
        return last.above

    def backward(
        self, parameters: MlpArrays, inputs: Tensor, output_gradients: Tensor, out: MlpArrays
    ) -> None:
        """Write the parameters' gradient to ``out``.

        ``output_gradients`` is ``[branches, b, n, outputs]``; activations are those of the last `forward`.
        """
        self.backward_to_first(parameters, output_gradients, out)
        multiply_transposed(inputs, self.first_gradient, out.first)

    def backward_to_first(
        self, parameters: MlpArrays, output_gradients: Tensor, out: MlpArrays | None
    ) -> None:
        """Leave the gradient of the first layer's products in ``first_gradient``.

        It is ``[b, n, branches * hidden]``. That of the further layers' parameters is written to ``out``, if
        there is one.
        """
        upstream = output_gradients
        for at in reversed(range(len(self._layers))):
            layer, passage = parameters.layers[at], self._layers[at]
            if out is not None:
                gradient = out.layers[at]
                torch.sum(upstream, dim=2, out=gradient.bias)
                for g_out, g_weight, read in zip(
                    upstream.unbind(0), gradient.weights, passage.reads, strict=True
                ):
                    multiply_transposed(read, g_out, g_weight)
            for g_out, weight, read, write in zip(
                upstream.unbind(0), layer.transposed, passage.reads, passage.gradient.unbind(0), strict=True
            ):
                multiply_before_leak(g_out, weight, read, write)
            upstream = passage.gradient


class RowViews(Generic[Views]):
    """Views of rows that stay where they are, made once: making them costs as much as using them."""

    def __init__(self, make: Callable[[Tensor], Views]) -> None:
        self._make = make
        self._made: dict[tuple[int, int], Views] = {}

    def __call__(self, rows: Tensor) -> Views:
        """Of ``rows`` ``[b, .]``."""
        key = (rows.data_ptr(), rows.shape[0])
        if key not in self._made:
            self._made[key] = self._make(rows)
        return self._made[key]


@dataclass(frozen=True)
class _Passage:
    """What a layer after the first reads and writes: ``[branches, b, n, .]``, and views of it by branch."""

    reads: list[Tensor]
    above: Tensor
    writes: list[Tensor]
    gradient: Tensor  # that of what it reads, [branches, b, n, .]


def evaluate(parameters: MlpArrays, inputs: Tensor) -> Tensor:
    """Outputs ``[b, n, outputs]`` of a network without branches, in new memory: for acting.

    ``inputs`` is ``[b, n, inputs + 1]``, ones in the last column.
    """
    below = torch.bmm(inputs, parameters.first)
    for layer in parameters.layers:
        torch.nn.functional.leaky_relu_(below, LEAK)
        below = torch.baddbmm(layer.biases[0], below, layer.weights[0])
    return below


class StackedAdam:
    """Adam (Kingma and Ba 2015; torch's defaults) with one step count per agent, fused over each row.

    With ``rate_decay`` the step size falls with that count, for every agent by its own.
    """

    def __init__(
        self, parameters: Tensor, learning_rate: float, rate_decay: RateDecay | None = None
    ) -> None:
        self.learning_rate = learning_rate
        self.rate_decay = rate_decay
        self._parameters = parameters
        shape = (parameters.shape[0], parameters.shape[1])
        self.first_moment = zeros(shape, parameters.dtype, parameters.device)
        self.second_moment = zeros(shape, parameters.dtype, parameters.device)
        self.steps = parameters.new_zeros(parameters.shape[0], dtype=torch.float32)

    def rows(self, rows: slice, columns: slice, learning_rate: float | None = None) -> AdamRows:
        """What `apply` needs of a block of rows; ``learning_rate`` if not that of all."""
        counts = list(self.steps[rows].unbind(0))
        return AdamRows(
            self.learning_rate if learning_rate is None else learning_rate,
            list(self._parameters[rows, columns].unbind(0)),
            list(self.first_moment[rows, columns].unbind(0)),
            list(self.second_moment[rows, columns].unbind(0)),
            steps=counts,
            updates=counts,
        )

    def apply(self, rows: AdamRows, gradients: Tensor, decay: float) -> None:
        """Step against ``gradients`` ``[b, columns]`` + ``decay`` * parameters; count ``steps`` up first."""
        if self.rate_decay is None:
            _step(rows, list(gradients.unbind(0)), decay, rows.learning_rate)
            return
        for row, (gradient, update) in enumerate(zip(gradients.unbind(0), rows.updates, strict=True)):
            rate = rows.learning_rate * self.rate_decay.share(update)
            _step(rows.one(row), [gradient], decay, rate)


def _step(rows: AdamRows, gradients: list[Tensor], decay: float, rate: float | Tensor) -> None:
    torch._fused_adam_(
        rows.parameters,
        gradients,
        rows.first_moment,
        rows.second_moment,
        [],
        rows.steps,
        lr=rate,
        beta1=0.9,
        beta2=0.999,
        weight_decay=decay,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )


@dataclass(frozen=True)
class AdamRows:
    """The step size, and one view per agent of a block: parameters, moments, counts of steps and updates."""

    learning_rate: float
    parameters: list[Tensor]
    first_moment: list[Tensor]
    second_moment: list[Tensor]
    steps: list[Tensor]
    updates: list[Tensor]

    def one(self, row: int) -> AdamRows:
        """Those of one agent."""
        at = slice(row, row + 1)
        return AdamRows(
            self.learning_rate,
            self.parameters[at],
            self.first_moment[at],
            self.second_moment[at],
            self.steps[at],
            self.updates[at],
        )


def add_logit_decay(logit_gradient: Tensor, logits: Tensor, weight: float) -> Tensor:
    """Add the gradient of weight * mean(z^2) for logits z ``[n, batch, actions]``, a mean for each of the n.

    In place; MAAC's regulariser of its policies.
    """
    _, batch, n_actions = logits.shape
    return logit_gradient.add_(logits, alpha=2.0 * weight / (batch * n_actions))


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
