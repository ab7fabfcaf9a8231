"""A computation on tensors, recorded once and played again without Python.

Hundreds of short operations a block cost Python some microseconds each, and its lock, which threads that
compute blocks side by side then wait for. A tape holds the operations as a graph of torch's own interpreter,
which lets go of the lock and asks for it again when all is done. It computes the very same operations in the
same order, so results are equal to the bit.

The graph is put together from the operations that torch dispatches (`f2a2_sim.learners.dispatch`), by
torch's interface for compilers, which may change: `available` says whether this torch has it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from f2a2_sim.learners.dispatch import DispatchMode

_recording = threading.Lock()
"""Held while a thread records: two that did so at once crashed now and then in torch's dispatch to Python."""


class _NotRecordable(Exception):
    """The computation did what a tape cannot repeat."""


def available() -> bool:
    """Whether this torch can play tapes."""
    names = ("Graph", "_create_function_from_graph", "_set_graph_executor_optimize")
    return all(hasattr(torch._C, name) for name in names)


class Tape:
    """``compute(*given)``, which returns one tensor, as it was when recorded; see `play`.

    Tensors that it reads or writes besides ``given`` must stay where they are: the tape holds them. What it
    computes from numbers that are not tensors is the same each time.
    """

    def __init__(self, compute: Callable[..., Tensor], given: Sequence[Tensor]) -> None:
        """Compute once, for ``result``, and record how; ``failure`` says why it cannot be played, if so."""
        recorder = _Recorder(given)
        with _recording, recorder:
            self.result = compute(*given)
        self.failure = recorder.failure
        self.operations = recorder.operations
        if self.failure is None:
            self._function, self._held = recorder.finish(self.result)

    def play(self, given: Sequence[Tensor]) -> Tensor:
        """The same with other tensors of the same shapes and types."""
        before = torch._C._get_graph_executor_optimize()
        torch._C._set_graph_executor_optimize(False)  # it would rewrite the graph for another rounding
        try:
            result: Tensor = self._function(*given, *self._held)
        finally:
            torch._C._set_graph_executor_optimize(before)
        return result


class _Recorder(DispatchMode):
    """Runs operations as they come, and writes them down.

    A tensor is known by its object, for as long as that lives.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.operations = 0
        self.failure: str | None = None
        self._graph: Any = torch._C.Graph()
        self._values = WeakTensorKeyDictionary()
        self._made = WeakTensorKeyDictionary()  # what is given or computed; all else is held
        self._held: list[Tensor] = []
        for tensor in given:
            self._enter(tensor, self._graph.addInput(), made=True)

    def finish(self, result: Tensor) -> tuple[Callable[..., Tensor], list[Tensor]]:
        """What plays it, and the tensors that it wants after those given."""
        self._graph.registerOutput(self._value(result))
        self._graph.lint()
        return torch._C._create_function_from_graph("tape", self._graph), self._held

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.failure is None:
            try:
                self._write(func, args, kwargs, result)
            except (_NotRecordable, RuntimeError, TypeError, KeyError) as failure:  # the latter are torch's
                self.failure = str(failure)
        return result

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        returns = func._schema.returns
        results = [] if not returns else [result] if len(returns) == 1 else list(result)
        read = [x for x in _flat([args, kwargs]) if isinstance(x, Tensor)]
        if any(not isinstance(x, Tensor) for x in _flat(results)):
            raise _NotRecordable(f"{func} tells Python a number")
        if not func._schema.is_mutable and all(self._is_held_view(x, read) for x in _flat(results)):
            return
        schema = func._schema
        values, scalars = [], False
        for at, argument in enumerate(schema.arguments):
            given = args[at] if at < len(args) else kwargs.get(argument.name, argument.default_value)
            values.append(self._argument(given, argument.type))
            number = isinstance(given, (int, float)) and isinstance(argument.type, torch._C.TensorType)
            scalars = scalars or number  # the form for scalars is taken, which computes the same
        node = self._graph.create(schema.name, values, len(returns))
        self._graph.appendNode(node)
        if node.schema() != str(schema) and not scalars:
            raise _NotRecordable(f"{schema} is taken for {node.schema()}")
        self.operations += 1
        for made, value, returned in zip(results, node.outputs(), returns, strict=True):
            value.setType(returned.type)
            if isinstance(made, Tensor):
                self._enter_made(made, value)
                continue
            parts = self._graph.create("prim::ListUnpack", [value], len(made))
            self._graph.appendNode(parts)
            for tensor, part in zip(made, parts.outputs(), strict=True):
                self._enter_made(tensor, part)

    def _is_held_view(self, tensor: Tensor, read: list[Tensor]) -> bool:
        """Whether it is memory that stays, seen in another way: then the view stays too."""
        place = tensor.untyped_storage().data_ptr()
        return place != 0 and any(
            x not in self._made and x.untyped_storage().data_ptr() == place for x in read
        )

    def _enter_made(self, tensor: Tensor, value: Any) -> None:
        if tensor in self._values and tensor not in self._made:
            return  # it was written to, and is held already
        self._enter(tensor, value, made=True)

    def _enter(self, tensor: Tensor, value: Any, made: bool) -> None:
        value.setType(torch._C.TensorType.get())
        self._values[tensor] = value
        if made:
            self._made[tensor] = True

    def _value(self, tensor: Tensor) -> Any:
        if tensor not in self._values:
            self._enter(tensor, self._graph.addInput(), made=False)
            self._held.append(tensor)
        return self._values[tensor]

    def _argument(self, given: Any, kind: Any) -> Any:
        if isinstance(given, Tensor):
            return self._value(given)
        while isinstance(kind, torch._C.OptionalType):
            kind = kind.getElementType()
        if isinstance(given, (list, tuple)):
            element = kind.getElementType()
            node = self._graph.create("prim::ListConstruct", [self._argument(x, element) for x in given], 1)
            self._graph.appendNode(node)
            value = node.output()
            value.setType(torch._C.ListType(element))
            return value
        if isinstance(given, torch.memory_format):
            given = _FORMATS[given]
        elif isinstance(kind, torch._C.FloatType) and given is not None:
            given = float(given)
        elif isinstance(given, torch.Generator):
            raise _NotRecordable("it draws random numbers")
        return self._graph.insertConstant(given)


def _flat(nested: Any) -> list[Any]:
    if isinstance(nested, dict):
        return _flat(list(nested.values()))
    if isinstance(nested, (list, tuple)):
        return [x for inner in nested for x in _flat(inner)]
    return [nested]


_FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1}  # as torch numbers them
