"""What a piece of learning costs a device: counted on the real code, once per shape.

Counted is what one thread does with torch's ordinary products, so that a simulated device's time does not
depend on the machine that simulates it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from devices.compute import Work
from f2a2_sim.learners.dispatch import DispatchMode
from f2a2_sim.learners.pool import one_thread
from f2a2_sim.learners.products import plainly


class _Counter(DispatchMode):
    """Counts what every operation that passes costs; views are free.

    One that consists of others, as matmul does without gradients, is one launch, of the others' products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0
        self.launches = 0
        self._within = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        flops = _FLOPS.get(func._overloadpacket)
        if flops is not None:
            result = func(*args, **given)
            self.flops += int(flops(*args, **given, out_val=result))
        else:
            result = self._of_others(func, args, given)
        if not self._within and not func.is_view and not func.name().startswith(_NOT_LAUNCHED):
            self.launches += 1
            touched = tree_leaves((args, kwargs, result))
            self.bytes += sum(t.numel() * t.element_size() for t in touched if isinstance(t, torch.Tensor))
        return result

    def _of_others(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outside, self._within = self._within, True
        try:
            with self:
                result = func.decompose(*args, **kwargs)
        finally:
            self._within = outside
        return func(*args, **kwargs) if result is NotImplemented else result


_NOT_LAUNCHED = (
    "aten::empty",
    "aten::new_empty",
    "aten::_unsafe_view",
    "aten::detach",
    "aten::_local_scalar_dense",
)


def _flops_in_place(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor, **_: Any) -> int:
    return 2 * into.numel() * left.shape[-1]


# torch's own formulas leave out products that are added in place.
_FLOPS = {**flop_registry, torch.ops.aten.baddbmm_: _flops_in_place}


def count_work(work: Callable[[], object]) -> Work:
    """The floating-point operations of its matrix products (a multiply-add is two), the bytes that its
    operations read and write, each its whole inputs and outputs, and the kernels it would launch on a GPU.

    ``work`` is done twice: the first time it may make what it uses again.
    """
    for _ in range(2):
        with one_thread(), plainly(), _Counter() as counter:  # which sees its own thread alone
            work()
    return Work(float(counter.flops), float(counter.bytes), counter.launches)
