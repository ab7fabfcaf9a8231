"""A baseline's training in numbers: ``curves.parquet`` and ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from f2a2_sim.results.summary import Number
from f2a2_sim.results.tables import Column, Columns, TableSchema

LAST_EPISODES = 1000
"""The latest episodes, of which the summary gives means."""


def curves_schema(agents: Sequence[str], statistics: Mapping[str, str]) -> TableSchema:
    """Columns for these agents and the learner's ``statistics``, a sentence by name."""
    return TableSchema(
        "curves",
        "curves.parquet",
        "one batch of parallel episodes",
        (
            Column("episodes", "int", "episodes", "Episodes so far, all rollouts together."),
            Column("transitions", "int", "steps", "World steps so far, all rollouts together."),
            Column("updates", "int", "updates", "Updates so far."),
            Column(
                "return_mean_per_agent",
                "float",
                "reward",
                "Undiscounted return of these episodes with raw rewards, mean over episodes and agents.",
            ),
            *(
                Column(f"return_{agent}", "float", "reward", "The same of one agent, mean over episodes.")
                for agent in agents
            ),
            *(Column(name, "float", "", sentence) for name, sentence in statistics.items()),
            Column("wall_s", "float", "s", "Real time since the start of the training.", wall_clock=True),
        ),
    )


class Curves:
    """Collects rows; a row's statistics are NaN if nothing was learnt during its episodes."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._rows: dict[str, list[float]] = {name: [] for name in schema.names}

    def __len__(self) -> int:
        return len(self._rows["episodes"])

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; columns that it lacks are NaN."""
        for name, column in self._rows.items():
            column.append(row.get(name, np.nan))

    def columns(self) -> Columns:
        return {name: np.array(values) for name, values in self._rows.items()}

    def last_return(self) -> float:
        """Mean return per agent over the latest episodes; NaN if there is none."""
        values = np.array(self._rows["return_mean_per_agent"])
        return float(values[self._latest()].mean()) if len(self) else np.nan

    def last_returns(self) -> dict[str, float]:
        """The same by agent."""
        names = [name for name in self.schema.names if name.startswith("return_")][1:]
        if not len(self):
            return {}
        latest = self._latest()
        return {name.removeprefix("return_"): float(np.mean(self._rows[name][latest])) for name in names}

    def _latest(self) -> slice:
        """The rows of the last `LAST_EPISODES` episodes."""
        episodes = np.array(self._rows["episodes"])
        return slice(int(np.searchsorted(episodes, episodes[-1] - LAST_EPISODES, side="right")), None)

    def state(self) -> dict[str, NDArray[np.float64]]:
        return {name: np.array(values, dtype=np.float64) for name, values in self._rows.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._rows = {name: np.asarray(state[name]).tolist() for name in self._rows}


class BaselineSummary(BaseModel):
    """The keys of a baseline's summary.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    world: str
    seed: int
    config: dict[str, Any]
    versions: dict[str, str]
    device: str
    threads: int
    status: Literal["finished", "interrupted", "running"]
    agents: int
    episodes: int
    transitions: int
    updates: int
    last_episodes: int
    return_mean_per_agent: Number
    return_by_agent: dict[str, Number]
    wall_time_s: float
    wall_breakdown_s: dict[str, float]
    peak_memory_bytes: int
