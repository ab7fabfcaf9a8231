"""What a piece of learning costs a device: counted on the real code, once per shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
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


def count_launches(work: Callable[[], object]) -> int:
    """Kernel launches that ``work`` would need on a GPU."""
    with LaunchCounter() as counter:
        work()
    return int(counter.launches)
