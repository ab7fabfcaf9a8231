"""F2A2-COMA: on policy, with a joint critic of all own actions and its counterfactual baseline.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 3; COMA is Foerster et al., AAAI 2018. An update learns
from the newest ``batch_size`` transitions (Appendix G), so an agent's replay may be that small. The gradients
are those of `f2a2_sim.learners.joint.coma_objective`; the value at the next observations, with which returns
bootstrap, is E_{a'^i~pi} Qbar(o', (a'^i, a~'^-i)), the others' a~' drawn from what the agent knows of their
policies. The critic is a perceptron, or MAAC's attention critic (``critic: attention``).
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape
from f2a2_sim.learners.few import log_softmax, softmax
from f2a2_sim.learners.isac_objective import Policy, importance_weights
from f2a2_sim.learners.joint.attention_twins import AttentionTwins
from f2a2_sim.learners.joint.coma_objective import OnPolicy, actor_gradient, critic_gradient, td_lambda
from f2a2_sim.learners.joint.critics import CriticsFleet
from f2a2_sim.learners.joint.ddpg_objective import add_entropy_bonus
from f2a2_sim.learners.joint.drawn import Drawn
from f2a2_sim.learners.joint.mlp_critic import JointMlpCritic
from f2a2_sim.learners.joint.own_values import AttentionValues, OwnValues, PerceptronValues
from f2a2_sim.learners.stacked import MlpShape


class ComaFleet(CriticsFleet[OwnValues]):
    """All agents of a world."""

    on_policy: ClassVar[bool] = True
    recordable: ClassVar[bool] = True

    @cached_property
    def critic_shape(self) -> MlpShape | AttentionShape:
        if self.config.critic == "attention":
            return self.attention_shape
        hidden, layers = self.config.hidden_size, self.config.hidden_layers
        return MlpShape(self.layout.width, hidden, layers, self.setup.n_actions)

    def make_critic(self) -> OwnValues:
        shape = self.critic_shape
        if isinstance(shape, AttentionShape):
            return AttentionValues(shape, self.config.attention_decay)
        return PerceptronValues(self.layout, shape)

    def update_block(self, worker: int, drawn: Drawn) -> Tensor:
        config, read, run = self.config, drawn.transitions, drawn.run
        critic = self.critic(worker)
        parameters = self.parameters[run, self.critic_columns]

        # TD(lambda) returns y, from the target critic at every o'.
        critic.look(run, self.seen(read.next_observations, read.next_fresh), drawn.next_others)
        q_next = critic.forward(self.targets[run])
        next_values = (softmax(drawn.of_own(drawn.next_logits)) * q_next).sum(dim=-1)
        by_time = [
            torch.unflatten(x, 1, (-1, self.setup.rollouts))
            for x in (drawn.rewards, read.ended, next_values, read.followed)
        ]
        y = td_lambda(config, *by_time).flatten(1).unsqueeze(-1)

        # The own policy at o.
        network, actor_inputs, logits = self.actor_pass(worker, drawn)
        policy = Policy.of(logits)
        actions = drawn.of_own(read.actions).unsqueeze(-1)
        behaviour = log_softmax(read.logits.to(logits.dtype))
        rho, _ = importance_weights(config, policy, behaviour, actions)
        known = OnPolicy(actions, policy, y, rho)

        # Critic step (5.4a); then the target critic follows.
        critic.look(run, self.seen(read.observations, read.fresh), read.actions)
        q = critic.forward(parameters)
        taken = q.gather(-1, actions)
        critic.backward(
            parameters, critic_gradient(config, known, q), self.gradient[run, self.critic_columns]
        )
        self.adam.steps[run] += 1
        self.step(run, self.critic_columns)
        self.follow_targets(run)

        # Actor step (5.4b), with the new critic.
        gradient = actor_gradient(config, known, critic.forward(parameters))
        add_entropy_bonus(config, policy, gradient)
        self.step_actor(drawn, network, actor_inputs, logits, gradient)

        delta = taken - y
        entropy = -(policy.probabilities * policy.log).sum(dim=-1, keepdim=True)
        values = [entropy, taken, delta.abs(), delta.square(), rho]
        return torch.stack(values).mean(dim=(2, 3), dtype=torch.float64)

    def activations(self) -> int:
        batch, shape = self.transitions_per_update, self.critic_shape
        observed = 2 * self.n_agents * batch * (self.actor_shape.inputs + 1)
        if isinstance(shape, AttentionShape):
            passes = AttentionTwins(shape, 1).activations(batch)
        else:
            passes = JointMlpCritic(self.layout, shape).activations(batch, 1)
        return observed + 2 * passes + 4 * batch * self.config.hidden_size
