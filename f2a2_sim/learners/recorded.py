"""Updates that are recorded once and then played: as CUDA graphs, or on a processor as tapes.

What an update computes is the same every time but for what it was given. On CUDA that is copied to where
the kernels were recorded to read it, and hundreds of them are launched by one call; on a processor a tape
gets it (`f2a2_sim.learners.tape`). The first updates are computed plainly: they make all buffers that later
ones use again, and on CUDA also what its libraries need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from f2a2_sim.learners.tape import Tape, available

_PLAIN_UPDATES = {"cpu": 1, "cuda": 3}
_KINDS = 128  # so many are recorded; a fleet whose agents update at different times may know of hundreds
_SWITCH = "F2A2_RECORDED_UPDATES"


def recording_wanted(device: torch.device) -> bool:
    """Where updates can be recorded, unless the environment has F2A2_RECORDED_UPDATES=0."""
    possible = device.type == "cuda" or (device.type == "cpu" and available())
    return possible and os.environ.get(_SWITCH) != "0"


def recorder_for(device: torch.device) -> RecordedUpdates:
    """Of updates that are recorded on processors alone, if at all: not as CUDA graphs."""
    return RecordedUpdates(wanted=device.type == "cpu" and recording_wanted(device))


class RecordedUpdates:
    """One recording for each kind of update, see `run`; none unless they are ``wanted``."""

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._plain: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Graph | Tape] = {}

    def __len__(self) -> int:
        """How many kinds are recorded."""
        return len(self._recorded)

    def run(self, kind: Hashable, given: Sequence[Tensor], update: Callable[..., Tensor]) -> Tensor:
        """``update(*given)``; it overwrites what it returned for the same kind before.

        ``kind`` stands for all that decides which operations ``update`` asks for; no two threads may ask for
        one kind at a time. ``update`` may read and write tensors that stay where they are, and must not wait
        for the device.
        """
        if not self._wanted:
            return update(*given)
        recording = self._recorded.get(kind)
        if recording is not None:
            return recording.play(given)
        count = self._plain[kind] = self._plain.get(kind, 0) + 1
        if count <= _PLAIN_UPDATES[given[0].device.type] or len(self._recorded) >= _KINDS:
            return update(*given)
        new = (_Graph if given[0].is_cuda else Tape)(update, given)
        if new.failure is None:
            self._recorded[kind] = new
        else:
            self._plain[kind] = -(2**62)  # plain for good
        return new.result


class _Graph:
    """A `Tape` on CUDA."""

    failure = None

    def __init__(self, update: Callable[..., Tensor], given: Sequence[Tensor]) -> None:
        self._given = [tensor.clone() for tensor in given]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.result = update(*self._given)
        self.play(given)  # to record computes nothing

    def play(self, given: Sequence[Tensor]) -> Tensor:
        for mine, new in zip(self._given, given, strict=True):
            mine.copy_(new)
        self._graph.replay()
        return self.result
