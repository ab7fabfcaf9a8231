"""Returns of the uniform random policy, against those measured in the original environments.

MAAC's figure is the undiscounted return of an episode, averaged over the 8 agents: -2.24 over 1000 episodes
of Cooperative Treasure Collection (standard error 0.22; collectors -2.58, deposits -1.24) and -8.42 over 4000
of Rover Tower (0.68, both of a pair alike).
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from f2a2_sim.worlds.particle import RoverTower, TreasureCollection

SIGMAS = 4.0


def returns(rules: TreasureCollection | RoverTower, episodes: int) -> NDArray[np.float64]:
    """Of every agent in every episode: ``[episodes, 8]``."""
    rng = np.random.default_rng(2024)
    rules.reset([np.random.default_rng([7, episode]) for episode in range(episodes)])
    total = np.zeros((episodes, 8))
    for _ in range(rules.episode_steps):
        total += rules.step(rng.integers(5, size=(episodes, 8)))[1]
    return total


@pytest.mark.parametrize(
    ("rules", "episodes", "mean", "error"),
    [(TreasureCollection(), 500, -2.24, 0.22), (RoverTower(), 2000, -8.42, 0.68)],
)
def test_the_random_policy_earns_what_it_earned_there(
    rules: TreasureCollection | RoverTower, episodes: int, mean: float, error: float
) -> None:
    """Within 4 standard errors of the difference: theirs and ours are independent."""
    of_episode = returns(rules, episodes).mean(axis=1)
    own_error = of_episode.std(ddof=1) / np.sqrt(episodes)
    assert own_error < 3 * error
    assert abs(of_episode.mean() - mean) < SIGMAS * np.hypot(error, own_error)
