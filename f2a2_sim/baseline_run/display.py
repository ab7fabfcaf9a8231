"""What a baseline's training shows: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from f2a2_sim.baselines.trainer import EpisodeReport
from f2a2_sim.results.words import duration, number

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Hears of every batch of episodes and of events; used as a context manager around the training."""

    def __init__(self, episodes: int, enabled: bool, console: Console | None = None) -> None:
        self._episodes = episodes
        self._enabled = enabled
        self._console = Console(stderr=True) if console is None else console
        self._live = enabled and self._console.is_terminal
        self._bar = Progress(
            TextColumn("episode"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("", total=episodes)
        self._printed_at = -math.inf
        self._began_at = time.monotonic()
        self._began_with: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, episodes: int) -> None:
        """The training begins, or goes on, with so many episodes behind it."""
        self._began_at, self._began_with = time.monotonic(), episodes
        self._bar.update(self._task, completed=episodes)

    def report(self, report: EpisodeReport) -> None:
        """A batch of episodes is over."""
        mean = number(float(report.mean_episode_rewards.mean()))
        told = f"return per agent {mean}  {report.updates:,} updates"
        self._bar.update(self._task, completed=report.episodes, description=told)
        now = time.monotonic()
        if self._enabled and not self._live and now - self._printed_at >= _SECONDS_BETWEEN_LINES:
            self._printed_at = now
            left = duration(self._left_s(report.episodes, now))
            self._print(f"episode {report.episodes:,} of {self._episodes:,}  {told}  {left} left")

    def event(self, text: str) -> None:
        """Something happened that is worth a line."""
        if self._enabled and not self._live:
            self._print(text)

    def _left_s(self, episodes: int, now: float) -> float:
        done = episodes - (self._began_with or 0)
        return (now - self._began_at) / done * max(0, self._episodes - episodes) if done else math.nan

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
