"""F2A2-SAC: soft actor-critic with twin attention critics on everybody's observations and actions.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 6; the critic is that of MAAC, see
`f2a2_sim.learners.attention`. Every device has its own full copy of both critics, trains it for its own agent
and its own reward, and agrees with the others on all of it, or on the attention block alone
(``consensus.shared``).
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import CriticArrays
from f2a2_sim.learners.few import log_softmax
from f2a2_sim.learners.isac_objective import Policy, bootstrap_target, importance_weights
from f2a2_sim.learners.joint.attention_twins import AttentionTwins, entered, observed_by_group
from f2a2_sim.learners.joint.critics import CriticsFleet
from f2a2_sim.learners.joint.drawn import Drawn
from f2a2_sim.learners.joint.own_attention import OwnAttentionCritic
from f2a2_sim.learners.joint.sac_objective import OwnSide, actor_gradient, critic_gradient

_TWINS = (0, 1)


class SacFleet(CriticsFleet[OwnAttentionCritic]):
    """All agents of a world; where the critics lie in a row says `AttentionTwins`."""

    recordable: ClassVar[bool] = True

    @cached_property
    def critic_shape(self) -> AttentionTwins:
        return AttentionTwins(self.attention_shape, len(_TWINS))

    def make_critic(self) -> OwnAttentionCritic:
        return OwnAttentionCritic(self.attention_shape)

    def update_block(self, worker: int, drawn: Drawn) -> Tensor:
        config, read, run = self.config, drawn.transitions, drawn.run
        batch = drawn.rewards.shape[1]
        critic = self.critic(worker)

        # The target y, from the own policy, the others' a~' and the target critics at o'.
        policy_next = Policy.of(drawn.of_own(drawn.next_logits))
        weights_next = self._weights(drawn, policy_next, drawn.next_others)
        seen = self._seen(read.next_observations, read.next_fresh)
        inputs = critic.inputs(seen, self._entered(drawn.next_others))
        q_next = self._values(critic, "targets", inputs, run, variants=1)
        y = bootstrap_target(config, drawn.rewards, read.ended, policy_next, weights_next, q_next)

        # The own policy at o, and what both steps need of it.
        network, actor_inputs, logits = self.actor_pass(worker, drawn)
        policy = Policy.of(logits)
        actions = drawn.of_own(read.actions).unsqueeze(-1)
        behaviour = log_softmax(read.logits.to(logits.dtype))
        rho, rho_resampled = importance_weights(config, policy, behaviour, actions)
        others = drawn.sample_others()
        own = OwnSide(actions, policy, self._weights(drawn, policy, others), rho, rho_resampled, y)

        # Critic step (5.4a) on (o, a) and, if joint, on (o, a~); then the target critics follow.
        seen = self._seen(read.observations, read.fresh)
        entered = [self._entered(read.actions), self._entered(others)]
        both = critic.inputs([torch.cat([x, x], dim=2) for x in seen], torch.cat(entered, dim=2))
        learned = both if config.joint else [x[:, :, :batch] for x in both]
        self.gradient[run, self.critic_columns] = 0.0
        taken = []
        for twin in _TWINS:
            arrays = self._twin_arrays("parameters", run, twin)
            done = critic.forward(arrays, learned, run.start, variants=2 if config.joint else 1)
            q = done.q
            taken.append(q[:, :batch].gather(-1, actions))
            resampled = q[:, batch:] if config.joint else None
            parts = critic_gradient(config, own, q[:, :batch], resampled, first=twin == 0)
            gradient = torch.cat([part for part in parts if part is not None], dim=1)
            decay = 2.0 * config.attention_decay / (q.shape[1] * (self.n_agents - 1))
            out = self._twin_arrays("gradient", run, twin)
            critic.backward(arrays, learned, run.start, done, gradient, decay, out)
        self.adam.steps[run] += 1
        self.step(run, self.critic_columns)
        self.follow_targets(run)

        # Actor step (5.4b), with the new critics.
        q_new = self._values(critic, "parameters", both, run, variants=2)
        gradient = actor_gradient(config, own, q_new[:, :, :batch], q_new[:, :, batch:])
        self.step_actor(drawn, network, actor_inputs, logits, gradient)
        return _statistics(own, torch.stack(taken))

    def _values(
        self, critic: OwnAttentionCritic, rows: str, inputs: list[Tensor], run: slice, variants: int
    ) -> Tensor:
        """Both twins' own action values ``[2, b, variants * batch, actions]``."""
        both = [
            critic.forward(self._twin_arrays(rows, run, twin), inputs, run.start, variants) for twin in _TWINS
        ]
        return torch.stack([answered.q for answered in both])

    def _twin_arrays(self, rows: str, run: slice, twin: int) -> CriticArrays:
        """Views of a twin in `parameters`, `targets` or `gradient`."""
        shape = self.critic_shape
        return self.kept(f"{rows} {twin}", run, lambda: shape.arrays(getattr(self, rows)[run], twin))

    def _seen(self, observations: Tensor, fresh: Tensor | None) -> list[Tensor]:
        return observed_by_group(self.attention_shape, self.seen(observations, fresh))

    def _entered(self, actions: Tensor) -> Tensor:
        return entered(self.attention_shape, actions, self.parameters)

    def _weights(self, drawn: Drawn, policy: Policy, sampled: Tensor) -> Tensor:
        """What E over the own action multiplies each action's value with."""
        if self.config.exact_expectation:
            return policy.probabilities
        one_hot = torch.nn.functional.one_hot(drawn.of_own(sampled), self.attention_shape.n_actions)
        return one_hot.to(policy.probabilities.dtype)

    def activations(self) -> int:
        n, batch, width = self.n_agents, 2 * self.config.batch_size, self.config.hidden_size
        observed = n * self.config.batch_size * 2 * (self.actor_shape.inputs + 1)
        inputs = n * batch * (self.actor_shape.inputs + self.attention_shape.n_actions + 1)
        logits = batch * self.attention_shape.heads * n
        return observed + inputs + 5 * n * batch * width + 6 * batch * width + 3 * logits


def _statistics(own: OwnSide, taken: Tensor) -> Tensor:
    """`STATISTICS` ``[5, b]`` of the critics' values before the step, ``taken`` ``[2, b, batch, 1]``."""
    delta = taken - own.target
    pi = own.policy
    values = [
        -(pi.probabilities * pi.log).sum(dim=-1, keepdim=True),
        taken[0],
        delta[0].abs(),
        delta.square().sum(dim=0),
        own.rho,
    ]
    return torch.stack(values).mean(dim=(2, 3), dtype=torch.float64)
