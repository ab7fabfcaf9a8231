"""The world's message about a step, in the form in which the simulation's population takes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment.assembly import AgentParts
from f2a2_sim.deployment.messages import Observe
from f2a2_sim.simulator.parts import BoolArray, IntArray
from network.wire import Message


def observations(message: Message, parts: AgentParts) -> list[NDArray[np.float32]] | None:
    """What each agent sees, zeros for those of whom nothing is told; None if it has not their shapes."""
    specs, rollouts = parts.world.agents, parts.world.rollouts
    before = () if rollouts == 1 else (rollouts,)
    sizes = [spec.observation_size for spec in specs]
    told_of = list(range(len(specs))) if parts.sees_all else [parts.me]
    told = message.tensors.get("observations")
    shape = (len(told_of), *before, max(sizes[agent] for agent in told_of))
    if told is None or told.shape != shape or told.dtype != np.float32:
        return None
    seen = [np.zeros((*before, size), dtype=np.float32) for size in sizes]
    for place, agent in enumerate(told_of):
        seen[agent] = told[place, ..., : sizes[agent]]
    return seen


def side_by_side(observations: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """What each agent sees, ``[size]`` or ``[rollouts, size]``, in one tensor; zeros fill it up."""
    widest = max(seen.shape[-1] for seen in observations)
    together = np.zeros((len(observations), *observations[0].shape[:-1], widest), dtype=np.float32)
    for place, seen in enumerate(observations):
        together[place, ..., : seen.shape[-1]] = seen
    return together


@dataclass(frozen=True)
class Outcome:
    """What followed from the actions before, of all agents; zeros for those of whom nothing is told."""

    rewards: NDArray[np.float32]
    terminated: BoolArray
    actions: IntArray


def outcome(message: Message, told: Observe, parts: AgentParts) -> Outcome | None:
    """None if the message does not say it; others' rewards are nothing to an agent."""
    n, rollouts = parts.n_agents, parts.world.rollouts
    shape = (n,) if rollouts == 1 else (n, rollouts)
    told_of: slice | int = slice(n) if parts.sees_all else parts.me
    rewards, actions = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    reward, played = message.tensors.get("reward"), message.tensors.get("played")
    if reward is None or played is None:
        return None
    if reward.shape != shape[1:] or played.shape != actions[told_of].shape:
        return None
    rewards[parts.me], actions[told_of] = reward, played
    terminated = np.zeros(n, dtype=np.bool_)
    terminated[parts.me] = told.terminated
    return Outcome(rewards, terminated, actions)


def acting(message: Message, n_agents: int) -> BoolArray:
    """Who acts on what is seen ``[n]``; nobody if the message does not say it."""
    told = message.tensors.get("acting")
    nobody = np.zeros(n_agents, dtype=np.bool_)
    return nobody if told is None or told.shape != (n_agents,) or told.dtype != np.bool_ else told
