"""Steps of the particle worlds, in batches and singly: `python -m benchmarks.particle [--repeats N]`.

A step is one rollout's: 8 agents act once. The reference is 12 separate PettingZoo environments, stepped in
turn with dicts of actions; a batch steps the same rules for all its rollouts in one call. Both sides get
uniform random actions, drawn beforehand, and both are measured in turns in the same run on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from f2a2_sim.worlds.particle import ParticleEnv, RoverTower, TreasureCollection, ctc, rover_tower

SEPARATE = 12
BATCHES = (12, 64, 256, 512)
REFERENCE_ROUNDS = 25
BATCH_STEPS = 10_000  # of single rollouts, a measurement
N_AGENTS, N_ACTIONS = 8, 5

Rules = type[TreasureCollection] | type[RoverTower]
CASES: list[tuple[Rules, Callable[[], ParticleEnv]]] = [(TreasureCollection, ctc), (RoverTower, rover_tower)]


class Separate:
    """PettingZoo environments stepped in turn; one whose time limit is reached starts anew."""

    rounds = REFERENCE_ROUNDS

    def __init__(self, make: Callable[[], ParticleEnv]) -> None:
        self.envs = [make() for _ in range(SEPARATE)]
        self.steps = self.rounds * SEPARATE
        for seed, env in enumerate(self.envs):
            env.reset(seed=seed)
        draws = np.random.default_rng(0).integers(N_ACTIONS, size=(self.rounds, SEPARATE, N_AGENTS)).tolist()
        names = self.envs[0].possible_agents
        self.actions = [[dict(zip(names, row, strict=True)) for row in rows] for rows in draws]

    def run(self) -> None:
        for rows in self.actions:
            for env, actions in zip(self.envs, rows, strict=True):
                env.step(actions)
                if not env.agents:
                    env.reset()


class Batched:
    """All rollouts of a batch in one call a step, and all started anew after an episode."""

    def __init__(self, rules: Rules, batch: int) -> None:
        self.rules = rules()
        self.streams = [np.random.default_rng(seed) for seed in range(batch)]
        self.rules.reset(self.streams)
        rounds = max(1, BATCH_STEPS // batch)
        self.steps, self.taken = rounds * batch, 0
        self.actions = np.random.default_rng(0).integers(N_ACTIONS, size=(rounds, batch, N_AGENTS))

    def run(self) -> None:
        for actions in self.actions:
            self.rules.step(actions)
            self.taken += 1
            if self.taken % self.rules.episode_steps == 0:
                self.rules.reset(self.streams)


def rate(side: Separate | Batched) -> float:
    """Steps of single rollouts per second of wall time."""
    start = time.perf_counter()
    side.run()
    return side.steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="measurements of which the median counts")
    repeats = parser.parse_args().repeats
    table = Table(title=f"Steps of single rollouts per second, one thread, median of {repeats}")
    for column in ("world", "stepped", "steps/s", "ratio (median)", "ratio (best rates)"):
        table.add_column(column, justify="left" if column in ("world", "stepped") else "right")
    for rules, make in CASES:
        sides: list[Separate | Batched] = [Separate(make), *(Batched(rules, batch) for batch in BATCHES)]
        for side in sides:
            side.run()
        rates = [[rate(side) for side in sides] for _ in range(repeats)]
        columns = list(zip(*rates, strict=True))
        reference = columns[0]
        labels = [f"{SEPARATE} separate", *(f"batch of {batch}" for batch in BATCHES)]
        for label, column in zip(labels, columns, strict=True):
            middle = statistics.median(column)
            table.add_row(
                rules.name,
                label,
                f"{middle:,.0f}",
                f"{middle / statistics.median(reference):.1f}",
                f"{max(column) / max(reference):.1f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
