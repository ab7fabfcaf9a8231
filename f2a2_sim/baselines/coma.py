"""COMA (Foerster et al., AAAI 2018), with a critic per agent because each agent has a reward of its own.

Critic i gives Q_i(o, ., a_-i), the values of all its agent's actions beside what the others did; it does not
see its agent's own action.  It learns on policy, from the newest transitions in their order:

    G_t = r_t + discount (1 - ended) [(1 - lambda) Q'_i(o_t+1, a_t+1) + lambda G_t+1]      TD(lambda)
    critic i descends  mean (Q_i(o, a) - G)^2
    policy i ascends   mean [ log pi_i(a_i) sg(Q_i(o, a) - sum_a' pi_i(a') Q_i(o, a', a_-i)) + temperature H ]
                       - logit_decay mean z^2

H is the policy's entropy.  Where no step follows (an episode's end by its time limit, or the newest step),
a_t+1 is sampled from the present policies, and G_t+1 is the bootstrapped value.
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
from f2a2_sim.baselines.perceptrons import PerceptronLearner, shown, taken
from f2a2_sim.baselines.trainer import Draws, Statistics
from f2a2_sim.learners.standardise import Standardised


class ComaConfig(PerceptronConfig):
    """Settings of COMA; ``batch_size`` is how many of the newest transitions are learnt from."""

    replay_transitions: int = Field(
        100_000, ge=1, description="Transitions whose rewards give mean and deviation to normalise by."
    )
    trace_decay: float = Field(0.8, ge=0, le=1, description="lambda: weight of the next step's return.")
    temperature: float = Field(0.01, ge=0, description="Weight of the policies' entropy.")


class Coma(PerceptronLearner):
    """All agents of a world."""

    def __init__(
        self,
        config: ComaConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        generator: np.random.Generator,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(config, observation_sizes, n_actions, n_actions, generator, device, dtype)
        self.config = config

    def learn(self, replay: JointReplay, draws: Draws) -> Statistics:
        batch, followed = replay.newest(self.config.batch_size)
        choose = choose_by(draws.each("next_actions", batch.actions.shape[1]))
        return self.update(batch.on(self.like.device), followed, choose)

    def update(self, batch: JointBatch, followed: NDArray[np.bool_], choose: Choose) -> Statistics:
        """One step of critics, policies, targets.

        The batch holds ``steps * rollouts`` transitions in the order of their steps; ``followed`` ``[steps]``
        says after which of them the next one is the continuation.
        """
        critics, seen = self.critics, self.actors.look(batch.observations)
        target = self.returns(batch, followed, choose)
        inputs = critics.inputs(seen, batch.actions)
        unseen = -critics.one_hot(batch.actions)  # a critic does not see its own agent's action
        q = critics.values(critics.trained(), inputs, unseen)
        squared = (taken(q, batch.actions) - target).square().mean(dim=1)
        critic_norms = critics.descend(squared.sum())

        with torch.no_grad():
            q = critics.values(critics.parameters, inputs, unseen)

        def policy_loss(logits: Tensor) -> Tensor:
            return counterfactual_loss(
                logits, q, batch.actions, self.config.temperature, self.config.logit_decay
            )

        logits, policy_norms = self.actors.descend(seen, policy_loss)
        critics.follow_targets()
        return shown(
            critic_loss=squared,
            critic_norm=critic_norms,
            policy_norm=policy_norms,
            entropy=entropies(logits),
        )

    def returns(self, batch: JointBatch, followed: NDArray[np.bool_], choose: Choose) -> Tensor:
        """G ``[n, batch]``."""
        seen = self.actors.look(batch.next_observations)
        actions = self._next_actions(batch.actions, followed, seen, choose)
        inputs = self.critics.inputs(seen, actions)
        q = self.critics.values(self.critics.targets, inputs, -self.critics.one_hot(actions))
        rewards, discounts = self.rewards_and_discounts(batch, self.config.discount)
        next_q, trace_decay = taken(q, actions), self.config.trace_decay
        return lambda_returns(rewards, discounts, next_q, followed.tolist(), trace_decay)

    def _next_actions(
        self, actions: Tensor, followed: NDArray[np.bool_], seen: list[Standardised], choose: Choose
    ) -> Tensor:
        """Those of the following step, and samples where none follows."""
        steps = len(followed)
        by_step = actions.view(len(actions), steps, -1)
        sampled = choose(self.actors.logits(seen).softmax(dim=-1)).view(by_step.shape)
        then = torch.cat([by_step[:, 1:], by_step[:, -1:]], dim=1)
        goes_on = torch.from_numpy(followed).to(actions.device).view(1, steps, 1)
        return torch.where(goes_on, then, sampled).reshape(actions.shape)


def lambda_returns(
    rewards: Tensor, discounts: Tensor, next_q: Tensor, followed: list[bool], trace_decay: float
) -> Tensor:
    """G of ``[n, steps * rollouts]`` rewards, discounts and next values; ``followed`` by step."""
    r, d, q = (x.view(len(x), len(followed), -1) for x in (rewards, discounts, next_q))
    returns = torch.empty_like(r)
    for t in reversed(range(len(followed))):
        ahead = q[:, t].lerp(returns[:, t + 1], trace_decay) if followed[t] else q[:, t]
        returns[:, t] = r[:, t] + d[:, t] * ahead
    return returns.view(rewards.shape)


def counterfactual_loss(
    logits: Tensor, q: Tensor, actions: Tensor, temperature: float, logit_decay: float
) -> Tensor:
    """What policies descend, summed over agents; ``q`` ``[n, batch, actions]`` is a constant."""
    log = logits.log_softmax(dim=-1)
    pi = log.exp()
    with torch.no_grad():
        advantage = taken(q, actions) - (pi * q).sum(dim=-1)
    objective = taken(log, actions) * advantage - temperature * (pi * log).sum(dim=-1)
    return (logit_decay * logits.square().mean(dim=(1, 2)) - objective.mean(dim=1)).sum()
