"""MAAC's critic: one attention critic for all agents, its target, its loss and its optimiser.

It descends sum_i [ mean_b (Q_i - y_i)^2 + attention_decay sum_h mean_b,j (l_ij^2) ], l the unscaled logits,
with

    y_i = r_i + discount (1 - ended) Q'_i(o', a') - log pi'_i(a'_i | o'_i) / reward_scale

where Q' and pi' are the targets'.  In the original, and so here, the entropy term is neither discounted nor
left out at an episode's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.steps import clip_norms, load_into, optimiser_state
from f2a2_sim.learners.attention import AttentionCritic
from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.pool import BlockPool
from f2a2_sim.learners.recorded import recorder_for
from f2a2_sim.learners.stacked import StackedAdam, zeros

PART = 512
"""Transitions that are computed at once, by one thread."""


def regression_target(
    config: MaacConfig, rewards: Tensor, ended: Tensor, next_q: Tensor, next_log: Tensor
) -> Tensor:
    """y, like all its arguments ``[n, batch]``; ``next_q`` and ``next_log`` are of the next actions."""
    return rewards + config.discount * (1.0 - ended) * next_q - next_log / config.reward_scale


@dataclass(frozen=True)
class CriticLoss:
    """What the first term of the loss looks at."""

    q: Tensor  # [n, batch, actions]
    actions: Tensor  # int64 [n, batch]
    target: Tensor  # y [n, batch]

    @property
    def error(self) -> Tensor:
        """Q - y of the actions taken, ``[n, batch]``."""
        return of_actions(self.actions, self.q) - self.target

    def squared_error(self) -> Tensor:
        """Mean over the batch, ``[n]``."""
        return self.error.square().mean(dim=1)

    def q_gradient(self, batch: int) -> Tensor:
        """dL/dQ ``[n, rows, actions]`` of rows of a batch: only the taken actions' values are in the loss."""
        pull = self.error.mul_(2.0 / batch).unsqueeze(-1)
        return torch.zeros_like(self.q).scatter_(-1, self.actions.unsqueeze(-1), pull)


def of_actions(actions: Tensor, values: Tensor) -> Tensor:
    """The entries ``[n, batch]`` of ``[n, batch, actions]`` that belong to ``actions`` ``[n, batch]``."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class MaacCritic:
    """One row of parameters ``[1, P]``, its target, its optimiser.

    A batch is passed through the network in parts, several at once: they have the parameters in common, and
    their gradients are added up. A part goes all the way, forth and back, so that what it needs is still in
    the cache. How a batch is divided depends on its size alone, so results do not depend on the number of
    threads.
    """

    def __init__(self, config: MaacConfig, shape: AttentionShape, like: Tensor, pool: BlockPool) -> None:
        self.config = config
        self.shape = shape
        row = (1, shape.size)
        self.parameters, self.targets, self.gradient = (zeros(row, like.dtype, like.device) for _ in range(3))
        self.adam = StackedAdam(self.parameters, config.critic_learning_rate, config.learning_rate_decay)
        self._pool = pool
        self._networks: dict[int, AttentionCritic] = {}  # by thread
        self._part_gradients = zeros((0, shape.size), like.dtype, like.device)
        self._part_arrays: list[CriticArrays] = []
        self._recorded = recorder_for(like.device)
        self._arrays = shape.arrays(self.parameters)
        self._target_arrays = shape.arrays(self.targets)
        self._adam_rows = self.adam.rows(slice(0, 1), slice(0, shape.size))

    def initialise(self, generator: np.random.Generator) -> None:
        """Draw parameters; the target is a copy of them."""
        self.parameters.copy_(torch.from_numpy(self.shape.initial(generator)))
        self.targets.copy_(self.parameters)

    def target_values(self, inputs: list[Tensor]) -> Tensor:
        """Q' ``[n, batch, actions]``."""
        return self._values("target_values", self._target_arrays, inputs)

    def action_values(self, inputs: list[Tensor]) -> Tensor:
        """Q ``[n, batch, actions]``."""
        return self._values("action_values", self._arrays, inputs)

    def loss(self, inputs: list[Tensor], actions: Tensor, target: Tensor) -> CriticLoss:
        """The loss of a batch with these actions ``[n, batch]``; its gradient is written to ``gradient``."""
        parts, batch = self._parts(inputs), target.shape[1]
        self._make_gradients(len(parts))
        decay = 2.0 * self.config.attention_decay / (batch * (self.shape.n_agents - 1))

        def work(thread: int, part: int) -> Tensor:
            network, arrays = self._network(thread), self._part_arrays[part]

            def descend(actions: Tensor, target: Tensor, *seen: Tensor) -> Tensor:
                done = network.forward(self._arrays, list(seen))
                pull = CriticLoss(done.q, actions, target).q_gradient(batch)
                network.backward(self._arrays, list(seen), done, pull, decay, arrays)
                return done.q

            given = [values[:, parts[part]] for values in (actions, target, *inputs)]
            return self._recorded.run(("loss", thread, part, batch), given, descend)

        q = torch.cat(self._pool.map(work, range(len(parts))), dim=1)
        torch.sum(self._part_gradients, dim=0, keepdim=True, out=self.gradient)
        return CriticLoss(q, actions, target)

    def _values(self, what: str, arrays: CriticArrays, inputs: list[Tensor]) -> Tensor:
        parts = self._parts(inputs)

        def work(thread: int, part: int) -> Tensor:
            network, given = self._network(thread), [seen[:, parts[part]] for seen in inputs]
            kind = (what, thread, given[0].shape[1])
            return self._recorded.run(kind, given, lambda *seen: network.action_values(arrays, list(seen)))

        return torch.cat(self._pool.map(work, range(len(parts))), dim=1)

    def _network(self, thread: int) -> AttentionCritic:
        return self._networks.setdefault(thread, AttentionCritic(self.shape))

    def _make_gradients(self, parts: int) -> None:
        """One row for each part, where they have as many already."""
        if len(self._part_gradients) == parts:
            return
        with torch.inference_mode(False):
            like = self.parameters
            self._part_gradients = zeros((parts, self.shape.size), like.dtype, like.device)
        self._part_arrays = [self.shape.arrays(row.unsqueeze(0)) for row in self._part_gradients]
        self._recorded = recorder_for(like.device)  # what is recorded writes to the rows that were

    @staticmethod
    def _parts(inputs: list[Tensor]) -> list[slice]:
        batch = inputs[0].shape[1]
        size = PART if inputs[0].device.type == "cpu" else batch
        return [slice(first, min(first + size, batch)) for first in range(0, batch, size)]

    def scale_common(self) -> None:
        """Divide the gradient of what all agents' values pass through by their number."""
        self.gradient[:, self.shape.common_columns].div_(self.shape.n_agents)

    def clip(self) -> Tensor:
        """Clip the gradient; its norm before, ``[1]``."""
        return clip_norms(self.gradient, self.config.critic_clip_per_agent * self.shape.n_agents)

    def step(self) -> None:
        """One step of Adam; the weight decay joins the clipped gradient."""
        self.adam.steps.add_(1)
        self.adam.apply(self._adam_rows, self.gradient, self.config.critic_weight_decay)

    def follow_targets(self) -> None:
        """theta' <- (1 - tau) theta' + tau theta."""
        self.targets.lerp_(self.parameters, self.config.tau)

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        return {"parameters": self.parameters, "targets": self.targets, **optimiser_state(self.adam)}

    def load_state(self, state: dict[str, Any]) -> None:
        load_into(self.state(), state)
