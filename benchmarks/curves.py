"""Curves of several runs over their episodes, as one CSV file and one picture.

    python -m benchmarks.curves RUN... [--csv FILE] [--png FILE] [--last 10]

Prints, for every run, the means over its last episodes beside the random policy's.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import EPISODES, Columns

matplotlib.use("agg")
from matplotlib import pyplot as plt

SHOWN = {"return_mean_per_agent": "return per agent", "hits": "hits", "kills": "kills"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--last", type=int, default=10)
    arguments = parser.parse_args()
    folders = [RunFolder.open(path) for path in arguments.runs]
    episodes = {str(folder.path): folder.read_table(EPISODES) for folder in folders}
    Console().print(summary_table(folders, episodes, arguments.last))
    if arguments.csv is not None:
        write_csv(arguments.csv, episodes)
    if arguments.png is not None:
        draw(arguments.png, folders, episodes)


def summary_table(folders: list[RunFolder], episodes: dict[str, Columns], last: int) -> Table:
    table = Table(title=f"means over the last {last} episodes (and of the random policy in the same world)")
    columns = ("run", "episodes", "updates per agent", "return", "hits", "kills", "deaths", "win")
    for name in columns:
        table.add_column(name, justify="left" if name == "run" else "right")
    for folder in folders:
        rows, summary = episodes[str(folder.path)], folder.read_summary()
        baseline = summary.baseline
        cells = [str(folder.path), str(len(rows["episode"])), f"{summary.updates / summary.agents:.0f}"]
        for name in ("return_mean_per_agent", "hits", "kills", "deaths", "win"):
            mean = float(np.mean(rows[name][-last:]))
            random = None if baseline is None else getattr(baseline, name)
            cells.append(f"{mean:.2f} ({'-' if random is None else f'{random:.2f}'})")
        table.add_row(*cells)
    return table


def write_csv(path: Path, episodes: dict[str, Columns]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [name for name in EPISODES.names if name != "return_std"]
        writer.writerow(["run", *names])
        for run, rows in episodes.items():
            for index in range(len(rows["episode"])):
                writer.writerow([run, *(f"{rows[name][index]:.6g}" for name in names)])


def draw(path: Path, folders: list[RunFolder], episodes: dict[str, Columns]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(12, 3.6), layout="constrained")
    for axis, (name, title) in zip(axes, SHOWN.items(), strict=True):
        for folder in folders:
            rows = episodes[str(folder.path)]
            line = axis.plot(rows["episode"] + 1, rows[name], label=str(folder.path))[0]
            baseline = folder.read_summary().baseline
            if baseline is not None:
                axis.axhline(getattr(baseline, name), color=line.get_color(), linestyle=":", linewidth=1)
        axis.set_title(f"{title} by episode")
        axis.set_xlabel("episode")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(title="run (dotted: random policy)", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
