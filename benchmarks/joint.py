"""What learning costs in the particle worlds: F2A2's learners with joint critics, and MAAC.

    python -m benchmarks.joint [--worlds ...] [--learners ...] [--threads 2] [--rounds 5] [--device cpu]

One round is an update of all eight agents with batch 1024, rollouts 12.  Rounds alternate within one process
with plain products of 2048 x 2048 matrices that make up the same FLOPs: their time is the floor, by torch.mm,
and by the library that `f2a2_sim.learners.products` takes here, which may be the faster one.  With one thread
the processor's time is counted, which hardly depends on what else the machine does, otherwise the clock's.

The time of 1,000 episodes is that of their rounds (one every two steps of the twelve rollouts, as the
scenarios say; MAAC four per 100 transitions), of acting, and of all else: world, network, consensus and
events, taken from a run of a few episodes with a batch of 32.  MAAC is a plain training loop: it has no
network.  What it is compared with is MAAC in plain PyTorch, `benchmarks.plain_maac`: its updates alternate
with ours, and its time of 1,000 episodes is put together in the same way.
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
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.plain_maac import PlainTraining
from f2a2_sim.api import run
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.registry import make_trainer
from f2a2_sim.compute import prepare_torch
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.products import linear
from f2a2_sim.learners.work import count_work
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.build import build
from f2a2_sim.simulator.stopwatch import Stopwatch

SIDE = 2048  # of the plain product
ROLLOUTS = 12
WARM_UP = 32  # updates before any is measured: the first ones are computed plainly, then they are recorded
FILLED = 2400  # transitions that MAAC draws from
EPISODE_STEPS = {"rover_tower": 25, "ctc": 100}
LEARNERS = {
    "F2A2-SAC": ("learner.name=f2a2_sac",),
    "F2A2-DDPG": ("learner.name=f2a2_ddpg", "consensus.shared=critic"),
    "F2A2-TD3": ("learner.name=f2a2_td3", "consensus.shared=critic"),
    "F2A2-COMA": ("learner.name=f2a2_coma", "consensus.shared=critic"),
    "F2A2-DDPG, attention": ("learner.name=f2a2_ddpg", "learner.critic=attention"),
    "F2A2-TD3, attention": ("learner.name=f2a2_td3", "learner.critic=attention"),
    "F2A2-COMA, attention": ("learner.name=f2a2_coma", "learner.critic=attention"),
}
COLUMNS = (
    "world",
    "learner",
    "GFLOP",
    "s per round",
    "x floor",
    "x faster floor",
    "env steps/s",
    "s per 1,000 episodes",
)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of the clock, until the device has done it; of the processor where one thread does all."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def alternate(works: list[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """The median seconds of each, done in turns after one turn that does not count."""
    for work in works:
        work()
    turns = [[seconds(work, device) for work in works] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


class Floor:
    """As many FLOPs in plain products."""

    def __init__(self, flops: float, device: torch.device) -> None:
        self._matrix = torch.randn(SIDE, SIDE, device=device)
        self._out = torch.empty_like(self._matrix)
        self._products = max(1, round(flops / (2 * SIDE**3)))
        self.flops = flops
        self.missing = flops / (2 * SIDE**3 * self._products)  # whole products hardly ever make up the FLOPs

    def mm(self) -> None:
        for _ in range(self._products):
            torch.mm(self._matrix, self._matrix, out=self._out)

    def faster(self) -> None:
        with torch.inference_mode():
            for _ in range(self._products):
                linear(self._matrix, self._matrix)


def beside_floor(
    update: Callable[[], object],
    flops: float,
    rounds: int,
    device: torch.device,
    *others: Callable[[], object],
) -> tuple[float, tuple[str, ...], list[float]]:
    """Seconds of an update, its columns of the table, and seconds of the others."""
    floor = Floor(flops, device)
    update_s, mm_s, faster_s, *other_s = alternate([update, floor.mm, floor.faster, *others], rounds, device)
    multiples = (f"{update_s / (s * floor.missing):.2f}" for s in (mm_s, faster_s))
    return update_s, (f"{flops / 1e9:.1f}", f"{update_s:.3f}", *multiples), other_s


def maac_rows(world: str, rounds: int, device: torch.device) -> list[tuple[str, ...]]:
    """MAAC here, and in plain PyTorch."""
    config = MaacConfig(replay_transitions=2 * FILLED, steps_per_round=10**9)  # no round of updates
    clock = Stopwatch(("acting", "world", "learning"))
    trainer, plain = make_trainer("maac", world, config, 1, device, clock.part), PlainTraining(world, config)
    steps = FILLED // ROLLOUTS
    step_s, plain_step_s = (
        statistics.median(seconds(side.step, device) for _ in range(steps)) for side in (trainer, plain)
    )
    update = partial(trainer.learner.learn, trainer.replay, trainer.draws)
    update_s, columns, (plain_s,) = beside_floor(
        update, count_work(update).flops, rounds, device, plain.update
    )
    transitions = 1000 * EPISODE_STEPS[world]
    whole, plain_whole = (
        transitions / ROLLOUTS * step + transitions * 4 / 100 * learn
        for step, learn in ((step_s, update_s), (plain_step_s, plain_s))
    )
    ours = f"{whole:,.0f} ({whole / plain_whole:.2f} of plain)"
    return [
        (world, "MAAC", *columns, f"{ROLLOUTS / step_s:,.0f}", ours),
        (
            world,
            "MAAC, plain PyTorch",
            "",
            f"{plain_s:.3f}",
            "",
            "",
            f"{ROLLOUTS / plain_step_s:,.0f}",
            f"{plain_whole:,.0f}",
        ),
    ]


def fleet_row(world: str, name: str, rounds: int, device: torch.device) -> tuple[str, ...]:
    """A learner of F2A2."""
    keys = LEARNERS[name]
    fleet = fleet_of(world, keys, device)
    rng, every = np.random.default_rng(1), np.arange(fleet.n_agents)
    seen = rng.standard_normal((len(every), ROLLOUTS, fleet.actor_shape.inputs)).astype(np.float32)
    act = partial(fleet.act, every, seen, rng.random(seen.shape[:2]))
    flops = fleet.update_work().flops * fleet.n_agents
    for _ in range(WARM_UP):
        learn_once(fleet, rng)
    round_s, columns, _ = beside_floor(partial(learn_once, fleet, rng), flops, rounds, device)
    act_s = statistics.median(seconds(act, device) for _ in range(20))
    rest_s, world_s = rest_of(world, keys, device.type, torch.get_num_threads())
    steps = 1000 * EPISODE_STEPS[world] / ROLLOUTS
    whole = steps * (act_s + rest_s) + steps / 2 * round_s
    return (world, name, *columns, f"{ROLLOUTS / (act_s + world_s):,.0f}", f"{whole:,.0f}")


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


def learn_once(fleet: JointFleet, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """One update of all agents; its statistics."""
    every = np.arange(fleet.n_agents)
    return fleet.update(every, fleet.draw_batch(every, rng.random((len(every), fleet.draws_per_update))))


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
    parser.add_argument("--worlds", nargs="+", choices=list(EPISODE_STEPS), default=list(EPISODE_STEPS))
    names = ["MAAC", *LEARNERS]
    parser.add_argument("--learners", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    device = prepare_torch(arguments.device, arguments.threads)

    table = Table(title=f"8 agents, batch 1024, 12 rollouts, {arguments.threads} threads, {device}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("world", "learner") else "right")
    for world in arguments.worlds:
        for name in arguments.learners:
            if name != "MAAC":
                table.add_row(*fleet_row(world, name, arguments.rounds, device))
            elif device.type == "cpu":
                for row in maac_rows(world, arguments.rounds, device):
                    table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
