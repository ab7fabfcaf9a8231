"""MAAC's training against plain matrix products and against the original's time.

    python -m benchmarks.maac [--threads 1] [--rounds 9]

Updates (batch 1024) alternate within one process with plain products of 1024 x 1024 matrices that make up the
same FLOPs: their time is the floor.  Seconds of the processor are measured, and those of the clock beside
them: with one thread the former hardly depend on what else the machine does.  Time per 1,000 episodes is that
of their updates (4 per 100 transitions) and of 12 rollouts acting and stepping, by the clock.

The original's figures were measured on an idle machine with two cores, two threads: benchmarks of
shariqiqbal2810/MAAC at 6174a01.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.registry import make_trainer
from f2a2_sim.baselines.trainer import CentralTrainer
from f2a2_sim.learners.work import count_flops
from f2a2_sim.simulator.stopwatch import Stopwatch

SIDE = 1024  # of the plain product
FILLED = 6000  # transitions to draw from
ORIGINAL = {"rover_tower": (0.245, 261.0), "ctc": (0.277, 1255.0)}  # s per update, s per 1,000 episodes


class Times:
    """Seconds of the processor and of the clock, by repetition."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def of(self, work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def filled_trainer(world: str) -> tuple[CentralTrainer, float]:
    """A training that has only played so far, and its seconds per step of 12 rollouts."""
    clock = Stopwatch(("acting", "world", "learning"))
    config = MaacConfig(replay_transitions=2 * FILLED, steps_per_round=10**9)  # no round of updates
    trainer = make_trainer("maac", world, config, 1, torch.device("cpu"), clock.part)
    steps = FILLED // config.rollouts
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    return trainer, (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)

    table = Table(title=f"MAAC, {arguments.threads} threads, batch 1024, 12 rollouts")
    for column in (
        "world",
        "GFLOP",
        "update: cpu ms",
        "floor: cpu ms",
        "x floor (median)",
        "x floor (least)",
        "update: wall ms",
        "env steps/s",
        "s per 1,000 episodes",
        "x original's",
    ):
        table.add_column(column, justify="left" if column == "world" else "right")
    matrix, product = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    for world, (_, original_s) in ORIGINAL.items():
        trainer, step_s = filled_trainer(world)

        def update(trainer: CentralTrainer = trainer) -> None:
            trainer.learner.learn(trainer.replay, trainer.draws)

        flops = count_flops(update)
        products = round(flops / (2 * SIDE**3))
        same_flops = flops / (2 * SIDE**3 * products)

        def plain(products: int = products) -> None:
            for _ in range(products):
                torch.mm(matrix, matrix, out=product)

        updates, floor = Times(), Times()
        for _ in range(arguments.rounds):
            updates.of(update)
            floor.of(plain)
        cpu, wall = statistics.median(updates.cpu), statistics.median(updates.wall)
        floor_cpu = statistics.median(floor.cpu) * same_flops
        transitions = 1000 * trainer.episode_steps
        seconds = transitions / 12 * step_s + transitions * 4 / 100 * wall
        table.add_row(
            world,
            f"{flops / 1e9:.2f}",
            f"{1e3 * cpu:.0f}",
            f"{1e3 * floor_cpu:.0f}",
            f"{cpu / floor_cpu:.2f}",
            f"{min(updates.cpu) / (min(floor.cpu) * same_flops):.2f}",
            f"{1e3 * wall:.0f}",
            f"{12 / step_s:,.0f}",
            f"{seconds:.0f}",
            f"{seconds / original_s:.2f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
