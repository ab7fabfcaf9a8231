"""What a deployed run has measured beside its tables: ``measured.json`` in its folder."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from f2a2_sim.deployment.roll import Roll
from f2a2_sim.errors import UsageError
from f2a2_sim.results.folder import write_atomically
from f2a2_sim.results.recorder import AgeHistogram

FILE = "measured.json"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Model):
    """Seconds of many repetitions: how many, quantiles and mean."""

    count: int = Field(ge=1)
    p10: float = Field(ge=0.0)
    p50: float = Field(ge=0.0)
    p90: float = Field(ge=0.0)
    mean: float = Field(ge=0.0)

    @classmethod
    def of(cls, seconds: AgeHistogram, total_s: float) -> Spread | None:
        """Quantiles to half a percent, as bins are; ``total_s`` is the sum of all. None of nothing."""
        count = int(seconds.counts.sum())
        if count == 0:
            return None
        p10, p50, p90 = (seconds.percentile(share) for share in (0.1, 0.5, 0.9))
        return cls(count=count, p10=p10, p50=p50, p90=p90, mean=total_s / count)


class Measured(_Model):
    """Times of the agents' work, by their own clocks, all agents together; null where there was none."""

    update_s: Spread | None
    act_mean_s: float | None
    mix_mean_s: float | None
    """Per consensus round; the collecting of what has come included."""
    processors: int = Field(ge=1)
    """Of the machine that the world ran on."""
    machine: str

    def write(self, run_dir: Path) -> None:
        """Into the run's folder, atomically."""
        write_atomically(run_dir / FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, run_dir: Path) -> Measured | None:
        """Of a run's folder; None if it has none, as a simulated run has. UsageError if it is damaged."""
        path = run_dir / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise UsageError(f"{path}: cannot be read ({str(error).splitlines()[0]}); remove it") from error


def measured(roll: Roll, actions: int) -> Measured:
    """From what all agents have reported; ``actions`` is how many they have chosen together."""
    rounds = float(roll.of_each("rounds").sum())
    return Measured(
        update_s=Spread.of(roll.update_times, roll.update_total_s),
        act_mean_s=float(roll.of_each("busy_act_s").sum()) / actions if actions else None,
        mix_mean_s=float(roll.of_each("busy_mix_s").sum()) / rounds if rounds else None,
        processors=os.cpu_count() or 1,
        machine=platform.machine(),
    )
