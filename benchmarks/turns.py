"""What an update of F2A2's learners or of MAAC costs in two checkouts of this repository, in turns.

    git worktree add /tmp/before d5c3c07
    python -m benchmarks.turns /tmp/before [--worlds ...] [--learners ...] [--threads 1 2] [--rounds 9]

A machine is not equally fast from minute to minute, so the other checkout and this one, each a process of its
own, take turns at an update of all eight agents and at plain products that make up its FLOPs (see
`benchmarks.joint`, which both must have). What is told are medians of all rounds, and their ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.joint import EPISODE_STEPS, LEARNERS, WARM_UP

MAAC = "MAAC"
SERVE = """
import sys
from functools import partial
import numpy as np
from benchmarks.joint import FILLED, LEARNERS, ROLLOUTS, Floor, fleet_of, learn_once, seconds
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.registry import make_trainer
from f2a2_sim.compute import prepare_torch
from f2a2_sim.learners.work import count_work
from f2a2_sim.simulator.stopwatch import Stopwatch
device = prepare_torch("cpu", int(sys.argv[3]))
if sys.argv[2] == "MAAC":
    config = MaacConfig(replay_transitions=2 * FILLED, steps_per_round=10**9)  # no round of updates
    clock = Stopwatch(("acting", "world", "learning"))
    trainer = make_trainer("maac", sys.argv[1], config, 1, device, clock.part)
    for _ in range(FILLED // ROLLOUTS):
        trainer.step()
    update = partial(trainer.learner.learn, trainer.replay, trainer.draws)
    flops = count_work(update).flops
else:
    fleet = fleet_of(sys.argv[1], LEARNERS[sys.argv[2]], device)
    update = partial(learn_once, fleet, np.random.default_rng(1))
    flops = fleet.update_work().flops * fleet.n_agents
floor = Floor(flops, device)
for _ in range(int(sys.argv[4])):
    update()
floor.mm()
for _ in sys.stdin:
    update_s = seconds(update, device)
    print(floor.flops, update_s, seconds(floor.mm, device) * floor.missing, flush=True)
"""


class Side:
    """One checkout, which measures when it is asked to."""

    def __init__(self, folder: Path, world: str, learner: str, threads: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, world, learner, str(threads), str(WARM_UP)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.flops = 0.0
        self.update_s: list[float] = []
        self.floor_s: list[float] = []

    def measure(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if len(answer) != 3:
            raise SystemExit("a checkout cannot measure itself; what it said is above")
        self.flops, update_s, floor_s = map(float, answer)
        self.update_s.append(update_s)
        self.floor_s.append(floor_s)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @property
    def median_s(self) -> float:
        """Of an update."""
        return statistics.median(self.update_s)

    @property
    def cells(self) -> tuple[str, str, str]:
        """GFLOP, seconds, x floor."""
        times = self.median_s / statistics.median(self.floor_s)
        return f"{self.flops / 1e9:.1f}", f"{self.median_s:.3f}", f"{times:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("--worlds", nargs="+", choices=list(EPISODE_STEPS), default=list(EPISODE_STEPS))
    names = [*LEARNERS, MAAC]
    parser.add_argument("--learners", nargs="+", choices=names, default=names)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    folders = (arguments.before.resolve(), Path(__file__).resolve().parents[1])
    table = Table(title=f"{folders[0]} before, {folders[1]} now; medians of {arguments.rounds} rounds")
    for column in ("world", "learner", "threads", "GFLOP before", "now", "s before", "now"):
        table.add_column(column)
    for column in ("x floor before", "now", "s, now / before"):
        table.add_column(column)
    console = Console(width=140)
    for world in arguments.worlds:
        for learner in arguments.learners:
            for threads in arguments.threads:
                sides = [Side(folder, world, learner, threads) for folder in folders]
                told = f"{world} {learner} {threads} threads"
                for _ in track(range(arguments.rounds), told, console=console, transient=True):
                    for side in sides:
                        side.measure()
                for side in sides:
                    side.close()
                old, new = (side.median_s for side in sides)
                pairs = [cell for both in zip(*(s.cells for s in sides), strict=True) for cell in both]
                table.add_row(world, learner, str(threads), *pairs, f"{new / old:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
