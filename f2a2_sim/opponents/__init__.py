"""Opponents: fixed policies for the army that does not learn."""

from f2a2_sim.opponents.base import Opponent
from f2a2_sim.opponents.factory import make_opponent

__all__ = ["Opponent", "make_opponent"]
