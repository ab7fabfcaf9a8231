"""F2A2-DDPG: one joint critic an agent, actors that learn through straight-through Gumbel-softmax samples.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 4, with discrete actions as in MADDPG (Lowe et al.,
NeurIPS 2017). There is no target policy: a~' is drawn from the present policies. The gradients are those of
`f2a2_sim.learners.joint.ddpg_objective`. The critics are perceptrons, or MAAC's (``critic: attention``).
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from f2a2_sim.learners.few import log_softmax
from f2a2_sim.learners.isac_objective import Policy, importance_weights
from f2a2_sim.learners.joint.attention_twins import AttentionTwins
from f2a2_sim.learners.joint.critics import CriticsFleet
from f2a2_sim.learners.joint.ddpg_objective import (
    OwnSample,
    StraightThrough,
    actor_gradient,
    add_entropy_bonus,
    bootstrap_target,
    critic_gradient,
)
from f2a2_sim.learners.joint.drawn import Drawn
from f2a2_sim.learners.joint.mlp_critic import JointMlpCritic
from f2a2_sim.learners.joint.taken_values import AttentionTaken, PerceptronTaken, TakenValues
from f2a2_sim.learners.stacked import MlpShape


class DdpgFleet(CriticsFleet[TakenValues]):
    """All agents of a world; F2A2-TD3 is the same with a second twin and its own pace."""

    recordable: ClassVar[bool] = True
    twins: ClassVar[int] = 1

    @cached_property
    def critic_shape(self) -> MlpShape | AttentionTwins:
        config = self.config
        if config.critic == "attention":
            return AttentionTwins(self.attention_shape, self.twins)
        hidden, layers = config.hidden_size, config.hidden_layers
        return MlpShape(self.layout.width, hidden, layers, outputs=1, branches=self.twins)

    def make_critic(self) -> TakenValues:
        shape = self.critic_shape
        if isinstance(shape, AttentionTwins):
            return AttentionTaken(shape, self.config.attention_decay)
        return PerceptronTaken(self.layout, shape)

    @property
    def resampled_draws(self) -> int:
        return super().resampled_draws + self.setup.n_actions

    def update_block(self, worker: int, drawn: Drawn) -> Tensor:
        config, read, run, own = self.config, drawn.transitions, drawn.run, drawn.own
        batch = drawn.rewards.shape[1]
        critic = self.critic(worker)
        parameters = self.parameters[run, self.critic_columns]

        # The target y, from a~' and the target critics at o'.
        critic.look(run, self.seen(read.next_observations, read.next_fresh), [drawn.next_others])
        q_next = critic.forward(self.targets[run])
        y = bootstrap_target(config, drawn.rewards, read.ended, q_next)

        # The own policy at o, its sample a~(psi), and what both steps need of it.
        network, actor_inputs, logits = self.actor_pass(worker, drawn)
        policy = Policy.of(logits)
        noise = drawn.noise[..., : self.setup.n_actions]
        sample = StraightThrough.of(logits, noise, config.gumbel_temperature)
        behaviour = log_softmax(read.logits.to(logits.dtype))
        actions = drawn.of_own(read.actions).unsqueeze(-1)
        rho, rho_resampled = importance_weights(config, policy, behaviour, actions)
        chosen = sample.chosen.unsqueeze(-1)
        known = OwnSample(rho.squeeze(-1), rho_resampled.gather(-1, chosen).squeeze(-1), y)

        # Critic step (5.4a) on (o, a) and, if joint, on (o, a~); then the target critics follow.
        each = torch.arange(len(own), device=own.device)
        resampled = drawn.sample_others().index_put((each, own), sample.chosen)
        critic.look(run, self.seen(read.observations, read.fresh), [read.actions, resampled])
        q = critic.forward(parameters, None if config.joint else 0)
        taken = q[..., :batch].clone()
        gradient = critic_gradient(config, known, taken, q[..., batch:] if config.joint else None)
        critic.backward(parameters, gradient, self.gradient[run, self.critic_columns])
        self.adam.steps[run] += 1
        self.step(run, self.critic_columns)
        self.follow_targets(run)

        # Actor step (5.4b), with the new critics.
        if drawn.due.any():
            q_new = critic.forward(parameters, 1)
            action_gradient = critic.own_action_gradient(parameters, actor_gradient(config, known, q_new))
            logit_gradient = sample.logit_gradient(action_gradient)
            add_entropy_bonus(config, policy, logit_gradient)
            self.step_actor(drawn, network, actor_inputs, logits, logit_gradient)
        return _statistics(policy, known, taken)

    def activations(self) -> int:
        batch, shape = self.config.batch_size, self.critic_shape
        observed = 2 * self.n_agents * batch * (self.actor_shape.inputs + 1)
        if isinstance(shape, AttentionTwins):
            passes = 3 * shape.activations(batch)
        else:
            critic = JointMlpCritic(self.layout, shape)
            passes = critic.activations(batch, 2) + critic.activations(batch, 1)
        return observed + passes + 4 * batch * self.config.hidden_size


def _statistics(policy: Policy, known: OwnSample, taken: Tensor) -> Tensor:
    """`STATISTICS` ``[5, b]`` of the critics' values before the step, ``taken`` ``[twins, b, batch]``."""
    delta = taken - known.target
    values = [
        -(policy.probabilities * policy.log).sum(dim=-1),
        taken[0],
        delta[0].abs(),
        delta.square().sum(dim=0),
        known.rho,
    ]
    return torch.stack(values).mean(dim=2, dtype=torch.float64)
