"""Who takes part in a deployed run, and what each agent has reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment.labour import mean_of
from f2a2_sim.deployment.messages import Report
from f2a2_sim.deployment.sketch import SUMS, mean_distance, norm_of_mean
from f2a2_sim.deployment.spans import Spans
from f2a2_sim.results.recorder import AgeHistogram, Recorder
from f2a2_sim.simulator.population import STATISTICS
from network.messages import MessageCounts

_FATES = ("sent", "duplicated", "delivered", "lost", "queue_dropped", "expired", "bytes_sent")


class Roll:
    """Every agent's endpoint, presence and newest report; agents are numbered 0 .. n-1."""

    def __init__(self, n_agents: int, spans: Spans) -> None:
        self.n_agents = n_agents
        self.spans = spans
        self.endpoints: dict[int, str] = {}
        self.ready: set[int] = set()
        self.absent = np.ones(n_agents, dtype=np.bool_)
        """Who has not been heard of in time: the world does not wait for them."""
        self.heard_s = np.full(n_agents, -np.inf)
        self.lost_at_s: dict[int, float] = {}
        """Since when those have been absent who were there before, by this process's own clock."""
        self.off_s = np.zeros(n_agents)
        self.reports: dict[int, Report] = {}
        self.sketches = {name: np.full((n_agents, SUMS), math.nan) for name in ("sketch", "dual")}
        """Of shared parameters and of duals."""
        self.parameters: dict[int, NDArray[Any]] = {}
        self.links: dict[int, dict[str, NDArray[Any]]] = {}
        self._sums: list[tuple[dict[str, float], int]] = []
        self.update_times = AgeHistogram()
        """How long updates took, of all agents: a histogram does not grow with the run."""
        self.update_total_s = 0.0

    @property
    def missing(self) -> list[int]:
        """Who has never been heard of."""
        return [agent for agent in range(self.n_agents) if agent not in self.endpoints]

    def note(
        self, agent: int, report: Report, tensors: Mapping[str, NDArray[Any]], recorder: Recorder
    ) -> None:
        """Take an agent's report."""
        self.reports[agent] = report
        self.spans.add(agent, report.step, tensors.get("spans"))
        for name, sketches in self.sketches.items():
            if name in tensors and tensors[name].shape == (SUMS,):
                sketches[agent] = tensors[name]
        self._sums.append((report.statistics, report.statistics_count))
        recorder.ages(np.array(report.ages_s))
        self.update_times.add(np.array(report.update_s))
        self.update_total_s += sum(report.update_s)

    def take_statistics(self) -> dict[str, float]:
        """Means over the updates reported since this was last called."""
        sums, self._sums = self._sums, []
        return mean_of([(_complete(s), n) for s, n in sums])

    def disagreement(self) -> float:
        """Estimated from sketches; NaN before everybody has sent one."""
        return mean_distance(self.sketches["sketch"])

    def dual_mean_norm(self) -> float:
        """Norm of the mean dual, estimated from sketches; NaN before everybody has sent one."""
        return norm_of_mean(self.sketches["dual"])

    def counts(self) -> MessageCounts:
        """Sums over all agents; what neither arrived nor is known to be lost is in flight.

        What arrived and was of no use counts as lost.
        """
        totals = {name: sum(r.counts.get(name, 0) for r in self.reports.values()) for name in _FATES}
        counts = MessageCounts(**totals)
        counts.lost += sum(r.counts.get("unusable", 0) for r in self.reports.values())
        counts.in_flight = max(counts.missing(), 0)
        return counts

    def of_each(self, name: str) -> NDArray[np.float64]:
        """One figure of every agent's newest report ``[n]``; 0 where there is none."""
        values = np.zeros(self.n_agents)
        for agent, report in self.reports.items():
            values[agent] = getattr(report, name)
        return values

    def utilisation(self, now_s: float) -> NDArray[np.float64]:
        """Share of its time in the run, which is at ``now_s``, that each agent has computed ``[n]``."""
        busy_s = sum(self.of_each(f"busy_{work}_s") for work in ("act", "learn", "mix"))
        return np.asarray(busy_s / np.maximum(now_s - self.off_s, 1e-12))

    def state(self) -> dict[str, Any]:
        """What a world that comes back has to know of the agents before they report again."""
        return {
            "off_s": self.off_s,
            "sketches": self.sketches,
            "reports": {str(agent): report.model_dump() for agent, report in self.reports.items()},
            "sums": self._sums,
            "update_times": self.update_times.counts,
            "update_total_s": self.update_total_s,
            "spans": self.spans.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.off_s[...] = state["off_s"]
        for name, sketches in state["sketches"].items():
            self.sketches[name][...] = sketches
        self.reports = {int(agent): Report(**report) for agent, report in state["reports"].items()}
        self._sums = [(dict(sums), int(count)) for sums, count in state["sums"]]
        self.update_times.counts[...] = state["update_times"]
        self.update_total_s = float(state["update_total_s"])
        self.spans.load_state(state["spans"])


def _complete(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: float(sums.get(name, math.nan)) for name in STATISTICS}
