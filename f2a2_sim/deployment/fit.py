"""From measured times to the figures of a profile, such that the model gives these times back.

The model of a device (`devices.compute.ComputeModel`) has three figures: overhead o per kernel, rate p of
operations and rate b of bytes; a piece of work takes ``kernels * o + max(flops / p, bytes / b)``. Three
pieces are measured: acting, updating and averaging. Averaging moves bytes and fixes b, updating computes and
fixes p, and acting, which is nearly all overhead, fixes o: p and b follow from o, which bisection finds.
Where no figures give all three (acting faster than any overhead allows, say) updating comes out exact, and
the others as near as can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from devices.compute import Work

_BISECTIONS = 200
_ALMOST = 1.0 - 1e-9  # some part of a piece of work is never overhead
_CONSTANT_BELOW = 0.05  # spread of delays (of their logarithm) that is taken for none


@dataclass(frozen=True)
class Rates:
    """The figures of a device that decide how long work takes."""

    overhead_s: float
    flops_per_s: float
    bytes_per_s: float

    def seconds(self, work: Work) -> float:
        """What `devices.compute.ComputeModel` gives for a device of these rates."""
        return work.kernels * self.overhead_s + max(
            work.flops / self.flops_per_s, work.bytes / self.bytes_per_s
        )


def fit_rates(measured: Mapping[str, tuple[Work, float]]) -> Rates:
    """Rates that give the seconds of "update", and as nearly as possible of "act" and "mix" (may be absent).

    Raises ValueError unless all seconds are above 0.
    """
    for name, (_, seconds) in measured.items():
        if not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"{name}: took {seconds} s; expected a time above 0")
    act, act_s = measured["act"]
    limits = [s / work.kernels for work, s in measured.values() if work.kernels]
    low, high = 0.0, _ALMOST * min(limits, default=0.0)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _given_overhead(measured, middle).seconds(act) < act_s:
            low = middle
        else:
            high = middle
    return _given_overhead(measured, 0.5 * (low + high))


def _given_overhead(measured: Mapping[str, tuple[Work, float]], overhead_s: float) -> Rates:
    update, update_s = measured["update"]
    update_left_s = update_s - update.kernels * overhead_s
    flops_per_s = max(update.flops, 1.0) / update_left_s
    bytes_per_s = max(update.bytes, 1.0) / update_left_s  # the least with which updating is not slower
    if "mix" in measured:
        mix, mix_s = measured["mix"]
        bytes_per_s = max(bytes_per_s, mix.bytes / (mix_s - mix.kernels * overhead_s))
    return Rates(overhead_s, flops_per_s, bytes_per_s)


def step_latency_s(step_s: float, act_s: float, update_s: float, every_steps: int) -> float:
    """The world's latency (there and back, its own computing included) that makes a lockstep step as long.

    In the simulation ``every_steps`` steps take that many actions and latencies, and an update that takes
    longer than a latency delays the next action by the rest. At least 0.
    """
    latency_s = step_s - act_s
    if latency_s < update_s and every_steps > 1:
        latency_s = (every_steps * (step_s - act_s) - update_s) / (every_steps - 1)
    elif latency_s < update_s:
        latency_s = 0.0
    return max(latency_s, 0.0)


@dataclass(frozen=True)
class Delays:
    """One-way delays of messages and the rate that they can be sent at."""

    median_s: float
    sigma: float
    """Of the logarithm; 0: they are all alike."""
    bandwidth_bps: float | None

    def as_link(self) -> dict[str, object]:
        """Keys of a link in a scenario."""
        latency: dict[str, object] = {"kind": "constant", "value_s": self.median_s}
        if self.sigma > 0 and self.median_s > 0:
            latency = {"kind": "lognormal", "median_s": self.median_s, "sigma": self.sigma}
        return {"latency": latency, "bandwidth_bps": self.bandwidth_bps, "ordered": True}


def fit_delays(
    small_s: Sequence[float], large_s: Sequence[float], stream_s: float, stream_bytes: int, large_bytes: int
) -> Delays:
    """From round trips of small messages, of large ones that a small one answers, and a stream of large ones.

    ``stream_s`` is from the first message of the stream to the answer to its last. The rate is that of the
    stream; the latency is what a large message takes one way beyond its share of the stream (sealing and
    opening it, say), and never below half a small round trip.
    """
    small_way_s = float(np.median(small_s)) / 2.0
    rate = stream_bytes / max(stream_s - small_way_s, 1e-9)
    latencies = np.maximum(np.asarray(large_s) - small_way_s - large_bytes / rate, small_way_s)
    low, median, high = np.quantile(latencies, [0.1, 0.5, 0.9]).tolist()
    sigma = math.log(high / low) / 2.563 if low > 0 else 0.0
    return Delays(median, sigma if sigma > _CONSTANT_BELOW else 0.0, 8.0 * rate)
