"""Makes the opponent that ``world.opponent`` names."""

from __future__ import annotations

from f2a2_sim.errors import UsageError
from f2a2_sim.opponents.base import Opponent
from f2a2_sim.opponents.random import RandomOpponent


def make_opponent(name: str, observation_size: int, n_actions: int) -> Opponent:
    """``random``, ``iql`` (the policy shipped with the package), or the path of a ``.safetensors`` policy."""
    if name == "random":
        return RandomOpponent(n_actions)
    raise UsageError(
        f"world.opponent = {name!r}: expected 'random', 'iql', or the path of a .safetensors file; "
        "change world.opponent."
    )
