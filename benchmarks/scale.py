"""Cost of an agent's update and memory of an agent, by size of the army.

    python -m benchmarks.scale [--rounds 5] [--threads 2] [--agents 12 64 256 625 1024]

Each army's rounds alternate with those of a reference of 256 agents, so that a ratio is of one state of
the machine.  Every agent has the replay that it has in magent_256 (500,000 transitions over 256
agents); memory is what the fleet's arrays and its threads' buffers take, divided by the agents.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.learner import filled_fleet
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac import IsacFleet

REFERENCE = 256


def allocated_bytes(fleet: IsacFleet) -> int:
    """Arrays of the fleet and buffers of its threads."""
    arrays = [fleet.parameters, fleet.targets, fleet.adam.first_moment, fleet.adam.second_moment]
    arrays += [value for name, value in fleet.state().items() if name in ("dual", "pull")]
    buffers = [work.observations.untyped_storage() for work in fleet._workspaces.values()]
    return sum(a.nbytes for a in arrays) + sum(b.nbytes() for b in buffers) + fleet.replay.nbytes()


def make(agents: int) -> IsacFleet:
    """An army whose agents have each lived through 140 steps."""
    share = LearnerConfig().replay_transitions // REFERENCE
    return filled_fleet(agents, 140, LearnerConfig(replay_transitions=share * agents), beta=0.01)


def once(fleet: IsacFleet, rng: np.random.Generator) -> tuple[float, float]:
    """Seconds per agent of an update and of an action; a small army repeats, up to the reference's work."""
    agents = fleet.n_agents
    rows, repeats = np.arange(agents), max(1, REFERENCE // agents)
    observations = rng.random((agents, fleet.actor.inputs), dtype=np.float32)
    start = time.perf_counter()
    for _ in range(repeats):
        fleet.update(rows, fleet.draw_batch(rows, rng.random((agents, fleet.draws_per_update))))
    middle = time.perf_counter()
    for _ in range(repeats):
        fleet.act(rows, observations, rng.random(agents))
    end = time.perf_counter()
    return (middle - start) / repeats / agents, (end - middle) / repeats / agents


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--agents", type=int, nargs="+", default=[12, 64, 256, 625, 1024])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reference = make(REFERENCE)
    rng = np.random.default_rng(1)
    table = Table(title=f"Scale: {arguments.threads} threads, medians of {arguments.rounds} rounds")
    for heading in ("agents", "update ms", "x 256", "action us", "x 256", "MB per agent", "x 256"):
        table.add_column(heading, justify="right")
    for agents in arguments.agents:
        fleet = make(agents)
        times = [(once(fleet, rng), once(reference, rng)) for _ in range(arguments.rounds + 1)][1:]
        update, action, update_256, action_256 = np.median([(*a, *b) for a, b in times], axis=0)
        memory, memory_256 = allocated_bytes(fleet) / agents, allocated_bytes(reference) / REFERENCE
        cells = [str(agents)]
        for value, base, scale in (
            (update, update_256, 1e3),
            (action, action_256, 1e6),
            (memory, memory_256, 1e-6),
        ):
            cells += [f"{value * scale:.2f}", f"{value / base:.2f}"]
        table.add_row(*cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
