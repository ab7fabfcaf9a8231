"""Steps of the particle worlds, in batches and singly: `python -m benchmarks.particle [--repeats N]`.

A step is one rollout's: 8 agents act once. A batch steps the rules for all its rollouts in one call. It is
held against 12 separate worlds, stepped in turn with dicts of actions:

- objects: the same worlds written agent by agent (benchmarks/object_worlds.py), as those are that users have;
- mpe2: its nearest worlds. ``collect_treasure_v1`` was made after CTC. Rover Tower has four pairs, so four
  worlds ``simple_speaker_listener_v4`` (one pair, half as many landmarks) stand for one;
- arrays: this project's own PettingZoo environments, each a batch of one.

All get uniform random actions, drawn beforehand, and are measured in turns in the same run on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mpe2 import collect_treasure_v1, simple_speaker_listener_v4
from rich.console import Console
from rich.table import Table

from benchmarks.object_worlds import ObjectRoverTower, ObjectTreasureCollection
from f2a2_sim.worlds.particle import RoverTower, TreasureCollection, ctc, rover_tower

SEPARATE = 12
BATCHES = (12, 64, 256, 512)
REFERENCE_ROUNDS = 25
BATCH_STEPS = 10_000  # of single rollouts, a measurement
N_AGENTS, N_ACTIONS = 8, 5

Rules = type[TreasureCollection] | type[RoverTower]
References = dict[str, tuple[int, Callable[[], Any]]]
"""How many worlds make a rollout, and what makes one."""
CASES: list[tuple[Rules, References]] = [
    (
        TreasureCollection,
        {
            "objects": (1, ObjectTreasureCollection),
            "mpe2": (1, collect_treasure_v1.parallel_env),
            "arrays": (1, ctc),
        },
    ),
    (
        RoverTower,
        {
            "objects": (1, ObjectRoverTower),
            "mpe2": (4, simple_speaker_listener_v4.parallel_env),
            "arrays": (1, rover_tower),
        },
    ),
]


class Separate:
    """Worlds stepped in turn; one whose time limit is reached starts anew."""

    def __init__(self, a_rollout: int, make: Callable[[], Any]) -> None:
        self.envs = [make() for _ in range(SEPARATE * a_rollout)]
        self.steps = REFERENCE_ROUNDS * SEPARATE
        for seed, env in enumerate(self.envs):
            env.reset(seed=seed)
        names = self.envs[0].possible_agents
        limits = [self._n_actions(name) for name in names]
        shape = (REFERENCE_ROUNDS, len(self.envs), len(names))
        draws = np.random.default_rng(0).integers(limits, size=shape).tolist()
        self.actions = [[dict(zip(names, row, strict=True)) for row in rows] for rows in draws]

    def _n_actions(self, name: str) -> int:
        env = self.envs[0]
        return int(env.action_space(name).n) if hasattr(env, "action_space") else N_ACTIONS

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
        episode = self.rules.episode_steps
        rounds = episode * max(1, BATCH_STEPS // (batch * episode))
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
    for column in ("world", "stepped", "steps/s", "x objects", "x mpe2", "x arrays"):
        table.add_column(column, justify="left" if column in ("world", "stepped") else "right")
    for rules, references in CASES:
        sides: dict[str, Separate | Batched] = {
            f"{SEPARATE} {name}": Separate(*reference) for name, reference in references.items()
        }
        sides |= {f"batch of {batch}": Batched(rules, batch) for batch in BATCHES}
        for side in sides.values():
            side.run()
        rates = [[rate(side) for side in sides.values()] for _ in range(repeats)]
        middles = [statistics.median(column) for column in zip(*rates, strict=True)]
        for label, middle in zip(sides, middles, strict=True):
            ratios = [f"{middle / reference:.1f}" for reference in middles[: len(references)]]
            table.add_row(rules.name, label, f"{middle:,.0f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
