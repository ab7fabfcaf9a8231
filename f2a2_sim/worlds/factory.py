"""Makes the world that a scenario's ``world`` section names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f2a2_sim.errors import UsageError
from f2a2_sim.opponents.factory import make_opponent
from f2a2_sim.worlds.base import World
from f2a2_sim.worlds.battle import BattleWorld
from f2a2_sim.worlds.battle_engine import N_ACTIONS, OBSERVATION_SIZE
from f2a2_sim.worlds.limited import LimitedObservations
from f2a2_sim.worlds.particle import RULES
from f2a2_sim.worlds.particle.parallel import ParallelParticleWorld
from f2a2_sim.worlds.pettingzoo import PettingZooWorld


def make_world(
    env: str = "battle",
    *,
    agents: int | None = None,
    map_size: int | None = None,
    opponent: str = "random",
    episode_steps: int = 200,
    default_action: int | None = None,
    env_args: Mapping[str, Any] | None = None,
    rollouts: int = 1,
    observation_limit: float | None = None,
) -> World:
    """The world of a scenario; the arguments are the keys of its ``world`` section.

    ``env`` is ``battle``, a particle world's name, or ``package.module:callable`` that makes a PettingZoo
    parallel environment from ``env_args``. All but battle bring their own agents (``agents``, if given,
    must be their number), map and opponents. ``default_action`` None: the world's own, in battle to stay,
    elsewhere 0. Raises UsageError for a value that cannot be.
    """
    if episode_steps < 1:
        raise UsageError(
            f"world.episode_steps = {episode_steps}: expected at least 1; give a longer episode."
        )
    if rollouts > 1 and env not in RULES:
        raise UsageError(f"world.rollouts = {rollouts}: {env!r} is played once at a time; set it to 1.")
    world: BattleWorld | PettingZooWorld | ParallelParticleWorld
    if env == "battle":
        world = _battle(agents, map_size, opponent, episode_steps, env_args)
    else:
        if map_size is not None:
            raise UsageError(f"world.map_size = {map_size}: only battle has a map; remove it.")
        world = (
            _particle_world(env, episode_steps, env_args, rollouts)
            if env in RULES
            else PettingZooWorld(env, env_args or {}, episode_steps)
        )
        if agents not in (None, len(world.agents)):
            raise UsageError(
                f"world.agents = {agents}: {env!r} with these world.env_args has {len(world.agents)} agents; "
                "give that number, none, or other world.env_args."
            )
    if default_action is not None:
        fewest = min(agent.n_actions for agent in world.agents)
        if not 0 <= default_action < fewest:
            raise UsageError(
                f"world.default_action = {default_action}: expected 0 to {fewest - 1}, an action that every "
                "agent has; change it, or leave it out."
            )
        world.default_action = default_action
    return world if observation_limit is None else LimitedObservations(world, observation_limit)


def _battle(
    agents: int | None,
    map_size: int | None,
    opponent: str,
    episode_steps: int,
    env_args: Mapping[str, Any] | None,
) -> BattleWorld:
    if agents is None:
        raise UsageError("world.agents = null: battle needs the agents a side, 12 to 625; give it.")
    if env_args:
        raise UsageError(
            f"world.env_args = {dict(env_args)!r}: battle takes none; remove it, and use world.agents, "
            "world.map_size, world.opponent and world.episode_steps."
        )
    enemy = make_opponent(opponent, OBSERVATION_SIZE, N_ACTIONS)
    return BattleWorld(agents, enemy, map_size, episode_steps)


def _particle_world(
    env: str, episode_steps: int, env_args: Mapping[str, Any] | None, rollouts: int
) -> PettingZooWorld | ParallelParticleWorld:
    if env_args:
        raise UsageError(
            f"world.env_args = {dict(env_args)!r}: {env} takes none; remove it, and use world.episode_steps."
        )
    if rollouts > 1:
        return ParallelParticleWorld(RULES[env](), rollouts, episode_steps)
    own_args = {"max_cycles": episode_steps, "render_mode": "rgb_array"}
    return PettingZooWorld(f"f2a2_sim.worlds.particle:{env}", own_args, episode_steps)
