"""Updates that are recorded once and then played: as CUDA graphs, or on a processor as tapes.

What an update computes is the same every time but for what it was given. On CUDA that is copied to where the
kernels were recorded to read it, and hundreds of them are launched by one call; on a processor a tape is given
it (`f2a2_sim.learners.tape`). The first updates are computed plainly: they make all buffers that later ones
use again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from f2a2_sim.learners.joint.replay import JointTransitions
from f2a2_sim.learners.tape import Tape, available

_PLAIN_UPDATES = 3
_KINDS = 128  # so many are recorded; a fleet whose agents update at different times may know of hundreds
_SWITCH = "F2A2_RECORDED_UPDATES"


def recording_wanted(device: torch.device) -> bool:
    """Where updates can be recorded, unless the environment has F2A2_RECORDED_UPDATES=0."""
    possible = device.type == "cuda" or (device.type == "cpu" and available())
    return possible and os.environ.get(_SWITCH) != "0"


class RecordedUpdates:
    """One recording for each kind of update, see `run`."""

    def __init__(self) -> None:
        self._plain: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Graph | _Tape] = {}

    def __len__(self) -> int:
        """How many kinds are recorded."""
        return len(self._recorded)

    def run(self, kind: Hashable, given: Given, update: Callable[[Given], Tensor]) -> Tensor:
        """``update(given)``; it overwrites what it returned for the same kind before.

        ``kind`` stands for all that decides which operations ``update`` asks for, and threads must not ask for
        one kind at a time. ``update`` may read and write tensors that stay where they are, and must not wait
        for the device.
        """
        recording = self._recorded.get(kind)
        if recording is not None:
            return recording.play(given)
        count = self._plain[kind] = self._plain.get(kind, 0) + 1
        if count <= _PLAIN_UPDATES or len(self._recorded) >= _KINDS:
            return update(given)
        new = (_Graph if given.rewards.is_cuda else _Tape)(given, update)
        if new.playable:
            self._recorded[kind] = new
        else:
            self._plain[kind] = -(2**62)  # for good
        return new.first


@dataclass(frozen=True)
class Given:
    """What an update of a block gets."""

    transitions: JointTransitions
    rewards: Tensor  # [b, batch], as the learner sees them
    uniforms: Tensor  # [b, draws]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Given:
        """The same with others in the place of its `tensors`."""
        *transitions, rewards, uniforms = tensors
        names = (name for name, field in vars(self.transitions).items() if field is not None)
        fields: dict[str, Any] = dict(zip(names, transitions, strict=True))
        return Given(replace(self.transitions, **fields), rewards, uniforms)

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        held = [field for field in vars(self.transitions).values() if field is not None]
        return [*held, self.rewards, self.uniforms]


class _Graph:
    """On CUDA."""

    playable = True

    def __init__(self, given: Given, update: Callable[[Given], Tensor]) -> None:
        self._given = given.with_tensors([tensor.clone() for tensor in given.tensors()])
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = update(self._given)
        self.first = self.play(given)  # recording computes nothing

    def play(self, given: Given) -> Tensor:
        for mine, new in zip(self._given.tensors(), given.tensors(), strict=True):
            mine.copy_(new)
        self._graph.replay()
        return self._result


class _Tape:
    """On a processor."""

    def __init__(self, given: Given, update: Callable[[Given], Tensor]) -> None:
        tape = Tape(lambda *tensors: update(given.with_tensors(tensors)), given.tensors())
        self.first = tape.result
        self.playable = tape.failure is None
        self._tape = tape

    def play(self, given: Given) -> Tensor:
        return self._tape.play(given.tensors())
