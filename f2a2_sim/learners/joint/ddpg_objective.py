"""The joint objectives of F2A2-DDPG and F2A2-TD3, as gradients of what critics and policy put out.

Source: Li et al., "F2A2", JMLR 24 (2023), Propositions 4 and 5; everything is maximised, symbols as in
`f2a2_sim.learners.isac_objective`. The critics' values are those of one joint action each, Q(o, a).

Actions are discrete, so the own a~ = a~(psi) is a straight-through Gumbel-softmax sample (Jang et al., ICLR
2017): forward the one-hot vector of argmax(logits + g), which is a sample of pi, and backward the gradient of
softmax((logits + g) / gumbel_temperature). Gumbel noise is g = -log(-log u), u uniform.

TD3's target policy smoothing (Fujimoto et al., ICML 2018) adds clipped Gaussian noise to the target's
actions. Here it is added to the logits from which a~' is drawn by Gumbel-softmax, everybody's, with standard
deviation and clip of the agent that learns; the critic is asked for one-hot actions, so the sample's argmax
enters, and that is a sample of the softmax of the perturbed logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.few import softmax
from f2a2_sim.learners.isac_objective import Policy


@dataclass(frozen=True)
class StraightThrough:
    """One sample of each policy: ``chosen`` int64 ``[b, batch]`` of ``relaxed`` ``[b, batch, actions]``."""

    chosen: Tensor
    relaxed: Tensor
    temperature: float

    @staticmethod
    def of(logits: Tensor, uniforms: Tensor, temperature: float) -> StraightThrough:
        """Sample from ``logits`` ``[b, batch, actions]`` by uniforms in [0, 1) of the same shape."""
        noise = -torch.log(-torch.log(uniforms.clamp_min(_TINY)))
        relaxed = softmax((logits + noise.to(logits.dtype)) / temperature)
        return StraightThrough(relaxed.max(dim=-1).indices, relaxed, temperature)

    def logit_gradient(self, action_gradient: Tensor) -> Tensor:
        """dL/dlogits for dL/da~ ``[b, batch, actions]``."""
        inner = (self.relaxed * action_gradient).sum(dim=-1, keepdim=True)
        return (action_gradient - inner).mul_(self.relaxed).div_(self.temperature)


def smoothed(logits: Tensor, uniforms: Tensor, deviation: Tensor, clip: Tensor) -> Tensor:
    """Logits ``[b, ...]`` + clip(N(0, deviation), -clip, clip), by uniforms of the same shape.

    ``deviation`` and ``clip`` ``[b]`` are each learning agent's own.
    """
    by_agent = (-1, *[1] * (logits.ndim - 1))
    limit = clip.view(by_agent)
    # The normal distribution's quantile of u is sqrt(2) erfinv(2 u - 1), and of 0 it is -inf.
    quantile = uniforms.mul(2.0).sub_(1.0).to(logits.dtype).erfinv_().clamp_(-_FAR, _FAR)
    noise = quantile.mul_(sqrt(2.0) * deviation.view(by_agent))
    return logits + torch.clamp(noise, -limit, limit)


@dataclass(frozen=True)
class OwnSample:
    """What one update of ``b`` agents knows besides the critics' values; all ``[b, batch]``, no gradient."""

    rho: Tensor  # at the own action replayed
    rho_resampled: Tensor  # rho' at the own a~
    target: Tensor  # y


def bootstrap_target(config: LearnerConfig, rewards: Tensor, ended: Tensor, q_next: Tensor) -> Tensor:
    """y = r + gamma min_j Qbar_j(o', a~') ``[b, batch]``, or r where ``ended``.

    ``q_next`` ``[twins, b, batch]``; F2A2-DDPG has one critic, and its own value is the least.
    """
    return torch.add(rewards, q_next.amin(dim=0).masked_fill(ended, 0.0), alpha=config.discount)


def critic_gradient(
    config: LearnerConfig, own: OwnSample, replayed: Tensor, resampled: Tensor | None
) -> Tensor:
    """d(-J)/dQ_j ``[twins, b, 2 batch]`` at (o, a) and then (o, a~), or ``[twins, b, batch]`` at (o, a).

    Values are ``[twins, b, batch]``. The first twin descends E_pi0[(-alpha1 rho + 2 alpha2 delta) dQ(o,a)]
    + E_pi[(-alpha1 + 2 alpha2 delta(o,a~) rho') dQ(o,a~)], the second only the alpha2 terms; without
    ``joint`` (``resampled`` None) both only 2 alpha2 delta dQ(o,a).
    """
    alpha1, alpha2 = config.alpha1 / replayed.shape[2], config.alpha2 / replayed.shape[2]
    of_replayed = (replayed - own.target).mul_(2.0 * alpha2)
    if resampled is None:
        return of_replayed
    of_resampled = (resampled - own.target).mul_(own.rho_resampled).mul_(2.0 * alpha2)
    of_replayed[0].sub_(own.rho, alpha=alpha1)
    of_resampled[0].sub_(alpha1)
    return torch.cat([of_replayed, of_resampled], dim=2)


def actor_gradient(config: LearnerConfig, own: OwnSample, resampled: Tensor) -> Tensor:
    """d(-J)/dQ_j(o, a~) ``[twins, b, batch]`` through which the actor learns; values are the new critics'.

    It ascends E_pi[sg(alpha1 - 2 alpha2 delta1(o,a~) rho') Q1(o, a~(psi))], and with a second twin
    -2 alpha2 delta2 rho' Q2 as well; without ``joint`` alpha1 Q1 alone. ``td_clip`` limits the errors.
    """
    alpha1, alpha2 = config.alpha1 / resampled.shape[2], config.alpha2 / resampled.shape[2]
    if config.joint:
        delta = resampled - own.target
        if config.td_clip is not None:
            delta.clamp_(-config.td_clip, config.td_clip)
        gradient = delta.mul_(own.rho_resampled).mul_(2.0 * alpha2)
    else:
        gradient = torch.zeros_like(resampled)
    gradient[0].sub_(alpha1)
    return gradient


def add_entropy_bonus(config: LearnerConfig, policy: Policy, logit_gradient: Tensor) -> None:
    """Let the actor ascend entropy_bonus * H(pi) too, by the mean over the batch; in place."""
    if config.entropy_bonus > 0.0:
        entropy = -(policy.probabilities * policy.log).sum(dim=-1, keepdim=True)
        weight = config.entropy_bonus / policy.log.shape[1]
        logit_gradient.add_(policy.probabilities * (policy.log + entropy), alpha=weight)


_TINY = torch.finfo(torch.float64).tiny
_FAR = 1e9
