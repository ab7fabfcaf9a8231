"""The joint objective of F2A2-COMA, as gradients of what critic and policy put out.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 3; everything is maximised, symbols as in
`f2a2_sim.learners.isac_objective`. Data are the agent's newest transitions, time by time for all rollouts.

    Q(o, (., a^-i))   values of all own actions, the others' as they were
    y                 TD(lambda) return, no gradient
    delta             Q(o, a) - y at the action taken, the only one whose return is known
    B(o, a^-i)        E_{a^i~pi} Q(o, (a^i, a^-i)), exact

The critic gives all own actions at once, so the alpha1 terms, E_pi[dlogpi(a) (Q - B)] and E_pi[dQ(o,a)], are
exact sums over the own action (``exact_expectation: true``): the same gradient as the printed one at the
action taken, without its sampling noise.

An advantage Q - B can be no better than what the critic knows of actions, which with many agents is little
for long. ``advantage: return`` puts the return y in the place of Q(o, a), A = rho (y - B): the same
expectation where the critic is right, and (but for y's bootstrap) an unbiased gradient where it is not. As y
is known of the action taken alone, the sum over actions is one of samples, and rho = sg(min(eps, pi/pi0))
corrects for the few updates since it was taken.

``td_baseline`` and ``standardise_advantage`` subtract means over the batch, which E_pi[dlogpi(a)] = 0 allows.
Without the former delta^2 >= 0 pushes a policy away from what was done, whatever came of it; and the batch is
some updates old, so that what was done is not what would be done now, and the push does not cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac_objective import Policy


@dataclass(frozen=True)
class OnPolicy:
    """What one update of ``b`` agents knows besides the critic's values."""

    actions: Tensor  # the own a, int64 [b, batch, 1]
    policy: Policy  # pi^i at o^i, [b, batch, actions]
    target: Tensor  # y, [b, batch, 1]
    rho: Tensor  # at the own a, [b, batch, 1]

    def taken(self, config: LearnerConfig) -> Tensor:
        """Weights of E_pi over the own action ``[b, batch, actions]``: pi, or 1 at the action taken."""
        if config.exact_expectation:
            return self.policy.probabilities
        return torch.zeros_like(self.policy.log).scatter_(-1, self.actions, 1.0)


def td_lambda(
    config: LearnerConfig, rewards: Tensor, ended: Tensor, next_values: Tensor, followed: Tensor
) -> Tensor:
    """TD(lambda) returns, all ``[b, time, rollouts]``, of twice as many transitions at every step.

    y_t = r_t + gamma ((1 - lambda) V'_t + lambda y_{t+1}), where V' = ``next_values`` is the target critic's
    at the next observations. Where t is not ``followed`` by the next transition (an episode's time limit, a
    gap, the newest transition) y_t = r_t + gamma V'_t; where it ``ended`` for good, y_t = r_t.
    """
    b, time, rollouts = rewards.shape
    both = rewards.new_zeros(2, b, 2 * time, rollouts)  # returns and traces, and behind the last step zeros
    now = both[:, :, :time]
    returns, trace = now.unbind(0)
    discount = torch.full_like(rewards, config.discount).masked_fill_(ended, 0.0)
    trace.copy_(followed).mul_(config.td_lambda)
    torch.addcmul(rewards, discount * (1.0 - trace), next_values, out=returns)
    trace.mul_(discount)
    trace[:, -1] = 0.0
    step = 1  # transitions that have found their way into each return
    while step < time:
        later = trace * both[:, :, step : step + time]
        later[0].add_(returns)
        now.copy_(later)
        step *= 2
    return returns


def critic_gradient(config: LearnerConfig, own: OnPolicy, q: Tensor) -> Tensor:
    """d(-J)/dQ(o, (., a^-i)) ``[b, batch, actions]``, batch mean included.

    The critic descends E_pi[(-alpha1 + 2 alpha2 delta) dQ(o,a)]; without ``joint`` the alpha2 term alone.
    """
    alpha1, alpha2 = config.alpha1 / q.shape[1], config.alpha2 / q.shape[1]
    delta = q.gather(-1, own.actions) - own.target
    gradient = torch.zeros_like(q).scatter_(-1, own.actions, delta.mul_(2.0 * alpha2))
    return gradient.sub_(own.taken(config), alpha=alpha1) if config.joint else gradient


def actor_gradient(config: LearnerConfig, own: OnPolicy, q: Tensor) -> Tensor:
    """d(-J)/dlogits ``[b, batch, actions]``; ``q`` ``[b, batch, actions]`` is the new critic's.

    The actor ascends E_pi[dlogpi(a) sg(alpha1 A - alpha2 delta^2)], A = Q - B, or rho (y - B) with
    ``advantage: return``; without ``joint`` the alpha1 term alone. ``td_clip`` limits the errors before they
    are squared.
    """
    alpha1, alpha2 = config.alpha1 / q.shape[1], config.alpha2 / q.shape[1]
    pi = own.policy.probabilities
    score = _advantages(config, own, q).mul_(alpha1)
    if config.joint:
        delta = q.gather(-1, own.actions) - own.target
        if config.td_clip is not None:
            delta.clamp_(-config.td_clip, config.td_clip)
        squared = delta.square_()
        if config.td_baseline:
            squared = squared - squared.mean(dim=1, keepdim=True)
        score.scatter_add_(-1, own.actions, squared.mul_(-alpha2))
    # sum_a score(a) dlogpi(a)/dlogits = score - pi * sum_a score(a)
    return pi * score.sum(dim=-1, keepdim=True) - score


def _advantages(config: LearnerConfig, own: OnPolicy, q: Tensor) -> Tensor:
    """Weight of E_pi times A, of each own action ``[b, batch, actions]``."""
    baseline = (own.policy.probabilities * q).sum(dim=-1, keepdim=True)
    if config.advantage == "return":
        advantage, weights = own.target - baseline, torch.ones_like(baseline)
    else:
        advantage, weights = q - baseline, own.taken(config)
    if config.standardise_advantage:
        advantage = advantage - _mean(weights * advantage)
        advantage = advantage / (_mean(weights * advantage.square()).sqrt() + _TINY)
    score = weights * advantage
    if config.advantage == "return":
        return torch.zeros_like(q).scatter_(-1, own.actions, own.rho * score)
    return score


def _mean(weighted: Tensor) -> Tensor:
    """Sum over actions, mean over the batch: ``[b, batch, .]`` -> ``[b, 1, 1]``."""
    return weighted.sum(dim=-1, keepdim=True).mean(dim=1, keepdim=True)


_TINY = 1e-8
