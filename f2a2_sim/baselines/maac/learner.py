"""MAAC's update, in the original's order: critic, policies, targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.baselines.choice import Choose, choose_by
from f2a2_sim.baselines.joint_replay import JointBatch, JointReplay
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.critic import CriticLoss, MaacCritic, of_actions, regression_target
from f2a2_sim.baselines.maac.policies import PolicyGroup, PolicyLoss, Valued, Work, do
from f2a2_sim.baselines.trainer import Draws
from f2a2_sim.learners.attention import AttentionCritic
from f2a2_sim.learners.attention_shape import AttentionShape
from f2a2_sim.learners.few import log_softmax, softmax
from f2a2_sim.learners.pool import BlockPool, one_thread
from f2a2_sim.learners.standardise import Standardised, standardise, standardise_choices


@dataclass(frozen=True)
class Seen:
    """Observations by group, standardised by their own batch, and room for actions before them.

    ``inputs`` are the critic's (`AttentionCritic.inputs`); state encoders and policies read part of them.
    """

    observations: list[Standardised]
    inputs: list[Tensor]
    n_actions: int

    def policy_inputs(self, group: int) -> Tensor:
        """``[group, batch, size + 1]``, the last column ones."""
        return self.inputs[group][..., self.n_actions :]


class Maac:
    """All agents of a world: one critic, one policy per agent.

    ``update`` is its steps in order; they are public for whoever wants to look in between.
    """

    statistics: Mapping[str, str] = {
        "critic_loss": "Squared error of the critic, mean over agents and updates.",
        "critic_norm": "Norm of the critic's gradient before it is clipped, mean over updates.",
        "policy_norm": "Norm of a policy's gradient before it is clipped, mean over agents and updates.",
        "entropy": "Entropy of a policy (nat), mean over agents and updates.",
    }

    def __init__(
        self,
        config: MaacConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        generator: np.random.Generator,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.shape = AttentionShape(observation_sizes, n_actions, config.hidden_size, config.heads)
        like = torch.empty(0, dtype=dtype, device=device)
        self._like = like
        self._pool = BlockPool()
        self.policies = [
            PolicyGroup(config, group, n_actions, like, self._pool) for group in self.shape.groups
        ]
        self.critic = MaacCritic(config, self.shape, like, self._pool)
        for policy in self.policies:
            policy.initialise(generator)
        self.critic.initialise(generator)

    # ------------------------------------------------------------------ acting

    @torch.inference_mode()
    def act(
        self, observations: list[NDArray[np.float32]], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Sample actions ``[rollouts, n]``.

        Observations by group ``[rollouts, group, size]``, uniforms in [0, 1) ``[n, rollouts]``.
        """
        with one_thread():
            return choose_by(uniforms)(self.acting_probabilities(observations)).T.cpu().numpy()

    def acting_probabilities(self, observations: list[NDArray[np.float32]]) -> Tensor:
        """pi ``[n, rollouts, actions]`` with observations standardised by the running moments."""
        logits = [
            policy.acting_logits(torch.from_numpy(seen).to(self._like).transpose(0, 1))
            for policy, seen in zip(self.policies, observations, strict=True)
        ]
        return softmax(torch.cat(logits))

    # ------------------------------------------------------------------ learning

    def learn(self, replay: JointReplay, draws: Draws) -> dict[str, NDArray[np.float64]]:
        """One update with a batch of ``replay``."""
        n = self.config.batch_size
        with one_thread():
            batch = replay.sample(draws.common("batch", n)).on(self._like.device)
        choose_next, choose = (choose_by(draws.each(purpose, n)) for purpose in ("next_actions", "actions"))
        return self.update(batch, choose_next, choose)

    @torch.inference_mode()
    def update(
        self, batch: JointBatch, choose_next: Choose, choose: Choose
    ) -> dict[str, NDArray[np.float64]]:
        """One update; statistics of before the steps, each ``[n]`` or ``[1]``."""
        with self._pool.between():
            target = self.regression_target(batch, choose_next)
            seen = self.look(batch.observations)
            critic_loss = self.critic_loss(seen, batch.actions, target)
            critic_norm = self.step_critic()
            valued = self.value_policies(seen, choose)
            policy_norms, entropy = self.step_policies(seen, valued)
            self.follow_targets()
            return {
                "critic_loss": _numbers(critic_loss.squared_error()),
                "critic_norm": _numbers(critic_norm),
                "policy_norm": _numbers(policy_norms),
                "entropy": _numbers(entropy),
            }

    def look(self, observations: list[Tensor]) -> Seen:
        """Standardise observations, by group ``[group, batch, size]``."""
        seen = [standardise(values.to(self._like)) for values in observations]
        batch, a = observations[0].shape[1], self.shape.n_actions
        nobody = self._like.new_zeros(self.shape.n_agents, batch, a)
        inputs = AttentionCritic(self.shape).inputs([x.values for x in seen], nobody)
        return Seen(seen, inputs, a)

    def enter_actions(self, seen: Seen, actions: Tensor) -> None:
        """Put actions ``[n, batch]`` into the critic's inputs: one-hot, and standardised like all else."""
        a = self.shape.n_actions
        entered = standardise_choices(actions, a, self._like)
        for group, inputs in zip(self.shape.groups, seen.inputs, strict=True):
            inputs[..., :a] = entered[group.agents]

    def regression_target(self, batch: JointBatch, choose_next: Choose) -> Tensor:
        """y ``[n, batch]``, with next actions of the target policies."""
        seen = self.look(batch.next_observations)
        log = log_softmax(self._of_all_policies(PolicyGroup.target_passes, seen))
        actions = choose_next(log.exp())
        self.enter_actions(seen, actions)
        next_q = of_actions(actions, self.critic.target_values(seen.inputs))
        rewards, ended = batch.rewards.to(self._like), batch.ended.to(self._like)
        return regression_target(self.config, rewards, ended, next_q, of_actions(actions, log))

    def critic_loss(self, seen: Seen, actions: Tensor, target: Tensor) -> CriticLoss:
        """The critic's loss for the batch's actions ``[n, batch]``; the critic holds its gradient."""
        self.enter_actions(seen, actions)
        return self.critic.loss(seen.inputs, actions, target)

    def step_critic(self) -> Tensor:
        """Scaling of the gradient, clipping, Adam; the norm before clipping ``[1]``."""
        self.critic.scale_common()
        norm = self.critic.clip()
        self.critic.step()
        return norm

    def value_policies(self, seen: Seen, choose: Choose) -> list[Valued]:
        """What the policies' losses look at, by group, with everybody's actions sampled anew.

        The running moments follow the batch.
        """
        logits = self._of_all_policies(PolicyGroup.passes, seen)
        for g, policy in enumerate(self.policies):
            policy.follow(seen.observations[g])
        actions = choose(softmax(logits))
        self.enter_actions(seen, actions)
        q = self.critic.action_values(seen.inputs)
        return [
            Valued(logits[group.agents], actions[group.agents].unsqueeze(-1), q[group.agents])
            for group in self.shape.groups
        ]

    def step_policies(self, seen: Seen, valued: list[Valued]) -> tuple[Tensor, Tensor]:
        """Gradient, clipping, Adam; the norms before clipping and the policies' entropies, ``[n]``."""

        def look(*valued: Tensor) -> tuple[Tensor, Tensor]:
            loss = PolicyLoss.of(self.config, Valued(*valued))
            return loss.logit_gradient(self.config), loss.entropy()

        work = [
            part
            for g, (policy, of_group) in enumerate(zip(self.policies, valued, strict=True))
            for part in policy.descents(
                seen.policy_inputs(g), (of_group.logits, of_group.actions, of_group.q), look
            )
        ]
        norms, entropies = torch.cat(self._pool.map(do, work), dim=1)
        return norms, entropies

    def _of_all_policies(self, passes: Callable[[PolicyGroup, Tensor], list[Work]], seen: Seen) -> Tensor:
        """Logits ``[n, batch, actions]``."""
        inputs = enumerate(self.policies)
        work = [each for g, policy in inputs for each in passes(policy, seen.policy_inputs(g))]
        return torch.cat(self._pool.map(do, work))

    def follow_targets(self) -> None:
        """Let all targets follow."""
        self.critic.follow_targets()
        for policy in self.policies:
            policy.follow_targets()

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        return {"critic": self.critic.state(), "policies": [policy.state() for policy in self.policies]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state`."""
        self.critic.load_state(state["critic"])
        for policy, saved in zip(self.policies, state["policies"], strict=True):
            policy.load_state(saved)


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().cpu().numpy()
