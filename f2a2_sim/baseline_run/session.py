"""One process's share of a baseline's training: from its start, or a checkpoint, to its end or a signal."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from f2a2_sim.baseline_run.display import Display
from f2a2_sim.baseline_run.settings import BaselineSettings
from f2a2_sim.baselines.registry import make_trainer
from f2a2_sim.baselines.trainer import EpisodeReport
from f2a2_sim.baselines.worlds import rules_of
from f2a2_sim.compute import prepare_torch
from f2a2_sim.errors import UsageError
from f2a2_sim.interruption import interruption
from f2a2_sim.results.curves import LAST_EPISODES, BaselineSummary, Curves, curves_schema
from f2a2_sim.results.folder import BaselineFolder, write_atomically
from f2a2_sim.results.summary import versions
from f2a2_sim.simulator.checkpoint import (
    find_checkpoint,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from f2a2_sim.simulator.stopwatch import Stopwatch

SECONDS_BETWEEN_CHECKPOINTS = 60.0
_LONGEST_SHARE_SAVING = 0.05  # of the time; a replay of gigabytes is saved less often
_CHECKPOINTS_KEPT = 2
_PARTS = ("acting", "world", "learning", "saving")

Status = Literal["finished", "interrupted", "running"]


@dataclass(frozen=True)
class BaselineResult:
    """What a training left behind."""

    folder: Path
    summary: BaselineSummary


def train(
    settings: BaselineSettings,
    out: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = False,
) -> BaselineResult:
    """Train a baseline into a new folder (``out``, or ``runs/<baseline>-<world>-<time>``).

    Raises UsageError for settings that do not fit together, before anything is written.  SIGINT and SIGTERM
    save a checkpoint and return with status "interrupted".
    """
    session = _Session(settings, prepare_torch(device, threads), progress)
    folder = BaselineFolder.create(f"{settings.baseline}-{settings.world}", out)
    with folder.lock():
        folder.write_scenario(settings.to_yaml())
        return session.run(folder, resume_at=None)


def go_on(
    run_dir: Path,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = False,
    checkpoint: int | None = None,
) -> BaselineResult:
    """Go on with a training from its newest checkpoint, or that number: bit for bit as if undisturbed."""
    torch_device = prepare_torch(device, threads)
    folder = BaselineFolder.open(run_dir)
    with folder.lock():
        session = _Session(BaselineSettings.read(folder), torch_device, progress)
        return session.run(folder, resume_at=find_checkpoint(folder, checkpoint).number)


class _Session:
    """A training, its clock, its curves and its display."""

    def __init__(self, settings: BaselineSettings, device: torch.device, progress: bool) -> None:
        self._settings = settings
        self._device = device
        self._stopwatch = Stopwatch(_PARTS)
        self._trainer = make_trainer(
            settings.baseline,
            settings.world,
            settings.learner_config(),
            settings.seed,
            device,
            self._stopwatch.part,
        )
        self._agents = rules_of(settings.world).agents
        self._curves = Curves(curves_schema(self._agents, self._trainer.learner.statistics))
        self._display = Display(settings.episodes, progress)
        self._next_checkpoint = 1

    def run(self, folder: BaselineFolder, resume_at: int | None) -> BaselineResult:
        with self._display, interruption(give_up_at_second=True) as interrupted:
            if resume_at is not None:
                self._load(folder, resume_at)
            self._display.begin(self._trainer.episodes)
            self._train(folder, interrupted)
            over = self._trainer.episodes >= self._settings.episodes
            self._save(folder, over)
            return BaselineResult(folder.path, self._write(folder, "finished" if over else "interrupted"))

    def _train(self, folder: BaselineFolder, interrupted: Callable[[], bool]) -> None:
        saved_at, wait_s = time.monotonic(), SECONDS_BETWEEN_CHECKPOINTS
        while self._trainer.episodes < self._settings.episodes and not interrupted():
            report = self._trainer.step()
            if report is not None:
                self._record(report)
            if time.monotonic() - saved_at >= wait_s:
                begun = time.monotonic()
                self._save(folder, over=False)
                self._write(folder, "running")
                saved_at = time.monotonic()
                wait_s = max(SECONDS_BETWEEN_CHECKPOINTS, (saved_at - begun) / _LONGEST_SHARE_SAVING)

    def _record(self, report: EpisodeReport) -> None:
        returns = report.mean_episode_rewards
        self._curves.add(
            {
                "episodes": report.episodes,
                "transitions": report.transitions,
                "updates": report.updates,
                "return_mean_per_agent": float(returns.mean()),
                **{f"return_{agent}": float(r) for agent, r in zip(self._agents, returns, strict=True)},
                **{name: float(np.mean(value)) for name, value in report.statistics.items()},
                "wall_s": self._stopwatch.total_s(),
            }
        )
        self._display.report(report)

    def _save(self, folder: BaselineFolder, over: bool) -> None:
        """A checkpoint; of a training that is over only its networks."""
        with self._stopwatch.part("saving"):
            state: dict[str, Any] = {"over": over, "learner": self._trainer.learner.state()}
            if not over:
                state = {
                    "over": over,
                    "trainer": self._trainer.state(),
                    "curves": self._curves.state(),
                    "stopwatch": self._stopwatch.state(),
                }
            write_checkpoint(
                folder, self._next_checkpoint, state, self._settings.identity(), _CHECKPOINTS_KEPT
            )
        self._display.event(f"checkpoint {self._next_checkpoint:06d}")
        self._next_checkpoint += 1

    def _load(self, folder: BaselineFolder, number: int) -> None:
        checkpoint = find_checkpoint(folder, number)
        self._display.event(f"reading {checkpoint.path}")
        state = read_checkpoint(folder, checkpoint, self._settings.identity())
        if state["over"]:
            raise UsageError(
                f"{folder.path}: this training has finished; there is nothing to resume."
                f" Its curves are in {folder.table_file(self._curves.schema)}"
            )
        self._trainer.load_state(state["trainer"])
        self._curves.load_state(state["curves"])
        self._stopwatch.load_state(state["stopwatch"])
        self._next_checkpoint = list_checkpoints(folder)[-1].number + 1

    def _write(self, folder: BaselineFolder, status: Status) -> BaselineSummary:
        """Curves and summary as they are now."""
        trainer = self._trainer
        folder.write_table(self._curves.schema, self._curves.columns())
        summary = BaselineSummary(
            baseline=self._settings.baseline,
            world=self._settings.world,
            seed=self._settings.seed,
            config=self._settings.config,
            versions=versions(),
            device=self._device.type,
            threads=torch.get_num_threads(),
            status=status,
            agents=len(self._agents),
            episodes=trainer.episodes,
            transitions=trainer.transitions,
            updates=trainer.updates,
            last_episodes=min(LAST_EPISODES, trainer.episodes),
            return_mean_per_agent=self._curves.last_return(),
            return_by_agent=self._curves.last_returns(),
            wall_time_s=self._stopwatch.total_s(),
            wall_breakdown_s=self._stopwatch.breakdown_s(),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        write_atomically(folder.summary_file, (summary.model_dump_json(indent=1) + "\n").encode())
        return summary
