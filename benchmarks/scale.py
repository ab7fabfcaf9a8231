"""Cost of an agent's update and memory of an agent, by size of the army.

    python -m benchmarks.scale [--rounds 5] [--threads 2] [--agents 12 64 256 625 1024]

The armies' rounds alternate within one process; each fleet lives through all of them, so the table is of one
machine state.  The battle's replay (500,000 transitions in float16) is shared by the army, so an agent's
memory is also shown without it.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.learner import filled_fleet
from f2a2_sim.learners.config import LearnerConfig

REFERENCE = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--agents", type=int, nargs="+", default=[12, 64, 256, 625, 1024])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    armies = sorted({*arguments.agents, REFERENCE})

    config = LearnerConfig()
    fleets = {agents: filled_fleet(agents, 140, config, beta=0.01) for agents in armies}
    rng = np.random.default_rng(1)
    per_update: dict[int, list[float]] = {agents: [] for agents in armies}
    per_action: dict[int, list[float]] = {agents: [] for agents in armies}
    for turn in range(arguments.rounds + 1):
        for agents, fleet in fleets.items():
            rows = np.arange(agents)
            repeats = max(1, REFERENCE // agents)  # as much work for a small army as for the reference
            start = time.perf_counter()
            for _ in range(repeats):
                fleet.update(rows, fleet.draw_batch(rows, rng.random((agents, fleet.draws_per_update))))
            middle = time.perf_counter()
            observations = rng.random((agents, fleet.actor.inputs), dtype=np.float32)
            acting = time.perf_counter()
            for _ in range(repeats):
                fleet.act(rows, observations, rng.random(agents))
            end = time.perf_counter()
            if turn:
                per_update[agents].append((middle - start) / repeats / agents)
                per_action[agents].append((end - acting) / repeats / agents)

    table = Table(title=f"Scale: {arguments.threads} threads, medians of {arguments.rounds} rounds")
    headings = (
        "agents",
        "update ms",
        "x 256",
        "action us",
        "x 256",
        "MB per agent",
        "x 256",
        "without replay MB",
        "x 256",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    update = {agents: statistics.median(values) for agents, values in per_update.items()}
    action = {agents: statistics.median(values) for agents, values in per_action.items()}
    memory = {agents: float(sum(fleet.memory_bytes().values())) for agents, fleet in fleets.items()}
    bare = {agents: memory[agents] - fleet.memory_bytes()["replay"] for agents, fleet in fleets.items()}
    for agents in armies:
        cells = [str(agents)]
        for values, scale in ((update, 1e3), (action, 1e6), (memory, 1e-6), (bare, 1e-6)):
            cells += [f"{values[agents] * scale:.2f}", f"{values[agents] / values[REFERENCE]:.2f}"]
        table.add_row(*cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
