"""Matrix products of many rows, by the faster of torch's two libraries.

torch multiplies matrices with MKL, which on AMD's processors does without AVX-512: where these have units of
that width (from the fifth generation of EPYC on), oneDNN, which torch brings along for reduced precision and
for compiled graphs, is more than twice as fast. On others with AVX-512 the two are even, but oneDNN adds
biases and applies a leaky ReLU on the way. So it is asked there, for float32 and enough rows that a call for
each agent does not matter. Everywhere else, on GPUs above all, a stack of agents is one batched product. Both
compute the same but for rounding; which one does depends on the machine alone.

What learning costs a simulated device must not depend on the machine: `plainly` is for counting it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LEAK = 0.01
_FULL_WIDTH = 26  # AMD's family of processors from which on units are as wide as AVX-512
_CACHED = 2**20  # numbers: so many of a matrix that is to be transposed stay in the cache
_FEW = 64  # columns: MKL takes up to five times as long over fewer as over as many rows
_NARROW = 8  # columns: products of so few are computed as (right^T left^T)^T, in a quarter of the time


def _find() -> Callable[..., Tensor] | None:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    try:  # it is there only if torch was built with oneDNN
        operation: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return None
    return operation


def _is_ahead(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether oneDNN is much faster than MKL on this machine, if it has AVX-512 at all."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    family = told.get("cpu family", "")
    return told.get("vendor_id") == "AuthenticAMD" and family.isdigit() and int(family) >= _FULL_WIDTH


_one_dnn = _find()
_ahead = _is_ahead()
_ROWS = 128 if _ahead else 1024  # fewer are not worth a call for each agent
_plain = False


@contextmanager
def plainly() -> Iterator[None]:
    """Products are torch's ordinary ones on every machine; in all threads, so not while others learn."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def by_agent(rows: Tensor) -> bool:
    """Whether products with ``rows`` ``[..., rows, columns]`` on the left are oneDNN's, agent by agent."""
    return (
        _one_dnn is not None
        and not _plain
        and rows.dtype == torch.float32
        and rows.device.type == "cpu"
        and rows.shape[-2] >= _ROWS
    )


def _worth_a_copy(rows: Tensor) -> bool:
    """Whether oneDNN is asked even where what it makes, in memory of its own, must be copied to its place."""
    return _ahead and by_agent(rows)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None, leaky: bool = False) -> Tensor:
    """``rows @ weight + bias``, then a leaky ReLU if ``leaky``, in new memory.

    ``rows`` ``[m, k]``, ``weight`` ``[k, n]``, ``bias`` ``[n]``.
    """
    if by_agent(rows):
        return _linear(rows, weight, bias, leaky)
    if weight.shape[1] <= _NARROW:
        out = (weight.mT @ rows.mT).mT.contiguous()
        out = out if bias is None else out.add_(bias)
    else:
        out = torch.mm(rows, weight) if bias is None else torch.addmm(bias, rows, weight)
    return torch.nn.functional.leaky_relu_(out, LEAK) if leaky else out


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None, leaky: bool) -> Tensor:
    assert _one_dnn is not None
    if not (weight.is_contiguous() or weight.mT.is_contiguous()):
        weight = weight.contiguous()  # oneDNN takes a thousand times as long over gaps between rows
    slope: list[Any] = [LEAK] if leaky else []
    return _one_dnn(rows, weight.mT, bias, "leaky_relu" if leaky else "none", slope, "")


def multiply(
    rows: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None, leaky: bool = False
) -> None:
    """The same for a stack of agents, into ``out`` ``[b, m, n]``.

    ``rows`` ``[b, m, k]``, ``weight`` ``[b, k, n]``, ``bias`` ``[b, 1, n]``.
    """
    if _worth_a_copy(rows):
        for i in range(rows.shape[0]):
            out[i].copy_(_linear(rows[i], weight[i], None if bias is None else bias[i, 0], leaky))
        return
    if weight.shape[2] <= _NARROW:
        out.copy_((weight.mT @ rows.mT).mT)
        if bias is not None:
            out.add_(bias)
    elif bias is None:
        torch.bmm(rows, weight, out=out)
    else:
        torch.baddbmm(bias, rows, weight, out=out)
    if leaky:
        torch.nn.functional.leaky_relu_(out, LEAK)


def add_product(rows: Tensor, weight: Tensor, out: Tensor) -> None:
    """Add ``rows @ weight`` to ``out`` ``[b, m, n]``."""
    if _worth_a_copy(rows):
        for i in range(rows.shape[0]):
            out[i].add_(_linear(rows[i], weight[i], None, False))
    else:
        torch.baddbmm(out, rows, weight, out=out)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None, leaky: bool = False) -> Tensor:
    """The same in new memory."""
    out = rows.new_empty(*rows.shape[:2], weight.shape[2])
    multiply(rows, weight, out, bias, leaky)
    return out


def multiply_transposed(left: Tensor, right: Tensor, out: Tensor) -> None:
    """``left^T right`` of ``[b, m, k]`` and ``[b, m, n]`` into ``out`` ``[b, k, n]``: weights' gradients."""
    if _worth_a_copy(left):
        for i in range(left.shape[0]):
            write_transposed(left[i], right[i], out[i])
    elif right.shape[2] <= _NARROW:
        out.copy_((right.mT @ left).mT)
    else:
        torch.bmm(left.mT, right, out=out)


def _linear_transposed(left: Tensor, right: Tensor) -> Tensor:
    """``left^T right`` of ``[m, k]`` and ``[m, n]``, in new memory; not for products that are not `by_agent`.

    oneDNN makes a transposed copy of what comes first: that is the narrower one. A copy that leaves the cache
    costs as much as the product, so there it is MKL's, which makes none.
    """
    if min(left.shape[1], right.shape[1]) * left.shape[0] > _CACHED:
        return torch.mm(left.mT, right)
    if right.shape[1] < left.shape[1]:
        return _linear(right.mT, left, None, False).mT
    return _linear(left.mT, right, None, False)


def write_transposed(left: Tensor, right: Tensor, out: Tensor, add: bool = False) -> None:
    """Write, or add, ``left^T right`` of ``[m, k]`` and ``[m, n]`` to ``out`` ``[k, n]``."""
    if _worth_a_copy(left):
        made = _linear_transposed(left, right)
    elif right.shape[1] < min(left.shape[1], _FEW):
        made = torch.mm(right.mT, left).mT
    else:
        torch.addmm(out, left.mT, right, beta=1.0 if add else 0.0, out=out)
        return
    out.add_(made) if add else out.copy_(made)


def multiply_before_leak(rows: Tensor, weight: Tensor, activation: Tensor, out: Tensor) -> None:
    """`multiply` and then `through_leak`, in one pass over ``out``."""
    if by_agent(rows):
        for i in range(rows.shape[0]):
            through_leak(_linear(rows[i], weight[i], None, False), activation[i], out[i])
        return
    multiply(rows, weight, out)
    through_leak(out, activation)


def through_leak(gradient: Tensor, activation: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient before a leaky ReLU, from that behind it and what came out of it.

    It is written to ``out``, or over ``gradient``.
    """
    out = gradient if out is None else out
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, activation, LEAK, True, grad_input=out)
    return out
