"""Updates as CUDA graphs: hundreds of small kernels are launched by one call.

What an update computes is the same every time but for what it was given, so that is copied to where the
kernels were recorded to read it, and the recording is replayed. The first updates are computed plainly: they
make all buffers that later ones use again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f2a2_sim.learners.joint.replay import JointTransitions

_PLAIN_UPDATES = 3
_SWITCH = "F2A2_CUDA_GRAPHS"


def graphs_wanted(device: torch.device) -> bool:
    """On CUDA, unless the environment has F2A2_CUDA_GRAPHS=0."""
    return device.type == "cuda" and os.environ.get(_SWITCH) != "0"


class RecordedUpdates:
    """One recording for each kind of update, see `run`."""

    def __init__(self) -> None:
        self._plain: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recording] = {}

    def run(self, kind: Hashable, given: Given, update: Callable[[Given], Tensor]) -> Tensor:
        """``update(given)``; it overwrites what it returned for the same kind before.

        ``kind`` stands for all that decides which kernels ``update`` launches. It may read and write tensors
        that stay where they are, and must not wait for the device.
        """
        recording = self._recorded.get(kind)
        if recording is None:
            count = self._plain.get(kind, 0)
            if count < _PLAIN_UPDATES:
                self._plain[kind] = count + 1
                return update(given)
            recording = self._recorded[kind] = _Recording(given, update)
        return recording.replay(given)


@dataclass(frozen=True)
class Given:
    """What an update of a block gets."""

    transitions: JointTransitions
    rewards: Tensor  # [b, batch], as the learner sees them
    uniforms: Tensor  # [b, draws]

    def copy(self) -> Given:
        """The same in memory of its own."""
        transitions: dict[str, Any] = {
            name: None if field is None else field.clone() for name, field in vars(self.transitions).items()
        }
        return Given(JointTransitions(**transitions), self.rewards.clone(), self.uniforms.clone())

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        held = [field for field in vars(self.transitions).values() if field is not None]
        return [*held, self.rewards, self.uniforms]


class _Recording:
    def __init__(self, given: Given, update: Callable[[Given], Tensor]) -> None:
        self._given = given.copy()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = update(self._given)

    def replay(self, given: Given) -> Tensor:
        for mine, new in zip(self._given.tensors(), given.tensors(), strict=True):
            mine.copy_(new)
        self._graph.replay()
        return self._result
