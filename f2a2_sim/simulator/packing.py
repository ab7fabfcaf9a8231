"""Nested state to plain JSON plus named tensors, and back. Nothing is ever pickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_REFERENCE = "$tensor"
_KIND = "$kind"


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split nested dicts, lists, numbers, strings, arrays and tensors into a JSON tree and its tensors."""
    tensors: dict[str, Tensor] = {}
    return _pack(state, "", tensors), tensors


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that :func:`pack` was given; arrays come back as arrays, tensors as tensors."""
    if isinstance(tree, dict):
        if _REFERENCE in tree:
            tensor = tensors[tree[_REFERENCE]]
            return tensor.numpy() if tree[_KIND] == "array" else tensor
        if "$pairs" in tree:
            return {key: unpack(value, tensors) for key, value in tree["$pairs"]}
        return {key: unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _pack(item, f"{path}/{key}", tensors) for key, item in value.items()}
        return {"$pairs": [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        return _refer(torch.from_numpy(np.ascontiguousarray(value)), "array", path, tensors)
    if isinstance(value, Tensor):
        return _refer(value.detach(), "tensor", path, tensors)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be saved")


def _refer(tensor: Tensor, kind: str, path: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    while path in tensors:  # {"a": {"b": x}, "a/b": y}
        path += "'"
    tensors[path] = tensor
    return {_REFERENCE: path, _KIND: kind}
