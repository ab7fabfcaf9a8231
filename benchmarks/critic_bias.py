"""Do the critics of a run's agents expect too much? Held against what really follows.

    python -m benchmarks.critic_bias RUN... [--episodes 96] [--ahead 500] [--seed 5]

For F2A2-SAC, DDPG and TD3 in a particle world. Episodes are played with the policies of each run's newest
checkpoint and, since these learners' targets go on past the time limit, played on for so many steps more.
What an agent's first critic says of every step within the limit stands beside the discounted rewards that
followed, standardised as the learner does it, by the rewards that the checkpoint's replay holds: as long as
all agents play by their policies, that is what the critic estimates, but for F2A2-SAC's entropy.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.advantages import OwnPlay, fleet_of_run, parser_of_runs, playing, told
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.joint.ddpg import DdpgFleet
from f2a2_sim.learners.joint.replay import moments_of
from f2a2_sim.learners.joint.sac import SacFleet
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.checkpoint import list_checkpoints, read_tensors
from f2a2_sim.worlds.particle import RULES

FloatArray = NDArray[np.float64]


def reward_moments(path: Path, scenario: Scenario, n: int) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation by which each agent standardises its rewards ``[n]``; 0 and 1 if it does not.

    Of the newest checkpoint with a replay: the one that ends a run has policies alone.
    """
    if not scenario.learner.normalise_rewards:
        return np.zeros(n), np.ones(n)
    folder = RunFolder.open(path)
    for checkpoint in reversed(list_checkpoints(folder)):
        sums, held = (
            list(read_tensors(folder, checkpoint, f"/learner/replay/{name}").values())
            for name in ("sums", "held")
        )
        if sums:
            return moments_of(sums[0].numpy(), held[0].numpy() * scenario.world.rollouts)
    raise SystemExit(f"{path}: none of its checkpoints holds a replay; let it keep two (checkpoint.keep=2)")


def expected(fleet: JointFleet, seen: Tensor, actions: Tensor) -> FloatArray:
    """Values ``[n, batch]`` by the first critic of each agent.

    ``seen`` ``[n, batch, size]`` and ``actions`` int64 ``[n, batch]`` are everybody's.
    """
    n = fleet.n_agents
    if isinstance(fleet, SacFleet):
        of_all = torch.from_numpy(told(fleet, seen.numpy(), actions.numpy()))
        return of_all.gather(-1, actions.unsqueeze(-1)).squeeze(-1).numpy()
    if not isinstance(fleet, DdpgFleet):
        raise SystemExit(f"{fleet.config.name}: only the critics of F2A2-SAC, DDPG and TD3 are looked into")
    critic = fleet.critic(0)
    critic.look(slice(0, n), seen.expand(n, -1, -1, -1), [actions.expand(n, -1, -1)])
    return critic.forward(fleet.parameters[:, fleet.critic_columns])[0].double().numpy()


@torch.inference_mode()
def row_of(path: Path, episodes: int, ahead: int, seed: int) -> tuple[str, ...]:
    """A run's row: means over agents, steps and episodes, and the standard error over episodes."""
    scenario, fleet = fleet_of_run(path)
    play, rules = OwnPlay(fleet), RULES[scenario.world.env]()
    limit = scenario.world.observation_limit or np.inf
    n, steps = fleet.n_agents, rules.episode_steps
    mean, deviation = reward_moments(path, scenario, n)
    observed, chosen = [], []
    paid: list[FloatArray] = []
    played = islice(playing(rules, play, limit, episodes, seed), steps + ahead)
    console = Console(stderr=True)
    for seen, actions, rewards in track(played, str(path), steps + ahead, console=console, transient=True):
        if len(paid) < steps:
            observed.append(seen)
            chosen.append(actions.T)
        paid.append(rewards.T)

    followed = np.zeros((steps + ahead + 1, n, episodes))
    for step in reversed(range(steps + ahead)):
        standardised = (paid[step] - mean[:, None]) / deviation[:, None]
        followed[step] = standardised + fleet.config.discount * followed[step + 1]
    true = np.concatenate(followed[:steps], axis=1)  # [n, steps * episodes]
    together = torch.from_numpy(np.concatenate(observed, axis=1))
    said = expected(fleet, together, torch.from_numpy(np.concatenate(chosen, axis=1)))
    excess = (said - true).reshape(n, steps, episodes).mean(axis=(0, 1))
    alike = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(said, true, strict=True)])
    earned = np.sum(paid[:steps], axis=0).mean()
    error = excess.std(ddof=1) / np.sqrt(episodes)
    return (
        str(path),
        f"{earned:.1f}",
        f"{said.mean():.1f}",
        f"{true.mean():.1f}",
        f"{excess.mean():.1f} ± {error:.1f}",
        f"{alike:.2f}",
    )


def main() -> None:
    parser = parser_of_runs(__doc__, episodes=96)
    parser.add_argument("--ahead", type=int, default=500)
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.episodes} episodes, played on for {arguments.ahead} steps")
    for column in ("run", "return", "critic says", "what followed", "too much by", "correlation"):
        table.add_column(column, justify="right")
    for path in arguments.runs:
        table.add_row(*row_of(path, arguments.episodes, arguments.ahead, arguments.seed))
    Console().print(table)


if __name__ == "__main__":
    main()
