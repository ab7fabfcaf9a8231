"""How long a piece of work takes on a device: a roofline plus launch overhead, times jitter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.spec import DeviceProfile, JitterSpec, LognormalJitter, UniformJitter
from devices.streams import FloatArray, IntArray, RandomStreams

_DRAWN_AHEAD = 64


@dataclass(frozen=True, slots=True)
class Work:
    """The cost of one piece of work: operations, bytes moved, kernels launched."""

    flops: float
    bytes: float
    kernels: int

    def __post_init__(self) -> None:
        if not (self.flops >= 0 and self.bytes >= 0 and self.kernels >= 0):
            raise ValueError(f"{self}: flops, bytes and kernels must not be negative")

    def __add__(self, other: Work) -> Work:
        """One after the other."""
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.kernels + other.kernels)

    def __mul__(self, times: float) -> Work:
        """So many times, or a share of it."""
        return Work(self.flops * times, self.bytes * times, round(self.kernels * times))


class ComputeModel:
    """Durations of work on the devices of ``n`` agents; agent i runs on ``profiles[i]``.

    ``duration = (kernels * launch_overhead_s + max(flops / (peak_flops * efficiency),
    bytes / memory_bandwidth_bytes_per_s)) * jitter``. The max is the roofline model (Williams,
    Waterman and Patterson, "Roofline", CACM 52(4), 2009). Jitter multipliers have mean one. They are
    drawn ahead, ``_DRAWN_AHEAD`` at a time per agent, each agent from its own stream: an agent's
    k-th duration does not depend on when, or together with whom, it is asked for.
    """

    def __init__(self, profiles: Sequence[DeviceProfile], jitter: JitterSpec, streams: RandomStreams) -> None:
        self._overhead_s = np.array([p.launch_overhead_s for p in profiles], dtype=np.float64)
        self._flops_per_s = np.array([p.peak_flops * p.efficiency for p in profiles], dtype=np.float64)
        self._bytes_per_s = np.array([p.memory_bandwidth_bytes_per_s for p in profiles], dtype=np.float64)
        self._jitter = jitter
        self._streams = streams
        self._modelled_s: dict[Work, FloatArray] = {}
        ahead = 0 if jitter.kind == "none" else _DRAWN_AHEAD
        self._multipliers = np.ones((len(profiles), ahead), dtype=np.float64)
        self._next_draw = np.full(len(profiles), ahead, dtype=np.int64)

    def modelled_s(self, work: Work) -> FloatArray:
        """Duration without jitter on every agent's device: float64 ``[n]``, read-only."""
        durations = self._modelled_s.get(work)
        if durations is None:
            roofline = np.maximum(work.flops / self._flops_per_s, work.bytes / self._bytes_per_s)
            durations = work.kernels * self._overhead_s + roofline
            durations.setflags(write=False)
            self._modelled_s[work] = durations
        return durations

    def duration_s(self, agents: IntArray, work: Work) -> FloatArray:
        """Next durations of ``work`` for these agents (each at most once): float64 ``[k]``."""
        durations = self.modelled_s(work)[agents]
        if self._jitter.kind == "none":
            return durations
        return np.asarray(durations * self._take_multipliers(np.asarray(agents, dtype=np.int64)))

    def _take_multipliers(self, agents: IntArray) -> FloatArray:
        position = self._next_draw[agents]
        exhausted = position == _DRAWN_AHEAD
        if exhausted.any():
            self._multipliers[agents[exhausted]] = self._draw(agents[exhausted])
            position[exhausted] = 0
        self._next_draw[agents] = position + 1
        return np.asarray(self._multipliers[agents, position])

    def _draw(self, agents: IntArray) -> FloatArray:
        if isinstance(self._jitter, LognormalJitter):
            sigma = self._jitter.sigma
            return np.exp(sigma * self._streams.normal(agents, _DRAWN_AHEAD) - 0.5 * sigma * sigma)
        assert isinstance(self._jitter, UniformJitter)
        low, high = self._jitter.low, self._jitter.high
        return low + (high - low) * self._streams.uniform(agents, _DRAWN_AHEAD)

    def state(self) -> dict[str, Any]:
        """Multipliers drawn ahead, for a checkpoint; the streams are saved by their owner."""
        return {"multipliers": self._multipliers.copy(), "next_draw": self._next_draw.copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a ``state()`` of a model of the same agents and jitter."""
        multipliers = np.asarray(state["multipliers"], dtype=np.float64)
        if multipliers.shape != self._multipliers.shape:
            raise ValueError(
                f"compute state of shape {multipliers.shape} does not fit this model "
                f"({self._multipliers.shape}); load it into a run of the same scenario"
            )
        self._multipliers = multipliers.copy()
        self._next_draw = np.asarray(state["next_draw"], dtype=np.int64).copy()
