"""One update round of a fleet against plain matrix products, and against separate torch modules.

    python -m benchmarks.learner [--agents 256] [--rounds 7] [--threads 2]

The fleet's round and the matrix products (as many as make up the same FLOPs) alternate within one
process, and so does the loop of separate modules, whose arithmetic is the same: per agent one actor, two
critics, two target critics, autograd, and one torch.optim.Adam each for actor and critics.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from f2a2_sim.learners.base import FleetSetup
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac import IsacFleet

OBSERVATION, ACTIONS = 845, 21  # battle
SIDE = 3000  # of the plain product


def filled_fleet(agents: int, steps: int, config: LearnerConfig, beta: float = 0.0) -> IsacFleet:
    """A fleet whose agents each remember ``steps`` transitions of battle's shape."""
    fleet = IsacFleet(config, FleetSetup(OBSERVATION, ACTIONS, [0] * agents, agents, beta=beta))
    rng = np.random.default_rng(0)
    rows = np.arange(agents)
    observations = rng.random((agents, OBSERVATION), dtype=np.float32)
    for _ in range(steps):
        actions, logits = fleet.act(rows, observations, rng.random(agents))
        following = np.roll(observations, 1, axis=0)
        rewards = rng.random(agents, dtype=np.float32)
        fleet.remember(
            rows, observations, actions, logits, rewards, following, np.zeros(agents, dtype=np.bool_)
        )
        observations = following
    return fleet


class SeparateAgent:
    """The same learner as one would write it for a single agent."""

    def __init__(self, config: LearnerConfig, fleet: IsacFleet, row: int) -> None:
        h = config.hidden_size
        self.config, self.fleet, self.row = config, fleet, row

        def network() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(OBSERVATION, h),
                nn.LeakyReLU(),
                nn.Linear(h, h),
                nn.LeakyReLU(),
                nn.Linear(h, ACTIONS),
            )

        self.actor, self.q, self.target = network(), [network(), network()], [network(), network()]
        critics = [*self.q[0].parameters(), *self.q[1].parameters()]
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)
        self.critic_adam = torch.optim.Adam(critics, lr=config.learning_rate)

    def update(self, frames: Tensor) -> None:
        c, replay = self.config, self.fleet.replay
        o = replay.observations[self.row, frames].float()
        following = replay.observations[self.row, (frames + 1) % replay.frames_per_agent].float()
        a = replay.actions[self.row, frames].long().unsqueeze(1)
        log_pi0 = torch.log_softmax(replay.logits[self.row, frames], 1)
        r = replay.rewards[self.row, frames]
        log_pi = torch.log_softmax(self.actor(o), 1)
        with torch.no_grad():
            log_next = torch.log_softmax(self.actor(following), 1)
            q_next = torch.minimum(self.target[0](following), self.target[1](following))
            y = (r + c.discount * (log_next.exp() * (q_next - c.temperature * log_next)).sum(1)).unsqueeze(1)
            constant = log_pi.detach()
            pi = constant.exp()
            rho = (constant - log_pi0).exp().clamp_max(c.truncation)
            rho_resampled = (log_pi0 - constant).exp().clamp_max(c.truncation)
        loss = torch.zeros(())
        for j in range(2):
            q = self.q[j](o)
            delta = (q - y).detach()
            every = 2 * c.alpha2 * delta * rho_resampled * pi
            taken = 2 * c.alpha2 * delta
            if j == 0:
                every, taken = every - c.alpha1 * pi, taken - c.alpha1 * rho
            loss = loss + ((every * q).sum(1) + (taken * q).gather(1, a).squeeze(1)).mean()
        self.critic_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_adam.step()
        with torch.no_grad():
            for q_net, target in zip(self.q, self.target, strict=True):
                for p, t in zip(q_net.parameters(), target.parameters(), strict=True):
                    t.lerp_(p, c.tau)
            q1, q2 = self.q[0](o), self.q[1](o)
            advantage = q1 - c.temperature * constant - (pi * q1).sum(1, keepdim=True)
            score = c.alpha1 * pi * advantage - c.alpha2 * rho_resampled * pi * (
                (q1 - y) ** 2 + (q2 - y) ** 2
            )
        replayed = (c.alpha1 * rho * advantage * log_pi).gather(1, a).squeeze(1)
        self.actor_adam.zero_grad()
        (-(replayed + (score * log_pi).sum(1)).mean()).backward()
        self.actor_adam.step()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--block", type=int, default=LearnerConfig().block_agents)
    parser.add_argument("--skip-separate", action="store_true", help="leave the slow loop of modules out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = LearnerConfig(block_agents=arguments.block)
    fleet = filled_fleet(arguments.agents, 2 * config.batch_size, config)
    rows = np.arange(arguments.agents)
    rng = np.random.default_rng(1)
    flops = fleet.update_work().flops * arguments.agents
    matrix, product = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    products = max(1, round(flops / (2 * SIDE**3)))
    same_flops = flops / (2 * SIDE**3 * products)

    def fleet_round() -> None:
        fleet.update(rows, fleet.draw_batch(rows, rng.random((arguments.agents, fleet.draws_per_update))))

    def plain_products() -> None:
        for _ in range(products):
            torch.mm(matrix, matrix, out=product)

    separate = [] if arguments.skip_separate else [SeparateAgent(config, fleet, row) for row in rows.tolist()]

    def separate_round() -> None:
        indices = fleet.replay.sample(rows, rng.random((arguments.agents, config.batch_size)))
        for agent, frames in zip(separate, torch.from_numpy(indices), strict=True):
            agent.update(frames)

    works: dict[str, Callable[[], object]] = {"plain products": plain_products, "fleet": fleet_round}
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(arguments.rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    times["plain products"] = [t * same_flops for t in times["plain products"]]
    if separate:
        separate_round()
        times["separate modules"] = [seconds(separate_round) for _ in range(2)]

    title = (
        f"One update round of {arguments.agents} agents, {arguments.threads} threads, block {arguments.block}"
    )
    table = Table(title=title)
    for column in ("", "median s", "least s", "GFLOP/s", "x plain (median)", "x plain (least)"):
        table.add_column(column, justify="left" if not column else "right")
    plain = times["plain products"]
    for name, values in times.items():
        median, least = statistics.median(values), min(values)
        table.add_row(
            name,
            f"{median:.3f}",
            f"{least:.3f}",
            f"{flops / median / 1e9:.0f}",
            f"{median / statistics.median(plain):.2f}",
            f"{least / min(plain):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
