"""Propagation delay and duplication: inverse distribution functions over per-link streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from network.errors import LinkError
from network.spec import (
    ConstantLatency,
    LatencySpec,
    LinkSpec,
    LognormalLatency,
    NormalLatency,
    ParetoLatency,
    TraceLatency,
    UniformLatency,
)
from network.streams import (
    Bools,
    Floats,
    Ints,
    LinkStream,
    WordFamily,
    unit_interval,
    word_stream,
    word_threshold,
)

Quantile = Callable[[Floats], Floats]


def read_trace(path: str) -> Floats:
    """Delays in seconds from a text or CSV file: float64 ``[count]``, at least one, none negative."""
    remedy = "give a text file of delays in seconds, one per line"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LinkError("latency.path", path, "a readable text file", f"{remedy} ({error})") from error
    values = []
    for number, line in enumerate(text.splitlines(), start=1):
        for word in line.split("#")[0].replace(",", " ").split():
            try:
                value = float(word)
            except ValueError as error:
                raise LinkError(
                    "latency.path", f"{path}:{number}: {word}", "a number of seconds", remedy
                ) from error
            if not (0.0 <= value < float("inf")):
                raise LinkError(
                    "latency.path", f"{path}:{number}: {word}", "a finite time, not negative", remedy
                )
            values.append(value)
    if not values:
        raise LinkError("latency.path", path, "at least one delay", remedy)
    return np.array(values, dtype=np.float64)


def quantile_function(spec: LatencySpec) -> Quantile:
    """The inverse distribution function of a delay: probabilities in (0, 1) to seconds, elementwise."""
    match spec:
        case ConstantLatency(value_s=value):
            return lambda u: np.full(u.shape, value)
        case UniformLatency(low_s=low, high_s=high):
            return lambda u: low + (high - low) * u
        case NormalLatency(mean_s=mean, std_s=std):
            if std == 0.0:
                return lambda u: np.full(u.shape, mean)
            cut = float(ndtr(-mean / std))
            return lambda u: np.maximum(mean + std * ndtri(cut + (1.0 - cut) * u), 0.0)
        case LognormalLatency(median_s=median, sigma=sigma, offset_s=offset):
            return lambda u: offset + median * np.exp(sigma * ndtri(u))
        case ParetoLatency(minimum_s=minimum, shape=shape, offset_s=offset):
            return lambda u: offset + minimum * np.exp(-np.log(u) / shape)
        case TraceLatency(path=path):
            trace = read_trace(path)
            return lambda u: trace[(u * len(trace)).astype(np.int64)]


class LatencyModel:
    """Delays of the messages of every link; the k-th message of a link takes the k-th delay of its stream."""

    def __init__(
        self,
        specs: Sequence[LinkSpec],
        group_of: Callable[[Ints], Ints],
        ids: Callable[[Ints], Ints],
        family: WordFamily,
        width: int,
    ) -> None:
        """``group_of`` gives the index into ``specs`` of each slot."""
        self._group_of = group_of
        self._ids = ids
        self._family = family
        self.quantiles = [quantile_function(spec.latency) for spec in specs]
        self._traces = [
            read_trace(spec.latency.path)
            if isinstance(spec.latency, TraceLatency) and spec.latency.order == "in_order"
            else None
            for spec in specs
        ]
        first = specs[0].latency
        same = all(spec.latency == first for spec in specs)
        self._constant = first.value_s if same and isinstance(first, ConstantLatency) else None
        self._stream = LinkStream(self._fill, width, np.float64)

    def resize(self, links: int) -> None:
        if self._constant is None:
            self._stream.resize(links)

    def take(self, slots: Ints) -> Floats | float:
        """Delay of the next message of each link: seconds ``[len(slots)]``, or one for all."""
        return self._constant if self._constant is not None else self._stream.take(slots)

    def state(self) -> dict[str, Any]:
        return self._stream.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._stream.load_state(state)

    def _fill(self, slots: Ints, first: Ints, count: int) -> Floats:
        uniform = unit_interval(self._family.words(self._ids(slots), first // 4, count // 4))
        if len(self.quantiles) == 1:
            return self._delays(0, uniform, first)
        groups = self._group_of(slots)
        delays = np.empty_like(uniform)
        for group in np.unique(groups):
            chosen = np.flatnonzero(groups == group)
            delays[chosen] = self._delays(int(group), uniform[chosen], first[chosen])
        return delays

    def _delays(self, group: int, uniform: Floats, first: Ints) -> Floats:
        trace = self._traces[group]
        if trace is None:
            return self.quantiles[group](uniform)
        return np.asarray(trace[(first[:, None] + np.arange(uniform.shape[1])) % len(trace)])


class DuplicationModel:
    """Which messages arrive twice, and the delay of the copy; from streams of their own."""

    def __init__(
        self,
        specs: Sequence[LinkSpec],
        group_of: Callable[[Ints], Ints],
        ids: Callable[[Ints], Ints],
        family: WordFamily,
        width: int,
        quantiles: Sequence[Quantile],
    ) -> None:
        self._thresholds = word_threshold(np.array([spec.duplication_probability for spec in specs]))
        self._group_of = group_of
        self._quantiles = quantiles
        self._stream = word_stream(family, ids, width)
        self.active = bool(self._thresholds.any())

    def resize(self, links: int) -> None:
        if self.active:
            self._stream.resize(links)

    def take(self, slots: Ints) -> tuple[Bools, Floats]:
        """For the next message of each link: whether it is copied, and the copy's delay in seconds.

        Two words per message, used or not, so that the fate of one message does not shift the next.
        """
        groups = self._group_of(slots)
        copied = self._stream.take(slots) < self._thresholds[groups]
        uniform = unit_interval(self._stream.take(slots))
        delays = np.empty_like(uniform)
        for group in np.unique(groups[copied]):
            chosen = np.flatnonzero(copied & (groups == group))
            delays[chosen] = self._quantiles[int(group)](uniform[chosen])
        return copied, delays

    def state(self) -> dict[str, Any]:
        return self._stream.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._stream.load_state(state)
