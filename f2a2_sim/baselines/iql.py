"""Independent Q-learning: every agent learns from its own observation, action and reward alone.

With replayed o, a, r, o' and double Q-learning (van Hasselt et al., AAAI 2016)

    agent i descends  mean_b (Q_i(o_i, a_i) - y_i)^2
    y_i = r_i + discount (1 - ended) Q'_i(o'_i, argmax_a Q_i(o'_i, a))

It acts greedily, but uniformly with probability epsilon, which falls linearly with what has been played.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from f2a2_sim.baselines.actors import Actors
from f2a2_sim.baselines.config import CentralConfig
from f2a2_sim.baselines.joint_replay import JointBatch, JointReplay
from f2a2_sim.baselines.perceptrons import shown, taken
from f2a2_sim.baselines.trainer import Draws, Statistics


class IqlConfig(CentralConfig):
    """Settings of independent Q-learning."""

    hidden_size: int = Field(128, ge=1, description="Units in each of the two hidden layers.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size.")
    tau: float = Field(0.005, gt=0, le=1, description="Share of the new networks mixed into their targets.")
    policy_clip: float = Field(10.0, gt=0, description="Largest norm of a network's gradient.")
    first_epsilon: float = Field(0.5, ge=0, le=1, description="Share of random actions at the beginning.")
    last_epsilon: float = Field(0.01, ge=0, le=1, description="Share of random actions at last.")
    epsilon_transitions: int = Field(
        50_000, ge=1, description="Transitions, of all rollouts together, until epsilon is at its last."
    )


class Iql:
    """All agents of a world; each has a network of its own."""

    statistics: Mapping[str, str] = {
        "critic_loss": "Squared error of the action values, mean over agents and updates.",
        "critic_norm": "Norm of an agent's gradient before it is clipped, mean over agents and updates.",
        "epsilon": "Share of random actions, mean over updates.",
    }

    def __init__(
        self,
        config: IqlConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        generator: np.random.Generator,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.like = torch.empty(0, dtype=dtype, device=device)
        self.networks = Actors(config, observation_sizes, n_actions, generator, self.like)
        self.played = np.zeros(1, dtype=np.int64)  # transitions

    @property
    def epsilon(self) -> float:
        """The present share of random actions."""
        c = self.config
        way = min(1.0, int(self.played[0]) / c.epsilon_transitions)
        return c.first_epsilon + way * (c.last_epsilon - c.first_epsilon)

    def act(
        self, observations: list[NDArray[np.float32]], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Actions ``[rollouts, n]``; a uniform below epsilon also says which action is taken."""
        values = self.networks.acting_logits(observations).cpu().numpy()
        epsilon = self.epsilon
        self.played += uniforms.shape[1]
        at_random = uniforms < epsilon
        share = np.divide(uniforms, epsilon, out=np.zeros_like(uniforms), where=at_random)
        return np.asarray(
            np.where(at_random, (share * values.shape[-1]).astype(np.int64), values.argmax(axis=-1)).T
        )

    def learn(self, replay: JointReplay, draws: Draws) -> Statistics:
        batch = replay.sample(draws.common("batch", self.config.batch_size))
        return self.update(batch.on(self.like.device))

    def update(self, batch: JointBatch) -> Statistics:
        """One step of all networks and their targets."""
        target = self.regression_target(batch)
        seen = self.networks.look(batch.observations)

        def loss(values: Tensor) -> Tensor:
            return (taken(values, batch.actions) - target).square().mean(dim=1).sum()

        values, norms = self.networks.descend(seen, loss)
        self.networks.follow_targets()
        squared = (taken(values, batch.actions) - target).square().mean(dim=1)
        return shown(critic_loss=squared, critic_norm=norms, epsilon=torch.tensor([self.epsilon]))

    def regression_target(self, batch: JointBatch) -> Tensor:
        """y ``[n, batch]``."""
        seen = self.networks.look(batch.next_observations)
        best = self.networks.logits(seen).argmax(dim=-1)
        next_q = taken(self.networks.target_logits(seen), best)
        rewards, ended = batch.rewards.to(self.like), batch.ended.to(self.like)
        return rewards + self.config.discount * (1.0 - ended) * next_q

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        return {"networks": self.networks.state(), "played": self.played}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state`."""
        self.networks.load_state(state["networks"])
        self.played[:] = state["played"]
