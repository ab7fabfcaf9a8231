"""What a piece of learning costs a device: counted on the real code, once per shape.

Counted is what one thread does with torch's ordinary products, so that a simulated device's time does not
depend on the machine that simulates it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from devices.compute import Work
from f2a2_sim.learners.pool import one_thread
from f2a2_sim.learners.products import plainly


class LaunchCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that move or compute numbers: each is one kernel launch on a GPU.  Views are free."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not func.is_view and not func.name().startswith(_NOT_LAUNCHED):
            self.launches += 1
        return func(*args, **(kwargs or {}))


class ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of what every operation reads and writes, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func.name().startswith(_NOT_LAUNCHED):
            touched = tree_leaves((args, kwargs, result))
            self.bytes += sum(t.numel() * t.element_size() for t in touched if isinstance(t, torch.Tensor))
        return result


_NOT_LAUNCHED = (
    "aten::empty",
    "aten::new_empty",
    "aten::_unsafe_view",
    "aten::detach",
    "aten::_local_scalar_dense",
)


def _flops_in_place(into: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    return 2 * into.numel() * left[-1]


@contextmanager
def _counted() -> Iterator[None]:
    with one_thread(), plainly():  # counters see their own thread alone
        yield


def count_work(work: Callable[[], object]) -> Work:
    """All of it; ``work`` is done three times."""
    return Work(float(count_flops(work)), float(count_bytes(work)), count_launches(work))


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products that ``work`` performs (a multiply-add is two)."""
    in_place = {torch.ops.aten.baddbmm_: _flops_in_place}  # torch's counter leaves it out
    with _counted(), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        work()
    return int(counter.get_total_flops())


def count_bytes(work: Callable[[], object]) -> int:
    """Bytes that the operations of ``work`` read and write, each its whole inputs and outputs."""
    with _counted(), ByteCounter() as counter:
        work()
    return int(counter.bytes)


def count_launches(work: Callable[[], object]) -> int:
    """Kernel launches that ``work`` would need on a GPU."""
    with _counted(), LaunchCounter() as counter:
        work()
    return int(counter.launches)
