"""The random policy in the same world: what every figure of a run is held against."""

from __future__ import annotations

import numpy as np

from f2a2_sim.randomness import Streams
from f2a2_sim.results.summary import Baseline
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_world
from f2a2_sim.simulator.play import COUNTED
from f2a2_sim.worlds.base import mean_over_rollouts


def measure_random_policy(scenario: Scenario) -> Baseline | None:
    """Play ``record.baseline_episodes`` episodes with uniformly random actions; None for zero episodes."""
    episodes = scenario.record.baseline_episodes
    if episodes == 0:
        return None
    world = build_world(scenario)
    streams = Streams(scenario.seed, dense_ids=len(world.agents))
    choice = streams.family("baseline")
    every = np.arange(len(world.agents))
    n_actions = np.array([agent.n_actions for agent in world.agents])
    returns: list[float] = []
    counts: dict[str, list[float]] = {name: [] for name in COUNTED}
    wins: list[float] = []
    for episode in range(episodes):
        step = world.reset(streams.seed_for("baseline", episode))
        total = np.zeros(len(world.agents))
        seen = dict.fromkeys(COUNTED, 0.0)
        while not step.done:
            chosen = choice.integers(every, n_actions, world.rollouts)
            step = world.step(chosen if world.rollouts > 1 else chosen[:, 0])
            total += mean_over_rollouts(step.rewards)
            for name in COUNTED:
                seen[name] += step.counts.get(name, np.nan)
        returns.append(float(total.mean()))
        wins.append(float(world.episode_summary().get("win", np.nan)))
        for name in COUNTED:
            counts[name].append(seen[name])
    means = {name: float(np.mean(values)) for name, values in counts.items()}
    return Baseline(
        episodes=episodes, return_mean_per_agent=float(np.mean(returns)), win=float(np.mean(wins)), **means
    )
