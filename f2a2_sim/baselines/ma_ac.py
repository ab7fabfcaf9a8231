"""MA-AC: networked actor-critic with consensus of critics (Zhang et al., ICML 2018, algorithm 1).

Every agent has a critic of joint observations and actions, Q(o, a; w_i), and teaches it by its own reward;
after each step neighbours average their critics, so that all come to estimate the value of the mean reward:

    critic i descends  mean_b (Q(o, a; w_i) - y_i)^2,   y_i = r_i + discount (1 - ended) Q(o', a'; w'_i)
    w_i <- sum_j c_ij w_j                                c: Metropolis weights of the graph
    policy i ascends   mean_b log pi_i(a_i) sg(Q(o, a; w_i) - sum_a' pi_i(a') Q(o, a', a_-i; w_i))
                       + temperature H_i - logit_decay mean z^2

In the policies' objective, and as a', actions of all agents are sampled from their present policies, which
all agents know.  What differs from the article: discounted values in place of the mean reward per step,
replayed batches, target critics and Adam, as the paper's other baselines have them; and the critics begin
equal, for averages of unlike networks mean little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from f2a2_sim.baselines.actors import entropies
from f2a2_sim.baselines.choice import Choose, choose_by
from f2a2_sim.baselines.coma import counterfactual_loss
from f2a2_sim.baselines.config import PerceptronConfig
from f2a2_sim.baselines.joint_replay import JointBatch, JointReplay
from f2a2_sim.baselines.perceptrons import PerceptronLearner, shown
from f2a2_sim.baselines.trainer import Draws, Statistics

Graph = Literal["ring", "complete", "empty"]


class MaAcConfig(PerceptronConfig):
    """Settings of MA-AC."""

    graph: Graph = Field("ring", description="Who averages critics with whom: ring, complete, or empty.")
    temperature: float = Field(0.01, ge=0, description="Weight of the policies' entropy.")


class MaAc(PerceptronLearner):
    """All agents of a world."""

    statistics: Mapping[str, str] = {
        **PerceptronLearner.statistics,
        "disagreement": "Distance of a critic from the mean critic, mean over agents and updates.",
    }

    def __init__(
        self,
        config: MaAcConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        generator: np.random.Generator,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(config, observation_sizes, n_actions, 1, generator, device, dtype)
        self.config = config
        self.critics.start_equal()
        weights = consensus_weights(config.graph, len(observation_sizes))
        self.weights = torch.from_numpy(weights).to(self.like)

    def learn(self, replay: JointReplay, draws: Draws) -> Statistics:
        n = self.config.batch_size
        batch = replay.sample(draws.common("batch", n)).on(self.like.device)
        choose_next, choose = (choose_by(draws.each(purpose, n)) for purpose in ("next_actions", "actions"))
        return self.update(batch, choose_next, choose)

    def update(self, batch: JointBatch, choose_next: Choose, choose: Choose) -> Statistics:
        """One step of critics, consensus, policies, targets."""
        critics, seen = self.critics, self.actors.look(batch.observations)
        target = self.regression_target(batch, choose_next)
        error = critics.values(critics.trained(), critics.inputs(seen, batch.actions)).squeeze(-1) - target
        squared = error.square().mean(dim=1)
        critic_norms = critics.descend(squared.sum())
        critics.parameters.copy_(self.weights @ critics.parameters)

        with torch.no_grad():
            actions = choose(self.actors.logits(seen).softmax(dim=-1))
            q = critics.values_of_own_actions(critics.parameters, critics.inputs(seen, actions), actions)

        def policy_loss(logits: Tensor) -> Tensor:
            return counterfactual_loss(logits, q, actions, self.config.temperature, self.config.logit_decay)

        logits, policy_norms = self.actors.descend(seen, policy_loss)
        critics.follow_targets()
        apart = critics.parameters - critics.parameters.mean(dim=0)
        return shown(
            critic_loss=squared,
            critic_norm=critic_norms,
            policy_norm=policy_norms,
            entropy=entropies(logits),
            disagreement=torch.linalg.vector_norm(apart, dim=1),
        )

    def regression_target(self, batch: JointBatch, choose_next: Choose) -> Tensor:
        """y ``[n, batch]``."""
        seen = self.actors.look(batch.next_observations)
        actions = choose_next(self.actors.logits(seen).softmax(dim=-1))
        next_q = self.critics.values(self.critics.targets, self.critics.inputs(seen, actions)).squeeze(-1)
        rewards, discounts = self.rewards_and_discounts(batch, self.config.discount)
        return rewards + discounts * next_q


def consensus_weights(graph: Graph, n: int) -> NDArray[np.float64]:
    """Metropolis weights ``[n, n]``: rows of sum 1, c_ij = 1 / (1 + the larger degree of both)."""
    gap = np.abs(np.arange(n)[:, None] - np.arange(n))
    edges = {"ring": (gap == 1) | (gap == n - 1), "complete": gap > 0, "empty": gap < 0}[graph]
    degree = edges.sum(axis=1)
    weights = edges / (1.0 + np.maximum(degree[:, None], degree))
    weights[np.arange(n), np.arange(n)] = 1.0 - weights.sum(axis=1)
    return np.asarray(weights)
