"""F2A2-DDPG: one joint critic an agent, actors that learn through straight-through Gumbel-softmax samples.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 4, with discrete actions as in MADDPG (Lowe et al.,
NeurIPS 2017). There is no target policy: a~' is drawn from the present policies. The gradients are those of
`f2a2_sim.learners.joint.ddpg_objective`.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import FleetSetup
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.few import log_softmax
from f2a2_sim.learners.isac_objective import Policy, importance_weights
from f2a2_sim.learners.joint.base import Drawn, JointFleet
from f2a2_sim.learners.joint.ddpg_objective import (
    OwnSample,
    StraightThrough,
    actor_gradient,
    add_entropy_bonus,
    bootstrap_target,
    critic_gradient,
)
from f2a2_sim.learners.joint.mlp_critic import JointInputLayout, JointMlpCritic
from f2a2_sim.learners.stacked import MlpShape


class DdpgFleet(JointFleet):
    """All agents of a world; F2A2-TD3 is the same with a second twin and its own pace."""

    twins: ClassVar[int] = 1

    def __init__(self, config: LearnerConfig, setup: FleetSetup) -> None:
        if config.normalise_td:
            raise UsageError(
                f"learner.normalise_td = true: {config.name} has td_clip for this; set it to false"
            )
        self._critics: dict[int, JointMlpCritic] = {}  # by worker
        super().__init__(config, setup)

    @cached_property
    def layout(self) -> JointInputLayout:
        """Of what a critic reads."""
        return JointInputLayout(self.seen_sizes, self.setup.n_actions)

    @cached_property
    def critic_shape(self) -> MlpShape:
        """Of one agent's critics."""
        hidden, layers = self.config.hidden_size, self.config.hidden_layers
        return MlpShape(self.layout.width, hidden, layers, outputs=1, branches=self.twins)

    def critic_size(self) -> int:
        return self.critic_shape.size

    def initial_critic(self, generator: np.random.Generator) -> NDArray[np.float64]:
        return self.critic_shape.initial(generator)

    @property
    def resampled_draws(self) -> int:
        return super().resampled_draws + self.setup.n_actions

    def update_block(self, worker: int, drawn: Drawn) -> Tensor:
        config, read, run, own = self.config, drawn.transitions, drawn.run, drawn.own
        batch = drawn.rewards.shape[1]
        critic = self._critics.setdefault(worker, JointMlpCritic(self.layout, self.critic_shape))
        shape, columns = self.critic_shape, self.critic_columns
        parameters = self.mlp_arrays("critic", shape, self.parameters, run, columns)

        # The target y, from a~' and the target critics at o'.
        targets = self.mlp_arrays("target", shape, self.targets, run, columns)
        seen = self.seen(read.next_observations, read.next_fresh)
        at_next = critic.inputs(own, seen, [drawn.next_others])
        q_next = critic.forward(targets, at_next).squeeze(-1)
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
        resampled = drawn.others.index_put((torch.arange(len(own), device=own.device), own), sample.chosen)
        both = critic.inputs(own, self.seen(read.observations, read.fresh), [read.actions, resampled])
        learned = both if config.joint else both.variant(0)
        q = critic.forward(parameters, learned).squeeze(-1)
        taken = q[..., :batch].clone()
        gradient = critic_gradient(config, known, taken, q[..., batch:] if config.joint else None)
        out = self.mlp_arrays("critic gradient", shape, self.gradient, run, columns)
        critic.backward(parameters, learned, gradient.unsqueeze(-1), out)
        self.adam.steps[run] += 1
        self.step(run, self.critic_columns)
        self.follow_targets(run)

        # Actor step (5.4b), with the new critics.
        if bool((self.actor_counts(run) > 0).any()):
            at_sample = both.variant(1)
            q_new = critic.forward(parameters, at_sample).squeeze(-1)
            gradient = actor_gradient(config, known, q_new).unsqueeze(-1)
            action_gradient = critic.own_action_gradient(parameters, at_sample, own, gradient)
            logit_gradient = sample.logit_gradient(action_gradient)
            add_entropy_bonus(config, policy, logit_gradient)
            self.step_actor(drawn, network, actor_inputs, logit_gradient)
        return _statistics(policy, known, taken)

    def activations(self) -> int:
        batch, critic = self.config.batch_size, JointMlpCritic(self.layout, self.critic_shape)
        observed = 2 * self.n_agents * batch * (self.actor_shape.inputs + 1)
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
