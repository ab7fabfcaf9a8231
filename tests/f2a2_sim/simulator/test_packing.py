"""Any nested state survives packing to JSON and tensors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.simulator.packing import pack, unpack

Leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.builds(lambda n: np.arange(n, dtype=np.int64), st.integers(0, 4)),
    st.builds(lambda n: torch.arange(n, dtype=torch.float16), st.integers(0, 4)),
)
States = st.recursive(
    Leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(alphabet="ab/", min_size=1, max_size=3), inner, max_size=3),
        st.dictionaries(st.integers(0, 9), inner, max_size=3),
    ),
    max_leaves=12,
)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and bool((a == b).all())
    return type(a) is type(b) and a == b


@given(States)
def test_round_trip(state: Any) -> None:
    tree, tensors = pack(state)
    assert equal(unpack(json.loads(json.dumps(tree)), tensors), state)


def test_an_object_is_refused() -> None:
    with pytest.raises(TypeError, match="/a/0: a object cannot be saved"):
        pack({"a": [object()]})
