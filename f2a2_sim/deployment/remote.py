"""What an agent's process knows of the world, and the population of one that lives in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from f2a2_sim.consensus.group import ConsensusGroup
from f2a2_sim.deployment.hearsay import Hearsay
from f2a2_sim.simulator.knowledge import step_of, version_of
from f2a2_sim.worlds.base import AgentSpec
from network.wire import Message


@dataclass(frozen=True)
class RemoteWorld:
    """The sizes of a world that lives in another process."""

    agents: Sequence[AgentSpec]
    rollouts: int


class AgentCargo:
    """What an agent's counted messages carry (`network.zmq_carrier.Cargo`): copies of its shared parameters,
    and its steps where others learn of them by message."""

    def __init__(self, copies: CopyCargo | None, hearsay: Hearsay | None) -> None:
        self._copies = copies
        self._hearsay = hearsay

    def kind(self, version: int) -> str:
        return "step" if version < 0 else "copy"

    def pack(self, version: int) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        if version < 0:
            assert self._hearsay is not None
            return self._hearsay.own(int(step_of(np.array(version))))
        assert self._copies is not None
        return self._copies.pack(version)

    def unpack(self, message: Message) -> int | None:
        if "step" in message.fields:
            step = None if self._hearsay is None else self._hearsay.admit(message)
            return None if step is None else version_of(step)
        return None if self._copies is None else self._copies.unpack(message)


class CopyCargo:
    """Copies of an agent's shared parameters as messages, and back."""

    def __init__(self, group: ConsensusGroup) -> None:
        self._group = group
        rows = group.pool.rows
        self._width = rows.shape[1]
        self._dtype = np.dtype(str(rows.dtype).removeprefix("torch."))

    def pack(self, version: int) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """The row itself: the carrier copies it before the row may be used anew."""
        row, number, round_number = self._group.content(version)
        return {"number": number, "round": round_number}, {"parameters": row.cpu().numpy()}

    def unpack(self, message: Message) -> int | None:
        """None for anything but finite parameters of the right length, with a number and a round."""
        values, fields = message.tensors.get("parameters"), message.fields
        number, round_number = fields.get("number"), fields.get("round")
        if (
            values is None
            or values.shape != (self._width,)
            or values.dtype != self._dtype
            or not isinstance(number, float)
            or not isinstance(round_number, int)
            or not 0 <= round_number < 2**31
            or not np.isfinite(number)
            or not np.isfinite(values).all()
        ):
            return None
        copy = torch.from_numpy(np.array(values))
        return self._group.admit(copy, number, round_number)
