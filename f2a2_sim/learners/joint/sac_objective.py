"""The joint objective of F2A2-SAC, as gradients of what critics and policy put out.

Source: Li et al., "F2A2", JMLR 24 (2023), Proposition 6; symbols as in `f2a2_sim.learners.isac_objective`.
The difference to F2A2-ISAC: Q^i(o, a) is of everybody's observations and actions, so that a resampled joint
action a~ gives other values than the replayed one even for the same own action. Hence two sets of values:

    ``replayed``   Q_j(o, (., a^-i))    the others' actions as they were
    ``resampled``  Q_j(o, (., a~^-i))   the others' actions drawn anew, from what i knows of their policies

The own action's expectation is exact (or, without ``exact_expectation``, of one sample).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac_objective import Policy


@dataclass(frozen=True)
class OwnSide:
    """What one update of ``b`` agents knows besides the critics' values."""

    actions: Tensor  # the own a, int64 [b, batch, 1]
    policy: Policy  # pi^i at o^i, [b, batch, actions]
    resampled: Tensor  # weights of E over the own a~, [b, batch, actions]
    rho: Tensor  # at a, [b, batch, 1]
    rho_resampled: Tensor  # rho' at every own action, [b, batch, actions]
    target: Tensor  # y, [b, batch, 1]


def critic_gradient(
    config: LearnerConfig, own: OwnSide, replayed: Tensor, resampled: Tensor | None, first: bool
) -> tuple[Tensor, Tensor | None]:
    """d(-J)/dQ_j of one twin at ``replayed`` and ``resampled``, each ``[b, batch, actions]``; mean included.

    The first twin descends E_pi0[(-alpha1 rho + 2 alpha2 delta) dQ(o,a)]
    + E_pi[(-alpha1 + 2 alpha2 delta(o,a~) rho') dQ(o,a~)]; the second only the alpha2 terms; without
    ``joint`` (``resampled`` None) both only 2 alpha2 delta dQ(o,a).
    """
    alpha1, alpha2 = config.alpha1 / replayed.shape[1], config.alpha2 / replayed.shape[1]
    pull = (replayed.gather(-1, own.actions) - own.target).mul_(2.0 * alpha2)
    if resampled is not None and first:
        pull.sub_(own.rho, alpha=alpha1)
    of_replayed = torch.zeros_like(replayed).scatter_(-1, own.actions, pull)
    if resampled is None:
        return of_replayed, None
    of_resampled = (resampled - own.target).mul_(own.rho_resampled).mul_(2.0 * alpha2)
    if first:
        of_resampled.sub_(alpha1)
    return of_replayed, of_resampled.mul_(own.resampled)


def actor_gradient(config: LearnerConfig, own: OwnSide, replayed: Tensor, resampled: Tensor) -> Tensor:
    """d(-J)/dlogits ``[b, batch, actions]``; values ``[2, b, batch, actions]`` are the new critics'.

    The actor ascends alpha1 E_pi0[rho dlogpi(a) A(a)] + alpha1 E_pi[dlogpi(a~) A(a~)]
    - alpha2 E_pi[rho' dlogpi(a~) (delta1^2 + delta2^2)], A = Q1 - alpha log pi - B; without ``joint`` only
    the alpha1 terms. ``td_clip`` limits the errors before they are squared.
    """
    batch = replayed.shape[2]
    pi = own.policy

    def advantage(q: Tensor) -> Tensor:
        baseline = (pi.probabilities * q).sum(dim=-1, keepdim=True)
        return torch.sub(q, pi.log, alpha=config.temperature).sub_(baseline)

    score = own.resampled * advantage(resampled[0])
    score.scatter_add_(-1, own.actions, own.rho * advantage(replayed[0]).gather(-1, own.actions))
    score.mul_(config.alpha1 / batch)
    if config.joint:
        delta = resampled - own.target
        if config.td_clip is not None:
            delta.clamp_(-config.td_clip, config.td_clip)
        squared = delta.square_().sum(dim=0).mul_(own.rho_resampled).mul_(own.resampled)
        score.sub_(squared, alpha=config.alpha2 / batch)
    return pi.probabilities * score.sum(dim=-1, keepdim=True) - score
