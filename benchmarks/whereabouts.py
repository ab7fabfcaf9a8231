"""How a run's agents fare one by one in their particle world: what each earns, where it is, what it does.

    python -m benchmarks.whereabouts RUN... [--episodes 48] [--seed 5]

Episodes are played with the policies of each run's newest checkpoint, and chance is the same for all runs. An
agent's distance is that of the farther of its two coordinates from the middle, a mean over all steps; the
field ends at 1, but nothing keeps an agent from leaving it.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.advantages import OwnPlay, fleet_of_run, parser_of_runs, playing
from f2a2_sim.worlds.particle import RULES


@torch.inference_mode()
def table_of(path: Path, episodes: int, seed: int) -> Table:
    """A row for each agent of a run."""
    scenario, fleet = fleet_of_run(path)
    play, rules = OwnPlay(fleet), RULES[scenario.world.env]()
    limit = scenario.world.observation_limit or np.inf
    n = fleet.n_agents
    earned, distance, done = np.zeros(n), np.zeros(n), np.zeros((n, rules.n_actions))
    steps = playing(rules, play, limit, episodes, seed)
    for _, actions, rewards in islice(steps, rules.episode_steps):
        earned += rewards.sum(axis=0) / episodes
        distance += np.abs(rules.state.position[:, :n]).max(axis=-1).mean(axis=0) / rules.episode_steps
        done += (actions[:, :, None] == np.arange(rules.n_actions)).mean(axis=0) / rules.episode_steps

    table = Table(title=f"{path}: {episodes} episodes, return per agent {earned.mean():.2f}")
    for column in ("agent", "return", "distance", "shares of the actions"):
        table.add_column(column, justify="right")
    for agent in range(n):
        shares = " ".join(f"{share:.2f}" for share in done[agent])
        table.add_row(str(agent), f"{earned[agent]:.1f}", f"{distance[agent]:.2f}", shares)
    return table


def main() -> None:
    arguments = parser_of_runs(__doc__, episodes=48).parse_args()
    for path in arguments.runs:
        Console().print(table_of(path, arguments.episodes, arguments.seed))


if __name__ == "__main__":
    main()
