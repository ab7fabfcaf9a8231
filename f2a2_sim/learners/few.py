"""Softmax over a last axis of a few numbers, such as actions or agents.

torch's own takes forty times as long there as over a first axis, along which it computes in vectors. So the
axis is put in front, and what is returned is a view of that.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softmax(values: Tensor) -> Tensor:
    """As torch's, over the last axis."""
    return torch.softmax(_in_front(values), dim=0).movedim(0, -1)


def log_softmax(values: Tensor) -> Tensor:
    """As torch's, over the last axis."""
    return torch.log_softmax(_in_front(values), dim=0).movedim(0, -1)


def _in_front(values: Tensor) -> Tensor:
    return values.movedim(-1, 0).contiguous()
