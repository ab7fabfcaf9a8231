"""Makes the world that a scenario's ``world`` section names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f2a2_sim.errors import UsageError
from f2a2_sim.opponents.factory import make_opponent
from f2a2_sim.worlds.base import World
from f2a2_sim.worlds.battle import BattleWorld
from f2a2_sim.worlds.battle_engine import N_ACTIONS, OBSERVATION_SIZE


def make_world(
    env: str = "battle",
    *,
    agents: int | None = None,
    map_size: int | None = None,
    opponent: str = "random",
    episode_steps: int = 200,
    env_args: Mapping[str, Any] | None = None,
) -> World:
    """The world of a scenario; the arguments are the keys of its ``world`` section.

    ``env`` is ``battle``, or ``package.module:callable`` that makes a PettingZoo parallel environment from
    ``env_args``; such a world brings its own agents (``agents``, if given, must be their number), its own
    opponents and map. Raises UsageError for a value that cannot be.
    """
    if env == "battle":
        if agents is None:
            raise UsageError("world.agents = null: battle needs the agents a side, 12 to 625; give it.")
        if env_args:
            raise UsageError(
                f"world.env_args = {dict(env_args)!r}: battle takes none; remove it, and use world.agents, "
                "world.map_size, world.opponent and world.episode_steps."
            )
        enemy = make_opponent(opponent, OBSERVATION_SIZE, N_ACTIONS)
        return BattleWorld(agents, enemy, map_size, episode_steps)
    raise UsageError(f"world.env = {env!r}: expected 'battle' or 'package.module:callable'.")
