"""What a run shows while it runs: a live panel on a terminal, a line now and then elsewhere.

This is the user's side of the run, so it may look at the wall clock; the simulation never sees it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.summary import Baseline
from f2a2_sim.results.words import bytes_text, duration, number, percent
from f2a2_sim.scenario.schema import Scenario

_SECONDS_BETWEEN_LINES = 10.0
Clock = Callable[[], float]


class Progress(Protocol):
    """Hears what a run does; used as a context manager around it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def baseline(self, baseline: Baseline | None) -> None:
        """The random policy's figures, once they are known."""

    def on_row(self, row: Mapping[str, Any]) -> None:
        """A metrics row was recorded."""

    def on_event(self, text: str) -> None:
        """Something happened that is worth a word (a checkpoint, the end)."""


def make_progress(scenario: Scenario, folder: RunFolder, enabled: bool = True) -> Progress:
    """The display that fits: silent, a live panel if standard error is a terminal, or plain lines."""
    if not enabled:
        return Silent()
    console = Console(stderr=True)
    state = RunState(scenario, folder)
    return LivePanel(state, console) if console.is_terminal else PlainLines(state, console)


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def baseline(self, baseline: Baseline | None) -> None:
        pass

    def on_row(self, row: Mapping[str, Any]) -> None:
        pass

    def on_event(self, text: str) -> None:
        pass


class RunState:
    """What there is to show: the latest row, the returns so far, and how fast it goes."""

    def __init__(self, scenario: Scenario, folder: RunFolder, clock: Clock = time.monotonic) -> None:
        self.scenario = scenario
        self.folder = folder
        self.baseline: Baseline | None = None
        self.row: Mapping[str, Any] | None = None
        self.last_return = self.best_return = math.nan
        self.event = ""
        self._clock = clock
        self._first: tuple[float, float, Mapping[str, Any]] | None = None
        self._row_at = clock()

    def add(self, row: Mapping[str, Any]) -> None:
        self._row_at = self._clock()
        if self._first is None:
            self._first = (self._row_at, self.share_done(row), row)
        if row["episode_end"]:
            self.last_return = float(row["return_mean_per_agent"])
            self.best_return = max(
                self.last_return, -math.inf if math.isnan(self.best_return) else self.best_return
            )
        self.row = row

    def share_done(self, row: Mapping[str, Any]) -> float:
        """The part of the run that is done: of the limits given, the one that is nearest to its end."""
        limits = self.scenario.duration
        episodes = row["episode"] + (
            1.0 if row["episode_end"] else row["episode_step"] / self.scenario.world.episode_steps
        )
        shares = [
            done / limit
            for done, limit in (
                (episodes, limits.episodes),
                (row["env_steps"], limits.env_steps),
                (row["virtual_time_s"], limits.virtual_time_s),
                (row["wall_time_s"], limits.wall_time_s),
            )
            if limit is not None
        ]
        return float(min(1.0, max(shares)))

    def remaining_s(self) -> float:
        """Wall seconds to the end at the pace since this process began; NaN while unknown."""
        if self.row is None or self._first is None:
            return math.nan
        began_at, share_then, _ = self._first
        gained = self.share_done(self.row) - share_then
        if gained <= 0:
            return math.nan
        pace = (self._row_at - began_at) / gained
        return max(0.0, pace * (1.0 - self.share_done(self.row)) - (self._clock() - self._row_at))

    def rate(self, column: str) -> float:
        """Growth of that column per wall second since this process began; NaN while unknown."""
        if self.row is None or self._first is None or self._row_at <= self._first[0]:
            return math.nan
        return float(self.row[column] - self._first[2][column]) / (self._row_at - self._first[0])

    def random(self, name: str) -> str:
        """The random policy's figure in brackets, or nothing."""
        value = getattr(self.baseline, name) if self.baseline is not None else None
        return "" if value is None else f" (random {number(value)})"


class LivePanel:
    """A panel that stays in place and is redrawn twice a second."""

    def __init__(self, state: RunState, console: Console) -> None:
        self._state = state
        self._live = Live(
            get_renderable=lambda: panel(state), console=console, refresh_per_second=2, transient=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def baseline(self, baseline: Baseline | None) -> None:
        self._state.baseline = baseline
        self._state.event = ""

    def on_row(self, row: Mapping[str, Any]) -> None:
        self._state.add(row)

    def on_event(self, text: str) -> None:
        self._state.event = text


class PlainLines:
    """One line every ten seconds, for logs and pipes."""

    def __init__(self, state: RunState, console: Console, clock: Clock = time.monotonic) -> None:
        self._state = state
        self._console = console
        self._clock = clock
        self._printed_at = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def baseline(self, baseline: Baseline | None) -> None:
        self._state.baseline = baseline

    def on_row(self, row: Mapping[str, Any]) -> None:
        self._state.add(row)
        if self._clock() - self._printed_at >= _SECONDS_BETWEEN_LINES:
            self._printed_at = self._clock()
            self._print(line(self._state))

    def on_event(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def line(state: RunState) -> str:
    """The state of a run in one line."""
    row = state.row
    assert row is not None
    words = [
        f"{100 * state.share_done(row):.0f} %",
        f"episode {row['episode'] + 1} step {row['episode_step']}",
        f"virtual {duration(row['virtual_time_s'])}",
        f"{row['updates']:,} updates",
        f"return {number(row['return_mean_per_agent'])}",
        f"last episode {number(state.last_return)}{state.random('return_mean_per_agent')}",
    ]
    if math.isfinite(row["hits"]):
        words.append(f"hits {number(row['hits'])} kills {number(row['kills'])}")
    words.append(f"{number(state.rate('env_steps'))} steps/s")
    if math.isfinite(state.remaining_s()):
        words.append(f"{duration(state.remaining_s())} left")
    return "  ".join(words)


def panel(state: RunState) -> RenderableType:
    """The state of a run as a panel."""
    title = f"[bold]{state.scenario.name}[/bold]  seed {state.scenario.seed}"
    where = Text(f"{state.folder.path}", style="dim")
    row = state.row
    if row is None:
        waiting = Text(state.event or "starting", style="dim")
        return Panel(Group(waiting, where), title=title, title_align="left")
    share = state.share_done(row)
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right")
    left = state.remaining_s()
    bar.add_row(
        ProgressBar(total=1.0, completed=share),
        f"{100 * share:.0f} %" + (f", {duration(left)} left" if math.isfinite(left) else ""),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for label, text in _facts(state, row):
        facts.add_row(label, text)
    event = Text(state.event, style="dim")
    return Panel(Group(bar, facts, event, where), title=title, title_align="left")


def _facts(state: RunState, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    of = f" of {state.scenario.duration.episodes}" if state.scenario.duration.episodes else ""
    facts = [
        ("episode", f"{row['episode'] + 1}{of}, step {row['episode_step']}"),
        ("virtual time", f"{duration(row['virtual_time_s'])}, {row['updates']:,} updates"),
        (
            "return",
            f"{number(row['return_mean_per_agent'])} so far, last episode {number(state.last_return)},"
            f" best {number(state.best_return)}{state.random('return_mean_per_agent')}",
        ),
    ]
    if math.isfinite(row["hits"]):
        facts.append(
            (
                "fight",
                f"{number(row['hits'])} hits{state.random('hits')}, {number(row['kills'])} kills"
                f"{state.random('kills')}, {row['alive']} alive",
            )
        )
    if row["sent"]:
        dropped = row["queue_dropped"] + row["absent_dropped"]
        total = row["sent"] + row["duplicated"]
        facts.append(
            (
                "messages",
                f"{row['sent']:,} sent ({bytes_text(row['bytes_sent'])}),"
                f" {percent(row['delivered'], total)} delivered,"
                f" {percent(row['lost'], total)} lost, {percent(dropped, total)} dropped",
            )
        )
    facts.append(
        ("speed", f"{number(state.rate('env_steps'))} steps/s, {number(state.rate('updates'))} updates/s")
    )
    return facts
