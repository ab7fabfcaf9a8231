"""What learning costs in the particle worlds: F2A2's learners with joint critics, and MAAC.

    python -m benchmarks.joint [--threads 2] [--device cpu] [--rounds 5]

One round is an update of all eight agents with batch 1024, rollouts 12.  Rounds alternate within one process
with plain products of 2048 x 2048 matrices that make up the same FLOPs: their time is the floor.  The time of
1,000 episodes is that of their rounds (one every two steps of the twelve rollouts, as the scenarios say; MAAC
four per 100 transitions), of acting, and of all else: world, network, consensus and events, taken from a run
of a few episodes with a batch of 32.  MAAC is a plain training loop: it has no network.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.maac import filled_trainer
from f2a2_sim.api import run
from f2a2_sim.compute import prepare_torch
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.work import count_flops
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.build import build

SIDE = 2048  # of the plain product
ROLLOUTS = 12
LEARNERS = {
    "F2A2-SAC": ("learner.name=f2a2_sac",),
    "F2A2-DDPG": ("learner.name=f2a2_ddpg", "consensus.shared=critic"),
    "F2A2-TD3": ("learner.name=f2a2_td3", "consensus.shared=critic"),
    "F2A2-COMA": ("learner.name=f2a2_coma", "consensus.shared=critic"),
}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """By the clock, until the device has done it."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def per_floor(
    update: Callable[[], object], flops: float, rounds: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of one round, and how many times its floor; both medians of what alternates."""
    matrix = torch.randn(SIDE, SIDE, device=device)
    product = torch.empty_like(matrix)
    products = max(1, round(flops / (2 * SIDE**3)))

    def plain() -> None:
        for _ in range(products):
            torch.mm(matrix, matrix, out=product)

    for work in (update, plain):
        seconds(work, device)
    pairs = [(seconds(update, device), seconds(plain, device)) for _ in range(rounds)]
    round_s, plain_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    return round_s, round_s / (plain_s * flops / (2 * SIDE**3 * products))


def fleet_of(world: str, keys: tuple[str, ...], device: torch.device) -> JointFleet:
    """A fleet as the scenario makes it, its replay filled with noise."""
    scenario = load_scenario(world, [*keys, "learner.batch_size=1024", "learner.replay_transitions=24000"])
    fleet = build(scenario, device).population.fleets[0].learner
    assert isinstance(fleet, JointFleet)
    rng, n = np.random.default_rng(0), fleet.n_agents
    shape = (n, ROLLOUTS)
    seen = rng.standard_normal((*shape, fleet.actor_shape.inputs)).astype(np.float32)
    while not fleet.can_update(np.arange(1))[0]:
        following = rng.standard_normal(seen.shape).astype(np.float32)
        actions, logits = fleet.act(np.arange(n), seen, rng.random(shape))
        rewards = rng.standard_normal(shape).astype(np.float32)
        fleet.remember(np.arange(n), seen, actions, logits, rewards, following, np.zeros(n, dtype=np.bool_))
        seen = following
    return fleet


def learn_once(fleet: JointFleet, rng: np.random.Generator) -> None:
    """One update of all agents."""
    every = np.arange(fleet.n_agents)
    fleet.update(every, fleet.draw_batch(every, rng.random((len(every), fleet.draws_per_update))))


def rest_of(world: str, keys: tuple[str, ...], device: str, threads: int) -> tuple[float, float]:
    """Seconds of world, network, consensus and events per step of all rollouts; and of the world alone."""
    few = [
        "learner.batch_size=32",
        "duration.episodes=4",
        "record.baseline_episodes=1",
        "record.every_steps=25",
    ]
    with tempfile.TemporaryDirectory() as folder:
        result = run(
            load_scenario(world, [*keys, *few]), Path(folder) / "run", device=device, threads=threads
        )
        columns = result.metrics()
    steps = len(columns["row"][1:]) * 25  # the first row holds what building the run took
    passed = {
        part: float(columns[f"wall_{part}_s"][-1] - columns[f"wall_{part}_s"][0])
        for part in ("world", "network", "consensus", "other")
    }
    return sum(passed.values()) / steps, passed["world"] / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    device = prepare_torch(arguments.device, arguments.threads)

    table = Table(title=f"8 agents, batch 1024, 12 rollouts, {arguments.threads} threads, {device}")
    for column in (
        "world",
        "learner",
        "GFLOP",
        "s per round",
        "x floor",
        "env steps/s",
        "s per 1,000 episodes",
    ):
        table.add_column(column, justify="left" if column in ("world", "learner") else "right")
    for world, episode_steps in (("rover_tower", 25), ("ctc", 100)):
        steps = 1000 * episode_steps / ROLLOUTS
        if device.type == "cpu":
            trainer, step_s = filled_trainer(world)
            update = partial(trainer.learner.learn, trainer.replay, trainer.draws)
            flops = float(count_flops(update))
            round_s, ratio = per_floor(update, flops, arguments.rounds, device)
            whole = steps * step_s + 1000 * episode_steps * 4 / 100 * round_s
            row = (f"{flops / 1e9:.1f}", f"{round_s:.3f}", f"{ratio:.2f}", f"{ROLLOUTS / step_s:,.0f}")
            table.add_row(world, "MAAC", *row, f"{whole:,.0f}")
        for name, keys in LEARNERS.items():
            fleet = fleet_of(world, keys, device)
            rng, every = np.random.default_rng(1), np.arange(fleet.n_agents)
            seen = rng.standard_normal((len(every), ROLLOUTS, fleet.actor_shape.inputs)).astype(np.float32)
            learn = partial(learn_once, fleet, rng)
            act = partial(fleet.act, every, seen, rng.random(seen.shape[:2]))

            flops = fleet.update_work().flops * fleet.n_agents
            round_s, ratio = per_floor(learn, flops, arguments.rounds, device)
            act_s = statistics.median(seconds(act, device) for _ in range(20))
            rest_s, world_s = rest_of(world, keys, arguments.device, arguments.threads)
            whole = steps * (act_s + rest_s) + steps / 2 * round_s
            row = (
                f"{flops / 1e9:.1f}",
                f"{round_s:.3f}",
                f"{ratio:.2f}",
                f"{ROLLOUTS / (act_s + world_s):,.0f}",
            )
            table.add_row(world, name, *row, f"{whole:,.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
