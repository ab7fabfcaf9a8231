"""Many rollouts of a particle world as one world, for learners that play twelve episodes at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.worlds.base import AgentSpec, FloatMatrix, WorldStep
from f2a2_sim.worlds.particle.base import Observations, Rules
from f2a2_sim.worlds.particle.picture import draw_discs

_SIDE = 512  # of a picture, in pixels


class ParallelParticleWorld:
    """``rollouts`` episodes of ``rules`` in lock-step, each with random numbers of its own.

    The arrays of `WorldStep` have an axis of rollouts behind that of the agents: observations are a list of n
    arrays ``[rollouts, size_i]``, rewards are ``[n, rollouts]``; `step` takes ``[n, rollouts]``. Nobody is
    ever terminated. A picture is of the first rollout.
    """

    def __init__(self, rules: Rules, rollouts: int, episode_steps: int) -> None:
        self._rules = rules
        self.rollouts = rollouts
        self.episode_steps = episode_steps
        self.default_action = 0
        self.agents = [
            AgentSpec(name, size, rules.n_actions)
            for name, size in zip(rules.agents, rules.observation_sizes, strict=True)
        ]
        self._step = 0

    def reset(self, seed: int) -> WorldStep:
        children = np.random.SeedSequence(seed).spawn(self.rollouts)
        self._step = 0
        observations = self._rules.reset([np.random.default_rng(child) for child in children])
        return self._shown(observations, np.zeros((self.rollouts, len(self.agents))))

    def step(self, actions: NDArray[np.int64]) -> WorldStep:
        self._step += 1
        return self._shown(*self._rules.step(np.ascontiguousarray(actions.T)))

    def restore(self, seed: int, actions: NDArray[np.int64]) -> WorldStep:
        state = self.reset(seed)
        for chosen in actions:
            state = self.step(chosen)
        return state

    def episode_summary(self) -> dict[str, float]:
        return {"alive": float(len(self.agents))}

    def render(self) -> NDArray[np.uint8]:
        """RGB picture of the first rollout, uint8 ``[512, 512, 3]``."""
        return draw_discs(self._rules.discs(), _SIDE)

    def _shown(self, observations: Observations, rewards: NDArray[np.float64]) -> WorldStep:
        n, done = len(self.agents), self._step >= self.episode_steps
        seen: list[FloatMatrix] = []
        for of_role in observations:
            seen += list(of_role.transpose(1, 0, 2).astype(np.float32))
        return WorldStep(
            observations=seen,
            rewards=np.ascontiguousarray(rewards.T).astype(np.float32),
            terminated=np.zeros(n, dtype=np.bool_),
            alive=np.ones(n, dtype=np.bool_),
            done=done,
            truncated=done,
        )
