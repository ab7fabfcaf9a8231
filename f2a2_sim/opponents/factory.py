"""Makes the opponent that ``world.opponent`` names."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from f2a2_sim.errors import UsageError
from f2a2_sim.opponents.base import Opponent
from f2a2_sim.opponents.iql import load_opponent
from f2a2_sim.opponents.random import RandomOpponent

_SHIPPED = "battle_iql.safetensors"


def make_opponent(name: str, observation_size: int, n_actions: int) -> Opponent:
    """``random``, ``iql`` (the policy shipped with the package), or the path of a ``.safetensors`` policy."""
    if name == "random":
        return RandomOpponent(n_actions)
    if name == "iql":
        with importlib.resources.as_file(importlib.resources.files(__package__) / _SHIPPED) as path:
            return load_opponent(path, observation_size, n_actions)
    if name.endswith(".safetensors"):
        return load_opponent(Path(name).expanduser(), observation_size, n_actions)
    raise UsageError(
        f"world.opponent = {name!r}: expected 'random', 'iql', or the path of a .safetensors file; "
        "change world.opponent."
    )
