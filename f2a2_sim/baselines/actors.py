"""The policies of all agents: a perceptron each, whose observations are standardised.

They are `PolicyGroup`s, one for each size of observation; here they are asked and taught all at once, in the
order of the agents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.baselines.choice import choose_by
from f2a2_sim.baselines.maac.policies import PolicyGroup, PolicySettings
from f2a2_sim.learners.attention_shape import group_agents
from f2a2_sim.learners.standardise import Standardised, standardise


class Actors:
    """Logits ``[n, batch, actions]`` of all agents, and steps against their loss's gradient."""

    def __init__(
        self,
        config: PolicySettings,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        generator: np.random.Generator,
        like: Tensor,
    ) -> None:
        self._like = like
        self.groups = [
            PolicyGroup(config, group, n_actions, like) for group in group_agents(observation_sizes)
        ]
        for group in self.groups:
            group.initialise(generator)

    def act(
        self, observations: list[NDArray[np.float32]], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Actions ``[rollouts, n]`` by uniforms ``[n, rollouts]``, on observations by the running moments."""
        probabilities = self.acting_logits(observations).softmax(dim=-1)
        return choose_by(uniforms)(probabilities).T.cpu().numpy()

    def acting_logits(self, observations: list[NDArray[np.float32]]) -> Tensor:
        """z ``[n, rollouts, actions]`` of observations by group ``[rollouts, group, size]``."""
        with torch.no_grad():
            return torch.cat(
                [
                    group.acting_logits(torch.from_numpy(seen).to(self._like).transpose(0, 1))
                    for group, seen in zip(self.groups, observations, strict=True)
                ]
            )

    def look(self, observations: list[Tensor]) -> list[Standardised]:
        """Observations by group ``[group, batch, size]``, standardised by their own batch."""
        return [standardise(values.to(self._like)) for values in observations]

    def logits(self, seen: list[Standardised]) -> Tensor:
        """z of the policies; their memory is kept for a `step`."""
        with torch.no_grad():
            return torch.cat(
                [g.logits(_with_ones(x.values)) for g, x in zip(self.groups, seen, strict=True)]
            )

    def target_logits(self, seen: list[Standardised]) -> Tensor:
        """z of the target policies."""
        with torch.no_grad():
            return torch.cat(
                [g.target_logits(_with_ones(x.values)) for g, x in zip(self.groups, seen, strict=True)]
            )

    def descend(self, seen: list[Standardised], loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """One step of every policy down ``loss``, a scalar of all logits; running moments follow the batch.

        The loss is a sum over agents, so that each has its own gradient.  Returns logits and the norms of the
        gradients before they are clipped ``[n]``.
        """
        logits = self.logits(seen).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits), logits)
        norms = []
        with torch.no_grad():
            for group, x in zip(self.groups, seen, strict=True):
                group.backward(_with_ones(x.values), gradient[group.group.agents])
                norms.append(group.clip())
                group.step()
                group.follow(x)
        return logits.detach(), torch.cat(norms)

    def follow_targets(self) -> None:
        """Let the target policies follow."""
        for group in self.groups:
            group.follow_targets()

    def state(self) -> list[dict[str, Any]]:
        """Views of all that changes."""
        return [group.state() for group in self.groups]

    def load_state(self, state: list[dict[str, Any]]) -> None:
        for group, saved in zip(self.groups, state, strict=True):
            group.load_state(saved)


def entropies(logits: Tensor) -> Tensor:
    """Mean entropy of each policy, ``[n]``."""
    log = logits.log_softmax(dim=-1)
    return -(log.exp() * log).sum(dim=-1).mean(dim=-1)


def _with_ones(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values, (0, 1), value=1.0)
