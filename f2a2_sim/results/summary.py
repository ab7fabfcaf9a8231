"""summary.json: what a run did, in one small typed document.

Numbers that do not exist (kills in a world without fights, a percentile of nothing) are null.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import f2a2_sim
from f2a2_sim.results.tables import finite_or_none

_PACKAGES = ("torch", "numpy", "magent2", "pettingzoo", "simpy", "networkx", "pyarrow")


def _null_unless_finite(value: Any) -> Any:
    return finite_or_none(float(value)) if isinstance(value, float | np.floating) else value


Number = Annotated[float | None, BeforeValidator(_null_unless_finite)]
Status = Literal["finished", "interrupted", "running"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WallBreakdown(_Model):
    """Where the wall time went, in seconds."""

    world: float
    learning: float
    network: float
    consensus: float
    other: float


class Baseline(_Model):
    """The random policy in the same world, measured before the run: means over its episodes."""

    policy: str = "random"
    episodes: int
    return_mean_per_agent: Number
    hits: Number = None
    kills: Number = None
    deaths: Number = None
    win: Number = None


class Messages(_Model):
    """What became of the consensus messages.

    sent + duplicated = delivered + lost + queue_dropped + absent_dropped + expired + in_flight.
    """

    sent: int
    delivered: int
    lost: int
    queue_dropped: int
    absent_dropped: int
    expired: int
    in_flight: int
    duplicated: int

    @property
    def total(self) -> int:
        """All copies that were ever under way: what the fates are shares of."""
        return self.sent + self.duplicated


class Staleness(_Model):
    """Age of the copies that consensus used, over the whole run, in seconds."""

    p50: Number
    p95: Number


class Disagreement(_Model):
    """Mean distance of the agents' shared parameters from their mean."""

    first: Number
    last: Number
    mean: Number
    by_episode: list[Number]


class Summary(_Model):
    """The keys of summary.json; lists are by episode."""

    scenario: str
    seed: int
    versions: dict[str, str]
    status: Status
    clock: Literal["virtual", "real"] = Field(
        "virtual", description="real: of a deployed run, whose times are measured and whose energy is not"
    )
    agents: int
    env_steps: int
    episodes: int
    updates: int
    virtual_time_s: float
    wall_time_s: float
    wall_breakdown_s: WallBreakdown
    return_mean_per_agent: list[Number]
    hits: list[Number]
    kills: list[Number]
    deaths: list[Number]
    win: list[Number]
    baseline: Baseline | None
    messages: Messages
    bytes_sent: int
    staleness_s: Staleness
    disagreement: Disagreement
    missed_deadlines: int
    device_utilisation: dict[str, float] = Field(description="mean over the devices of each profile")
    energy_j: float
    peak_memory_bytes: int

    def to_json(self) -> str:
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """Raises pydantic.ValidationError, a ValueError, if the text is not a summary."""
        return cls.model_validate_json(text)


def build_summary(
    *,
    scenario: str,
    seed: int,
    agents: int,
    status: Status,
    totals: Mapping[str, Any],
    metrics: Mapping[str, Any],
    episodes: Mapping[str, Any],
    devices: Mapping[str, Any],
    staleness_s: tuple[float, float],
    baseline: Baseline | None,
    peak_memory_bytes: int,
    clock: Literal["virtual", "real"] = "virtual",
) -> Summary:
    """Put a summary together from the run's tables.

    ``totals`` is a row of the metrics table as it would be now (``recorder.last_row`` or, when a run
    stops between two rows, one made for this purpose and not recorded); ``metrics``, ``episodes`` and
    ``devices`` are columns of those tables; ``staleness_s`` is (p50, p95) over the whole run.
    """
    return Summary(
        scenario=scenario,
        seed=seed,
        versions=versions(),
        status=status,
        clock=clock,
        agents=agents,
        env_steps=int(totals["env_steps"]),
        episodes=len(episodes["episode"]),
        updates=int(totals["updates"]),
        virtual_time_s=float(totals["virtual_time_s"]),
        wall_time_s=float(totals["wall_time_s"]),
        wall_breakdown_s=WallBreakdown(
            **{part: float(totals[f"wall_{part}_s"]) for part in WallBreakdown.model_fields}
        ),
        baseline=baseline,
        messages=Messages(**{fate: int(totals[fate]) for fate in Messages.model_fields}),
        bytes_sent=int(totals["bytes_sent"]),
        staleness_s=Staleness(p50=staleness_s[0], p95=staleness_s[1]),
        disagreement=_disagreement(metrics["disagreement"], episodes["disagreement"]),
        missed_deadlines=int(totals["missed_deadlines"]),
        device_utilisation=_mean_by(devices["profile"], devices["utilisation"]),
        energy_j=float(totals["energy_j"]),
        peak_memory_bytes=peak_memory_bytes,
        **{
            name: _plain(episodes[name])
            for name in ("return_mean_per_agent", "hits", "kills", "deaths", "win")
        },
    )


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on; a package that is not installed is left out."""
    found = {"f2a2_sim": f2a2_sim.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _disagreement(over_time: Sequence[float], by_episode: Sequence[float]) -> Disagreement:
    values = np.asarray(over_time, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return Disagreement(first=None, last=None, mean=None, by_episode=_plain(by_episode))
    return Disagreement(
        first=float(values[0]),
        last=float(values[-1]),
        mean=float(values.mean()),
        by_episode=_plain(by_episode),
    )


def _mean_by(keys: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    names = np.asarray(keys)
    numbers = np.asarray(values, dtype=np.float64)
    return {str(name): float(numbers[names == name].mean()) for name in sorted(set(names.tolist()))}


def _plain(values: Sequence[float]) -> list[float | None]:
    return [finite_or_none(value) for value in np.asarray(values, dtype=np.float64).tolist()]
