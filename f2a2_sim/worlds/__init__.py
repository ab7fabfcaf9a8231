"""Worlds: environments in which agents observe, act and are rewarded."""

from f2a2_sim.worlds.base import AgentSpec, Observations, World, WorldStep
from f2a2_sim.worlds.factory import make_world

__all__ = ["AgentSpec", "Observations", "World", "WorldStep", "make_world"]
