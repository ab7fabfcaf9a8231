"""Messages between processes as bytes: a small msgpack header, and the raw bytes of each tensor.

Whatever arrives is taken for hostile: presence, type, range and size of everything are checked before any
memory is given to it, nothing is executed or imported, and the only error is :class:`WireError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack
import numpy as np
from numpy.typing import NDArray

from network.errors import Refusal, WireError

SCHEMA_VERSION = 1
WORLD_NUMBER = -1
MAX_AGENT = 999_999
FIELD_DEPTH = 4
"""How deep lists and dicts may stand in each other inside ``fields``."""

_NAMES = ("float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool")
# Numbers travel with their lowest byte first; that is what most machines use themselves.
_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in _NAMES}
_KEYS = {"version", "kind", "sender", "session", "sequence", "sent_s", "fields", "tensors"}
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME_CHARACTERS = 128
# msgpack makes a list of the promised length before it has seen the items, for every level of nesting.
_ITEMS = 4096


@dataclass(frozen=True)
class Message:
    """What one process tells another."""

    kind: str
    """What it is about; 1 to 64 of ``A-Z a-z 0-9 _ . -``."""
    sender: int
    """The agent's number, or -1 for the world."""
    session: int
    """64 bits that the sending process has drawn at its start."""
    sequence: int
    """Number of the message in its session, growing."""
    sent_s: float
    """When it was sent, in seconds of the sender's clock."""
    fields: Mapping[str, Any]
    """None, bool, int of 64 bits, float, str, and lists and dicts of these, at most 4 deep."""
    tensors: Mapping[str, NDArray[Any]]
    """float16/32/64, int8/32/64, uint8 or bool; C-contiguous. Those received are read-only."""


@dataclass(frozen=True)
class Limits:
    """How large a message may be that is let in."""

    header_bytes: int = 65_536
    message_bytes: int = 64 * 1024 * 1024
    """Header and tensors together."""
    tensors: int = 32
    dimensions: int = 4


def encode(message: Message) -> list[bytes | memoryview]:
    """The frames of a message: header, then one per tensor. They share no memory with the arrays.

    Raises WireError ("malformed") for what `decode` would not let in whatever its limits.
    """
    table, frames = [], []
    for name, array in message.tensors.items():
        _check_tensor_name(name)
        kind = array.dtype.name
        if kind not in _DTYPES or array.dtype != _DTYPES[kind]:
            _refuse("malformed", f"tensor {name!r} is of type {array.dtype}; allowed are {', '.join(_NAMES)}")
        if not array.flags.c_contiguous:
            _refuse("malformed", f"tensor {name!r} is not C-contiguous")
        table.append([name, kind, list(array.shape)])
        frames.append(array.tobytes())
    header = {
        "version": SCHEMA_VERSION,
        "kind": message.kind,
        "sender": message.sender,
        "session": message.session,
        "sequence": message.sequence,
        "sent_s": message.sent_s,
        "fields": dict(message.fields),
        "tensors": table,
    }
    _check_header(header)
    try:
        return [msgpack.packb(header), *frames]
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError("malformed", f"cannot be packed ({error})") from error


def decode(frames: Sequence[bytes | memoryview], limits: Limits) -> Message:
    """The message in these frames; its tensors are read-only views of them, aligned or not.

    Raises WireError: "oversized" beyond the limits, "version" for another schema, else "malformed".
    """
    if not frames:
        _refuse("malformed", "no frames")
    if len(frames) > 1 + limits.tensors:
        _refuse("oversized", f"{len(frames)} frames; allowed are {1 + limits.tensors}")
    views = [memoryview(frame).toreadonly() for frame in frames]
    if views[0].nbytes > limits.header_bytes:
        _refuse("oversized", f"a header of {views[0].nbytes} bytes; allowed are {limits.header_bytes}")
    total = sum(view.nbytes for view in views)
    if total > limits.message_bytes:
        _refuse("oversized", f"{total} bytes; allowed are {limits.message_bytes}")
    header = _unpack(views[0])
    _check_header(header)
    table = header["tensors"]
    if len(table) != len(views) - 1:
        _refuse("malformed", f"{len(views) - 1} frames for {len(table)} tensors")
    tensors: dict[str, NDArray[Any]] = {}
    for entry, view in zip(table, views[1:], strict=True):
        name, array = _tensor(entry, view, limits)
        if name in tensors:
            _refuse("malformed", f"tensor {name!r} comes twice")
        tensors[name] = array
    return Message(
        kind=header["kind"],
        sender=header["sender"],
        session=header["session"],
        sequence=header["sequence"],
        sent_s=header["sent_s"],
        fields=header["fields"],
        tensors=tensors,
    )


def _unpack(view: memoryview) -> Any:
    """The header as Python objects, of which only their number is bounded as yet."""
    try:
        return msgpack.unpackb(
            view, max_array_len=_ITEMS, max_map_len=_ITEMS, object_pairs_hook=_dict, ext_hook=_no_extension
        )
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise WireError("malformed", f"header is not msgpack ({type(error).__name__})") from error


def _dict(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("malformed", "a key comes twice")
    return found


def _no_extension(code: int, data: bytes) -> NoReturn:
    _refuse("malformed", f"msgpack extension {code}")


def _check_header(header: Any) -> None:
    """Raise WireError unless the header is right in everything but its tensors' entries."""
    if not isinstance(header, dict) or "version" not in header:
        _refuse("malformed", "no schema version")
    _check_int("version", header["version"], 0, 2**32 - 1)
    if header["version"] != SCHEMA_VERSION:
        _refuse("version", f"schema {header['version']}; this program speaks {SCHEMA_VERSION}")
    if header.keys() != _KEYS:
        odd = sorted(str(key)[:40] for key in header.keys() ^ _KEYS)
        _refuse("malformed", f"keys missing or unknown: {', '.join(odd[:8])}")
    if not isinstance(header["kind"], str) or not _KIND.fullmatch(header["kind"]):
        _refuse("malformed", "kind is not a word")
    _check_int("sender", header["sender"], WORLD_NUMBER, MAX_AGENT)
    _check_int("session", header["session"], 0, 2**64 - 1)
    _check_int("sequence", header["sequence"], 0, 2**63 - 1)
    if not isinstance(header["sent_s"], float) or not math.isfinite(header["sent_s"]):
        _refuse("malformed", "sent_s is not a finite float")
    if not isinstance(header["fields"], dict):
        _refuse("malformed", "fields is not a dict")
    _check_value(header["fields"], FIELD_DEPTH + 1)
    if not isinstance(header["tensors"], list):
        _refuse("malformed", "tensors is not a list")


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _refuse("malformed", f"{name} is not an integer from {low} to {high}")


def _check_value(value: Any, depth: int) -> None:
    """Raise WireError unless it is plain data with at most ``depth`` levels of lists and dicts."""
    if value is None or isinstance(value, bool | float | str):
        return
    if isinstance(value, int):
        _check_int("a field", value, -(2**63), 2**64 - 1)
        return
    if not isinstance(value, list | dict):
        _refuse("malformed", f"a field is of type {type(value).__name__}")
    if depth == 0:
        _refuse("malformed", f"fields are more than {FIELD_DEPTH} deep")
    if len(value) > _ITEMS:
        _refuse("malformed", f"a list or dict of more than {_ITEMS} items")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            _refuse("malformed", "the key of a field is not a string")
        value = value.values()
    for item in value:
        _check_value(item, depth - 1)


def _tensor(entry: Any, view: memoryview, limits: Limits) -> tuple[str, NDArray[Any]]:
    """Name and array of one tensor: a view of its frame, once the frame is as long as the entry says."""
    if not isinstance(entry, list) or len(entry) != 3:
        _refuse("malformed", "a tensor's entry is not name, type, shape")
    name, kind, shape = entry
    _check_tensor_name(name)
    if not isinstance(kind, str) or kind not in _DTYPES:
        _refuse("malformed", f"tensor {name!r} is of unknown type")
    if not isinstance(shape, list):
        _refuse("malformed", f"the shape of tensor {name!r} is not a list")
    if len(shape) > limits.dimensions:
        _refuse("oversized", f"tensor {name!r} has {len(shape)} dimensions; allowed are {limits.dimensions}")
    for length in shape:
        _check_int("a length", length, 0, 2**64 - 1)
    dtype = _DTYPES[kind]
    # Lengths of zero do not count: numpy refuses an empty array whose other lengths are absurd.
    if math.prod(max(length, 1) for length in shape) * dtype.itemsize > limits.message_bytes:
        _refuse("oversized", f"tensor {name!r} claims a shape beyond {limits.message_bytes} bytes")
    if math.prod(shape) * dtype.itemsize != view.nbytes:
        _refuse("malformed", f"tensor {name!r} has {view.nbytes} bytes, which is not its shape's size")
    array: NDArray[Any] = np.frombuffer(view, dtype=dtype) if view.nbytes else np.zeros(0, dtype=dtype)
    if kind == "bool" and view.nbytes and array.view(np.uint8).max() > 1:
        _refuse("malformed", f"tensor {name!r} has bools that are neither 0 nor 1")
    array = array.reshape(shape)
    array.flags.writeable = False
    return name, array


def _check_tensor_name(name: Any) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS:
        _refuse("malformed", f"the name of a tensor is not a string of 1 to {_NAME_CHARACTERS} characters")


def _refuse(reason: Refusal, text: str) -> NoReturn:
    raise WireError(reason, text)
