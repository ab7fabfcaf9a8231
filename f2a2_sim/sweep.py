"""Many runs of one scenario: every combination of given values, each in a process and a folder of its own.

A sweep keeps no state beside the folders of its runs. The same command given again skips what is finished
and resumes what is not, so it survives whatever its runs survive.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table

from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.interruption import EXIT_INTERRUPTED, interruption
from f2a2_sim.results.folder import RunFolder, disk_errors
from f2a2_sim.results.report import write_comparison
from f2a2_sim.results.words import duration
from f2a2_sim.scenario.check import check_scenario
from f2a2_sim.scenario.load import dump_scenario, load_with_source
from f2a2_sim.simulator.checkpoint import list_checkpoints

State = Literal["waiting", "running", "finished", "interrupted", "failed"]
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass
class Point:
    """One run of a sweep; ``overrides`` are what `f2a2-sim run` takes."""

    name: str
    overrides: tuple[str, ...]
    folder: Path
    state: State = "waiting"
    began: float = 0.0
    took_s: float = 0.0

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")

    def last_line(self) -> str:
        """What its process said last."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


_LONGEST_NAME = 120  # of a run's folder


def plan(fixed: Sequence[str], vary: Sequence[str], seeds: Sequence[int], out: Path) -> list[Point]:
    """Every combination of ``vary`` (``KEY=V1,V2``) and ``seeds``, the last one changing fastest.

    Raises UsageError for a ``vary`` that is not of that form or names a key twice.
    """
    axes = [_axis(text) for text in vary]
    keys = [key for key, _ in axes]
    if seeds and "seed" in keys:
        raise UsageError("--vary seed: given beside --seeds; give all seeds at once, --seeds 1-3")
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--vary {key}: given twice; give all its values at once, {key}=V1,V2,V3")
    if seeds:
        axes.append(("seed", [str(seed) for seed in seeds]))
    points: dict[str, Point] = {}
    for values in itertools.product(*(values for _, values in axes)):
        chosen = tuple(f"{key}={value}" for (key, _), value in zip(axes, values, strict=True))
        name = ",".join(_short(override) for override in chosen)[:_LONGEST_NAME] or "run"
        if name in points:
            name = f"{name},{len(points) + 1}"
        points[name] = Point(name, (*fixed, *chosen), out / name)
    return list(points.values())


def parse_seeds(text: str) -> list[int]:
    """``1-3`` or ``1,2,5``: seeds in order; UsageError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else -1
        if last < first:
            raise UsageError(f"--seeds {text}: expected seeds as in 1-3 or 1,2,5")
        seeds += [seed for seed in range(first, last + 1) if seed not in seeds]
    return seeds


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    split = _split(values)
    if not equals or not key.strip() or not all(split):
        raise UsageError(f"--vary {text}: expected KEY=VALUE,VALUE as in consensus.scheme=paper,gossip")
    return key.strip(), split


def _split(text: str) -> list[str]:
    """At the commas that are in no bracket and no quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            pieces.append("")
            continue
        pieces[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "[{(") - (letter in "]})")
    return [piece.strip() for piece in pieces]


def _short(override: str) -> str:
    """``consensus.scheme=paper`` -> ``scheme=paper``, fit for the name of a folder."""
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}={re.sub(r'[^A-Za-z0-9.+_-]+', '-', value).strip('-')}"


def check(scenario: str, points: Sequence[Point]) -> None:
    """Raise UsageError if any point could not be run, or its folder holds a run of other settings.

    Marks those that are finished already. Folders without anything to go on from are removed.
    """
    for point in points:
        loaded, source = load_with_source(scenario, point.overrides)
        check_scenario(loaded, source)
        folder = RunFolder(point.folder)
        if not folder.scenario_file.is_file():
            continue
        if folder.scenario_file.read_text(encoding="utf-8") != dump_scenario(loaded):
            raise UsageError(
                f"{point.folder}: holds a run with other settings than this sweep's. Choose another --out, "
                "or remove it"
            )
        if folder.summary_file.is_file() and folder.read_summary().status == "finished":
            point.state = "finished"
            continue
        with folder.lock():  # a sweep that was killed has left its runs alive
            if not list_checkpoints(folder):
                shutil.rmtree(point.folder)


def run_sweep(
    scenario: str, points: Sequence[Point], out: Path, jobs: int, threads: int, quiet: bool = False
) -> Path | None:
    """Run what is not finished, ``jobs`` at a time; returns the page that compares the runs.

    None if it was interrupted (SIGINT, SIGTERM): the runs under way have then saved themselves. Raises
    RunError at the end if runs failed; the others are carried out all the same.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    under_way: dict[str, subprocess.Popen[bytes]] = {}
    told = False
    with _display(points, quiet) as show, interruption() as interrupted:
        while True:
            waiting = [point for point in points if point.state == "waiting"]
            if interrupted() and not told:
                told = True
                for process in under_way.values():
                    process.send_signal(signal.SIGINT)
            while waiting and len(under_way) < jobs and not interrupted():
                point = waiting.pop(0)
                under_way[point.name] = _start(scenario, point, threads)
            for point in points:
                if point.name in under_way and under_way[point.name].poll() is not None:
                    point.took_s = time.monotonic() - point.began
                    point.state = _state_after(under_way.pop(point.name).returncode)
            show()
            if not under_way and (interrupted() or all(p.state != "waiting" for p in points)):
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    if interrupted() or any(point.state == "interrupted" for point in points):
        return None
    finished = [point.folder for point in points if point.state == "finished"]
    failed = [point for point in points if point.state == "failed"]
    page = write_comparison(finished, out / "comparison.html") if len(finished) > 1 else None
    if failed:
        listed = "".join(f"\n  {point.folder}: {point.last_line()} (see {point.log})" for point in failed)
        raise RunError(f"{len(failed)} of {len(points)} runs failed:{listed}")
    return page if page is not None else RunFolder(points[0].folder).report_file


def _start(scenario: str, point: Point, threads: int) -> subprocess.Popen[bytes]:
    if RunFolder(point.folder).scenario_file.is_file():
        command = ["resume", str(point.folder)]
    else:
        command = ["run", scenario, *point.overrides, "--out", str(point.folder)]
    point.state, point.began = "running", time.monotonic()
    # In a session of its own, a Ctrl-C of the terminal reaches a run only through us, and once.
    with open(point.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "f2a2_sim", *command, "--threads", str(threads)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def _state_after(status: int) -> State:
    if status == 0:
        return "finished"
    return "interrupted" if status in (EXIT_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM) else "failed"


@contextmanager
def _display(points: Sequence[Point], quiet: bool) -> Iterator[Callable[[], None]]:
    """A table that is redrawn on a terminal; elsewhere a line whenever a run changes its state."""
    console = Console(stderr=True)
    if quiet:
        yield lambda: None
    elif console.is_terminal:
        with Live(_table(points), console=console, refresh_per_second=2) as live:
            yield lambda: live.update(_table(points))
    else:
        shown: dict[str, State] = {}

        def lines() -> None:
            for point in points:
                if point.state not in ("waiting", shown.get(point.name)):
                    took = f" after {duration(point.took_s)}" if point.took_s else ""
                    console.print(f"{point.name}: {point.state}{took}", highlight=False, soft_wrap=True)
                shown[point.name] = point.state

        yield lines


_STYLES: dict[State, str] = {
    "waiting": "dim",
    "running": "bold",
    "finished": "green",
    "interrupted": "yellow",
    "failed": "red",
}


def _table(points: Sequence[Point]) -> Table:
    done = sum(point.state == "finished" for point in points)
    table = Table(title=f"{done} of {len(points)} runs finished", title_justify="left", box=None)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("time", justify="right")
    table.add_column("last word", no_wrap=True, overflow="ellipsis")
    for point in points:
        spent_s = time.monotonic() - point.began if point.state == "running" else point.took_s
        table.add_row(
            point.name,
            f"[{_STYLES[point.state]}]{point.state}[/]",
            duration(spent_s) if spent_s else "",
            point.last_line() if point.state in ("running", "failed") else "",
        )
    return table
