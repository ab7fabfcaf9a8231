"""The joint objective of F2A2-ISAC, as gradients of what the networks put out.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 6 and Section 6.3.  Everything is maximised
and rewards are r = -c, so the paper's (alpha1 + 2 alpha2 delta) reads (alpha1 - 2 alpha2 delta), as in
its Appendix B.

Symbols, per transition (o, a, r, o') of an agent's own replay:

    pi, pi0       the present policy, and the one that chose a (its logits are stored with the transition)
    rho           min(eps, pi(a|o) / pi0(a|o))        at the replayed action, no gradient
    rho'          min(eps, pi0(a~|o) / pi(a~|o))      at a resampled action a~ ~ pi(.|o), no gradient
    y             r + gamma E_{a'~pi} [min_j Qbar_j(o', a') - alpha log pi(a'|o')]; r after a terminal step
    delta_j(o,a)  Q_j(o, a) - y;  for a resampled action y is the replayed transition's
    B             E_{a~pi} Q1(o, a)
    A(a)          Q1(o, a) - alpha log pi(a|o) - B      no gradient

The critics return the values of all actions at once, so expectations over the own action are
exact sums (``exact_expectation: true``): the same gradient as the printed one, without its sampling noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.few import log_softmax


@dataclass(frozen=True)
class Policy:
    """A policy at a batch of observations: probabilities and their logarithms ``[b, n, actions]``."""

    probabilities: Tensor
    log: Tensor

    @staticmethod
    def of(logits: Tensor) -> Policy:
        log = log_softmax(logits)
        return Policy(log.exp(), log)

    def weights(self, uniforms: Tensor | None) -> Tensor:
        """What E_{a~pi} multiplies each action's value with: pi itself, or one sampled action's indicator."""
        if uniforms is None:
            return self.probabilities
        cumulated = self.probabilities.double().cumsum(dim=-1)
        sampled = (cumulated <= uniforms.unsqueeze(-1)).sum(dim=-1, keepdim=True)
        sampled.clamp_max_(self.log.shape[-1] - 1)
        return torch.zeros_like(self.log).scatter_(-1, sampled, 1.0)


@dataclass(frozen=True)
class Replayed:
    """What one update knows of its transitions besides the critics' values."""

    actions: Tensor  # a, int64 [b, n, 1]
    policy: Policy  # pi at o
    resampled: Tensor  # weights of E over a~, [b, n, actions]
    rho: Tensor  # at a, [b, n, 1]
    rho_resampled: Tensor  # rho' at every action, [b, n, actions]
    target: Tensor  # y, [b, n, 1]


def bootstrap_target(
    config: LearnerConfig,
    rewards: Tensor,
    ended: Tensor,
    policy_next: Policy,
    weights: Tensor,
    q_next: Tensor,
) -> Tensor:
    """y ``[b, n, 1]`` from the target critics' values ``q_next`` ``[2, b, n, actions]`` at o'."""
    soft = torch.minimum(q_next[0], q_next[1]).sub_(policy_next.log, alpha=config.temperature)
    value = soft.mul_(weights).sum(dim=-1).masked_fill_(ended, 0.0)
    return torch.add(rewards, value, alpha=config.discount).unsqueeze(-1)


def importance_weights(
    config: LearnerConfig, policy: Policy, behaviour: Tensor, actions: Tensor
) -> tuple[Tensor, Tensor]:
    """rho at the actions taken ``[b, n, 1]`` and rho' at every action; ``behaviour`` is log pi0."""
    log_ratio = policy.log - behaviour
    rho = log_ratio.gather(-1, actions).exp_().clamp_max_(config.truncation)
    return rho, log_ratio.neg_().exp_().clamp_max_(config.truncation)


def critic_output_gradient(config: LearnerConfig, data: Replayed, q: Tensor) -> Tensor:
    """d(-J)/dQ_j(o, .) of one update: ``[2, b, n, actions]``, batch mean included.

    Critic 1 descends E_pi0[(-alpha1 rho + 2 alpha2 delta1) dQ1(o,a)]
    + E_pi[(-alpha1 + 2 alpha2 delta1(o,a~) rho') dQ1(o,a~)]; critic 2 only the alpha2 terms; without
    ``joint`` both only 2 alpha2 delta_j dQ_j(o,a).
    """
    alpha1, alpha2 = config.alpha1 / q.shape[2], config.alpha2 / q.shape[2]
    delta = q - data.target
    weight = data.rho_resampled * data.resampled if config.joint else torch.zeros_like(data.resampled)
    weight.scatter_add_(-1, data.actions, torch.ones_like(data.rho))
    gradient = delta.mul_(weight.mul_(2.0 * alpha2))
    if config.joint:
        gradient[0].sub_(data.resampled, alpha=alpha1).scatter_add_(-1, data.actions, -alpha1 * data.rho)
    return gradient


def actor_output_gradient(
    config: LearnerConfig, data: Replayed, q: Tensor, td_scale: Tensor | float
) -> Tensor:
    """d(-J)/dlogits ``[b, n, actions]`` of one update, batch mean included; ``q`` is the new critics'.

    The actor ascends alpha1 E_pi0[rho dlogpi(a) A(a)] + alpha1 E_pi[dlogpi(a~) A(a~)]
    - alpha2 E_pi[rho' dlogpi(a~) (delta1^2 + delta2^2)]; without ``joint`` only the alpha1 terms.
    ``td_clip`` limits the errors before they are squared, ``td_scale`` divides them (`normalise_td`).
    """
    alpha1, alpha2 = config.alpha1 / q.shape[2], config.alpha2 / q.shape[2]
    pi = data.policy
    baseline = (pi.probabilities * q[0]).sum(dim=-1, keepdim=True)
    advantage = torch.sub(q[0], pi.log, alpha=config.temperature).sub_(baseline)
    score = data.resampled * advantage
    score.scatter_add_(-1, data.actions, data.rho * advantage.gather(-1, data.actions)).mul_(alpha1)
    if config.joint:
        delta = q - data.target
        if config.td_clip is not None:
            delta.clamp_(-config.td_clip, config.td_clip)
        squared = delta.square_().sum(dim=0).div_(td_scale)
        score.sub_(squared.mul_(data.rho_resampled).mul_(data.resampled), alpha=alpha2)
    # sum_a score(a) dlogpi(a)/dlogits = score - pi * sum_a score(a)
    return pi.probabilities * score.sum(dim=-1, keepdim=True) - score


def taken(q: Tensor, data: Replayed) -> Tensor:
    """Q_j(o, a): ``[2, b, n, 1]``."""
    return q.gather(-1, data.actions.expand(q.shape[0], -1, -1, -1))
