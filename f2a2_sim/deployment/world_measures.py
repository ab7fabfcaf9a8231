"""What a deployed run shows of itself: the simulation's tables, measured instead of modelled."""

from __future__ import annotations

import math
import platform
import resource
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment.clock import RunClock
from f2a2_sim.deployment.measured import measured
from f2a2_sim.deployment.messages import Report
from f2a2_sim.deployment.roll import Roll
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.recorder import Recorder, RowStore
from f2a2_sim.results.summary import Baseline, Status, Summary, build_summary
from f2a2_sim.results.tables import DEVICES, LINKS, TIMELINE
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.measures import episode_row
from f2a2_sim.simulator.play import Play
from f2a2_sim.simulator.stopwatch import Stopwatch


class WorldMeasures:
    """Puts together what the world knows and what agents have reported."""

    def __init__(
        self,
        scenario: Scenario,
        play: Play,
        roll: Roll,
        recorder: Recorder,
        stopwatch: Stopwatch,
        clock: RunClock,
    ) -> None:
        self._scenario = scenario
        self._play = play
        self._roll = roll
        self._recorder = recorder
        self._stopwatch = stopwatch
        self._clock = clock

    def note(self, agent: int, report: Report, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take an agent's report."""
        self._roll.note(agent, report, tensors, self._recorder)

    def record_row(self, episode_end: bool) -> None:
        """Put the present values on record, and begin the next means."""
        row = self._metrics(episode_end)
        self._recorder.row(**row)
        if episode_end:
            self._recorder.episode(**episode_row(row, self._play.returns, self._play.steps))

    def _metrics(self, episode_end: bool = False) -> dict[str, Any]:
        """The columns of ``metrics.parquet``."""
        play, roll = self._play, self._roll
        now_s = self._clock()
        total_s = self._stopwatch.total_s()
        world_s = self._stopwatch.breakdown_s()["world"]
        learning_s = float((roll.of_each("busy_act_s") + roll.of_each("busy_learn_s")).mean())
        consensus_s = float(roll.of_each("busy_mix_s").mean())
        return {
            "virtual_time_s": now_s,
            **play.metrics(episode_end),
            "updates": int(roll.of_each("updates").sum()),
            "online": int((~roll.absent).sum()),
            **roll.take_statistics(),
            "dual_norm": float(roll.of_each("dual_norm").mean()),
            "dual_mean_norm": roll.dual_mean_norm(),
            "disagreement": roll.disagreement(),
            **roll.counts().as_dict(),
            "utilisation": float(roll.utilisation(now_s).mean()),
            "energy_j": math.nan,
            "wall_time_s": total_s,
            "wall_world_s": world_s,
            "wall_learning_s": learning_s,
            "wall_network_s": 0.0,
            "wall_consensus_s": consensus_s,
            "wall_other_s": max(total_s - world_s - learning_s - consensus_s, 0.0),
        }

    def _devices_table(self) -> dict[str, Any]:
        roll, now_s, n = self._roll, self._clock(), self._roll.n_agents
        return {
            **self._play.of_devices(),
            "profile": np.full(n, f"real ({platform.machine()})"),
            "link": np.full(n, "zmq"),
            "busy_act_s": roll.of_each("busy_act_s"),
            "busy_learn_s": roll.of_each("busy_learn_s") + roll.of_each("busy_mix_s"),
            "off_s": roll.off_s,
            "utilisation": roll.utilisation(now_s),
            "energy_j": np.full(n, math.nan),
            "battery_empty": np.zeros(n, dtype=np.bool_),
            "updates": roll.of_each("updates").astype(np.int64),
            "consensus_rounds": roll.of_each("rounds").astype(np.int64),
        }

    def _links_table(self) -> dict[str, Any]:
        """What both ends of every link have told, put together."""
        n = self._roll.n_agents
        ends = self._roll.links
        pairs = [
            (s, r)
            for s in range(n)
            for r in range(n)
            if (s in ends and ends[s]["sent"][r]) or (r in ends and ends[r]["delivered"][s])
        ]

        def at(agent: int, name: str, peer: int) -> float:
            return float(ends[agent][name][peer]) if agent in ends else 0.0

        rows = RowStore(LINKS)
        for s, r in pairs:
            delivered = at(r, "delivered", s)
            sent, expired, dropped = at(s, "sent", r), at(r, "expired", s), at(s, "queue_dropped", r)
            copied = at(s, "duplicated", r)
            rows.append(
                {
                    "sender": s,
                    "receiver": r,
                    "sent": sent,
                    "duplicated": copied,
                    "delivered": delivered,
                    "lost": max(sent + copied - delivered - expired - dropped, 0.0),
                    "queue_dropped": dropped,
                    "absent_dropped": 0,
                    "expired": expired,
                    "latency_mean_s": at(r, "delay_s", s) / delivered if delivered else math.nan,
                    "currently_connected": 1,
                }
            )
        return rows.columns()

    @property
    def has_rows(self) -> bool:
        """Whether anything is on record yet."""
        return self._recorder.last_row is not None

    def write(self, folder: RunFolder, status: Status, baseline: Baseline | None) -> Summary:
        """Write tables, summary and ``measured.json``; returns the summary.

        While the run goes on its present values are those of the last row: new ones would begin new means.
        """
        last = self._recorder.last_row
        present = last if status == "running" and last is not None else self._metrics()
        totals = {"row": 0, "staleness_p50_s": 0.0, "staleness_p95_s": 0.0, **present}
        totals["energy_j"] = 0.0
        if status == "finished" and totals["in_flight"]:
            totals["lost"] += totals["in_flight"]
            totals["in_flight"] = 0
        self._recorder.write(folder)
        folder.write_table(TIMELINE, self._roll.spans.columns())
        devices = self._devices_table()
        folder.write_table(DEVICES, devices)
        if self._scenario.record.links:
            folder.write_table(LINKS, self._links_table())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        summary = build_summary(
            scenario=self._scenario.name,
            seed=self._scenario.seed,
            agents=self._roll.n_agents,
            status=status,
            clock="real",
            totals=totals,
            metrics=self._recorder.metrics(),
            episodes=self._recorder.episodes(),
            devices=devices,
            staleness_s=self._recorder.staleness_s(),
            baseline=baseline,
            peak_memory_bytes=max([memory, *(r.peak_memory_bytes for r in self._roll.reports.values())]),
        )
        folder.write_summary(summary)
        measured(self._roll, int(self._play.actions_taken.sum())).write(folder.path)
        return summary
