"""What a block of agents learns from in one update, see `f2a2_sim.learners.joint.base`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from f2a2_sim.learners.base import BoolArray
from f2a2_sim.learners.few import sample, softmax
from f2a2_sim.learners.joint.replay import JointTransitions


@dataclass(frozen=True)
class Drawn:
    """What a block of ``b`` agents learns from in one update; n is the number of all agents."""

    run: slice
    due: BoolArray  # whose actors take a step [b]
    transitions: JointTransitions  # with rewards as the learner sees them
    next_logits: Tensor  # of everybody's policy at o', as the agent knows them [b, n, batch, actions]
    next_others: Tensor  # a~', int64 [b, n, batch]; the own entry is a sample of the own policy
    logits: Callable[[], Tensor]  # of everybody's policy at o, as the agent knows them; a~ is drawn from them
    uniforms: Tensor  # for a~ [b, n, batch]
    noise: Tensor  # the uniforms that the learner asked for besides [b, batch, resampled_draws - 2 n]

    def sample_others(self) -> Tensor:
        """a~, int64 ``[b, n, batch]``; the own entry is a sample of the own policy."""
        return choose(self.logits(), self.uniforms)

    @property
    def rewards(self) -> Tensor:
        """As the learner sees them ``[b, batch]``."""
        return self.transitions.rewards

    @property
    def own(self) -> Tensor:
        """Numbers of the block's agents, int64 ``[b]``."""
        return torch.arange(self.run.start, self.run.stop, device=self.rewards.device)

    def of_own(self, values: Tensor) -> Tensor:
        """What belongs to the agents themselves: ``[b, n, ...]`` -> ``[b, ...]``, a view."""
        mine = values[:, self.run].diagonal(dim1=0, dim2=1)
        return mine.movedim(-1, 0)


def choose(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Sample actions ``[...]`` from ``logits`` ``[..., actions]`` by uniforms in [0, 1) ``[...]``."""
    return sample(softmax(logits), uniforms.to(logits.dtype, copy=True))
