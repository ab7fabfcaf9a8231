"""Two particle worlds of the MAAC code: Cooperative Treasure Collection and Rover Tower.

Iqbal and Sha, "Actor-Attention-Critic for Multi-Agent Reinforcement Learning", ICML 2019. Physics and rules
are written once, for a batch of rollouts (``TreasureCollection``, ``RoverTower``); the PettingZoo
environments ``ctc`` and ``rover_tower`` are such a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable

from f2a2_sim.worlds.particle.base import Rules
from f2a2_sim.worlds.particle.environments import ParticleEnv, ctc, rover_tower
from f2a2_sim.worlds.particle.rover_tower import RoverTower
from f2a2_sim.worlds.particle.treasure_collection import TreasureCollection

__all__ = ["RULES", "ParticleEnv", "RoverTower", "TreasureCollection", "ctc", "rover_tower"]

RULES: dict[str, Callable[[], Rules]] = {"ctc": TreasureCollection, "rover_tower": RoverTower}
"""Of each particle world, by its name."""
