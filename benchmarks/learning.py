"""Learning curves in the particle worlds, simulated learners beside baselines: one CSV file and one picture.

    python -m benchmarks.learning LABEL=RUN[,RUN...] ... [--csv FILE] [--png FILE] [--window 240]

RUN is a folder of `f2a2-sim run` or of `f2a2-sim baseline`; several after one label are its seeds. A CSV file
of this program stands for its runs under that label. An episode is one of a single rollout. A curve
is the mean return per agent over the last ``window`` episodes, its band a 95 % interval of the mean over
seeds (Student's t), where there are three or more (of two it would be wider than the picture), as far as all
of them go; thin lines are the single seeds to their ends.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from f2a2_sim.results.folder import BaselineFolder, RunFolder
from f2a2_sim.results.tables import EPISODES

matplotlib.use("agg")
from matplotlib import pyplot as plt

FloatArray = NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray]  # episodes so far, mean return per agent of the newest ones


def read(path: Path) -> Curve:
    """The curve of a run or of a baseline's training."""
    if BaselineFolder.holds_one(path):
        table = pq.read_table(path / "curves.parquet")
        episodes, returns = table["episodes"], table["return_mean_per_agent"]
        return np.asarray(episodes, dtype=float), np.asarray(returns, dtype=float)
    folder = RunFolder.open(path)
    rollouts = int(yaml.safe_load(folder.scenario_file.read_text())["world"]["rollouts"])
    rows = folder.read_table(EPISODES)
    returns = np.asarray(rows["return_mean_per_agent"], dtype=float)
    return rollouts * np.arange(1, len(returns) + 1.0), returns


def read_csv(path: Path, label: str) -> list[tuple[str, Curve]]:
    """The runs that `write_csv` has written under a label."""
    runs: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["label"] == label:
                point = float(row["episodes"]), float(row["return_mean_per_agent"])
                runs.setdefault(row["run"], []).append(point)
    return [(name, (np.array(points)[:, 0], np.array(points)[:, 1])) for name, points in runs.items()]


def smoothed(curve: Curve, window: int) -> Curve:
    """Means over the last ``window`` episodes, from where there are so many."""
    episodes, returns = curve
    rows = max(1, round(window / episodes[0]))
    if len(returns) < rows:
        return episodes[:0], returns[:0]
    means = np.convolve(returns, np.full(rows, 1.0 / rows), mode="valid")
    return episodes[rows - 1 :], means


def together(curves: list[Curve]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Episodes that all have, mean over the curves, and half of its 95 % interval (0 below three curves)."""
    length = min(len(returns) for _, returns in curves)
    stacked = np.stack([returns[:length] for _, returns in curves])
    half = np.zeros(length)
    if len(curves) > 2:
        half = stats.t.ppf(0.975, len(curves) - 1) * stats.sem(stacked, axis=0)
    return curves[0][0][:length], stacked.mean(axis=0), half


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN,...")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--window", type=int, default=240)
    parser.add_argument("--random", type=float, help="return per agent of random play, drawn as a line")
    arguments = parser.parse_args()
    curves: dict[str, list[tuple[str, Curve]]] = {}
    for argument in arguments.runs:
        label, _, paths = argument.partition("=")
        curves[label] = []
        for path in map(Path, paths.split(",")):
            runs = read_csv(path, label) if path.suffix == ".csv" else [(path.name, read(path))]
            if not runs:
                raise SystemExit(f"{path}: no runs of {label!r}; give a label of its first column")
            curves[label].extend(runs)

    table = Table(title=f"mean return per agent over the last {arguments.window} episodes")
    for column in ("", "seeds", "episodes", "return", "95 %"):
        table.add_column(column, justify="right" if column else "left")
    figure, axis = plt.subplots(figsize=(9.5, 4.2), layout="constrained")
    for label, seeds in curves.items():
        single = [smoothed(curve, arguments.window) for _, curve in seeds]
        episodes, mean, half = together(single)
        line = axis.plot(episodes, mean, label=f"{label} ({len(seeds)} seed{'s' * (len(seeds) > 1)})")[0]
        axis.fill_between(episodes, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
        for curve in single if len(single) > 1 else ():
            axis.plot(*curve, color=line.get_color(), alpha=0.35, linewidth=0.6)
        interval = f"{half[-1]:.1f}" if len(seeds) > 2 else "-"
        table.add_row(label, str(len(seeds)), f"{episodes[-1]:.0f}", f"{mean[-1]:.1f}", interval)
    if arguments.random is not None:
        axis.axhline(arguments.random, color="grey", linestyle=":", label="random play")
    axis.set_xlabel("episodes")
    axis.set_ylabel(f"return per agent, mean of the last {arguments.window}")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    Console().print(table)
    if arguments.png is not None:
        arguments.png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(arguments.png, dpi=110)
    if arguments.csv is not None:
        write_csv(arguments.csv, curves)


def write_csv(path: Path, curves: dict[str, list[tuple[str, Curve]]]) -> None:
    """One row for each batch of episodes of each run, not smoothed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "run", "episodes", "return_mean_per_agent"])
        for label, seeds in curves.items():
            for name, (episodes, returns) in seeds:
                for count, value in zip(episodes, returns, strict=True):
                    writer.writerow([label, name, f"{count:.0f}", f"{value:.4f}"])


if __name__ == "__main__":
    main()
