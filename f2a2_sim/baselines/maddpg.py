"""MADDPG (Lowe et al., NeurIPS 2017) for discrete actions.

Agent i has a critic Q_i on all observations and actions, and a policy mu_i on its own observation.  With
replayed o, a, r, o' and next actions a' sampled from the target policies,

    critic i descends  mean_b (Q_i(o, a) - y_i)^2,   y_i = r_i + discount (1 - ended) Q'_i(o', a')
    policy i ascends   mean_b Q_i(o, (a~_i, a_-i)) - logit_decay mean_b,a z_i^2

a~_i is a straight-through Gumbel-Softmax sample (Jang et al., ICLR 2017): one-hot forward, the gradient of
softmax((z + g) / t) backward.  The others' actions are the replayed ones.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from f2a2_sim.baselines.actors import entropies
from f2a2_sim.baselines.choice import Choose, choose_by
from f2a2_sim.baselines.config import PerceptronConfig
from f2a2_sim.baselines.joint_replay import JointBatch, JointReplay
from f2a2_sim.baselines.perceptrons import PerceptronLearner, shown
from f2a2_sim.baselines.trainer import Draws, Statistics

_SMALLEST = 1e-12  # uniform, before two logarithms


class MaddpgConfig(PerceptronConfig):
    """Settings of MADDPG."""

    gumbel_temperature: float = Field(1.0, gt=0, description="Temperature of the Gumbel-Softmax sample.")


class Maddpg(PerceptronLearner):
    """All agents of a world."""

    def __init__(
        self,
        config: MaddpgConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        generator: np.random.Generator,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(config, observation_sizes, n_actions, 1, generator, device, dtype)
        self.config = config

    def learn(self, replay: JointReplay, draws: Draws) -> Statistics:
        n = self.config.batch_size
        batch = replay.sample(draws.common("batch", n)).on(self.like.device)
        uniforms = draws.each("gumbel", n * self.n_actions).reshape(-1, n, self.n_actions)
        return self.update(batch, choose_by(draws.each("next_actions", n)), gumbel_noise(uniforms))

    def update(self, batch: JointBatch, choose_next: Choose, noise: NDArray[np.float64]) -> Statistics:
        """One step of critics, policies, targets; ``noise`` ``[n, batch, actions]`` is Gumbel's."""
        critics, seen = self.critics, self.actors.look(batch.observations)
        target = self.regression_target(batch, choose_next)
        inputs = critics.inputs(seen, batch.actions)
        error = critics.values(critics.trained(), inputs).squeeze(-1) - target
        squared = error.square().mean(dim=1)
        critic_norms = critics.descend(squared.sum())

        gumbel = torch.from_numpy(noise).to(self.like)
        replayed = critics.one_hot(batch.actions)

        def policy_loss(logits: Tensor) -> Tensor:
            sampled = straight_through(logits, gumbel, self.config.gumbel_temperature)
            q = critics.values(critics.parameters, inputs, own=sampled - replayed)
            decay = self.config.logit_decay * logits.square().mean(dim=(1, 2))
            return (decay - q.mean(dim=(1, 2))).sum()

        logits, policy_norms = self.actors.descend(seen, policy_loss)
        critics.follow_targets()
        self.actors.follow_targets()
        return shown(
            critic_loss=squared,
            critic_norm=critic_norms,
            policy_norm=policy_norms,
            entropy=entropies(logits),
        )

    def regression_target(self, batch: JointBatch, choose_next: Choose) -> Tensor:
        """y ``[n, batch]``."""
        seen = self.actors.look(batch.next_observations)
        actions = choose_next(self.actors.target_logits(seen).softmax(dim=-1))
        next_q = self.critics.values(self.critics.targets, self.critics.inputs(seen, actions)).squeeze(-1)
        rewards, discounts = self.rewards_and_discounts(batch, self.config.discount)
        return rewards + discounts * next_q


def gumbel_noise(uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log(-log u)."""
    return np.asarray(-np.log(-np.log(np.clip(uniforms, _SMALLEST, 1.0 - _SMALLEST))))


def straight_through(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """One-hot samples ``[..., actions]`` whose gradient is that of softmax((z + g) / temperature)."""
    soft = ((logits + gumbel) / temperature).softmax(dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())
