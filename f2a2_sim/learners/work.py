"""What a piece of learning costs a device: counted on the real code, once per shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


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


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products that ``work`` performs (a multiply-add is two)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def count_bytes(work: Callable[[], object]) -> int:
    """Bytes that the operations of ``work`` read and write, each its whole inputs and outputs."""
    with ByteCounter() as counter:
        work()
    return int(counter.bytes)


def count_launches(work: Callable[[], object]) -> int:
    """Kernel launches that ``work`` would need on a GPU."""
    with LaunchCounter() as counter:
        work()
    return int(counter.launches)
