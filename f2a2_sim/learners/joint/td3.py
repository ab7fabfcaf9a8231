"""F2A2-TD3: F2A2-DDPG with twin critics, smoothed targets and actors that learn less often.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 5. Every agent has a period, a noise and a clip of its
own (5.1.2): `learner.policy_delay`, `smoothing_noise`, `smoothing_clip`. The target critics follow at every
update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from f2a2_sim.learners.base import BoolArray, FleetSetup
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.joint.ddpg import DdpgFleet
from f2a2_sim.learners.joint.ddpg_objective import smoothed


class Td3Fleet(DdpgFleet):
    """All agents of a world."""

    twins: ClassVar[int] = 2

    def __init__(self, config: LearnerConfig, setup: FleetSetup) -> None:
        like = torch.zeros(0, dtype=setup.dtype, device=setup.device)
        n = len(setup.observation_sizes)
        self._delay, self._noise, self._clip = (
            _per_agent(values, n, like)
            for values in (config.policy_delay, config.smoothing_noise, config.smoothing_clip)
        )
        super().__init__(config, setup)

    @property
    def resampled_draws(self) -> int:
        return super().resampled_draws + self.n_agents * self.setup.n_actions

    def target_logits(self, run: slice, next_logits: Tensor, noise: Tensor) -> Tensor:
        """Everybody's logits at o', perturbed with the noise of the agent that learns."""
        of_logits = torch.unflatten(noise[..., self.setup.n_actions :], -1, (self.n_agents, -1))
        return smoothed(next_logits, of_logits.transpose(1, 2), self._noise[run], self._clip[run])

    def actors_due(self, run: slice) -> BoolArray:
        """Every ``policy_delay`` of its updates an agent's actor takes a step."""
        updates, delay = self.adam.steps[run] + 1, self._delay[run]
        return np.asarray((updates.remainder(delay) == 0).cpu().numpy())

    def actor_counts(self, run: slice) -> Tensor:
        return (self.adam.steps[run] / self._delay[run]).to(self.adam.steps.dtype)


def _per_agent(values: Sequence[int] | Sequence[float], n: int, like: Tensor) -> Tensor:
    """``[n]``: agent i has value i modulo their number."""
    return torch.tensor([values[agent % len(values)] for agent in range(n)]).to(like)
