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
from f2a2_sim.learners.attention import Attended, AttentionCritic
from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.pool import BlockPool
from f2a2_sim.learners.stacked import StackedAdam, zeros

PART = 512
"""Transitions that are computed at once, by one thread."""


def values(attended: list[Attended]) -> Tensor:
    """The action values ``[n, batch, actions]`` of a whole batch."""
    return attended[0].q if len(attended) == 1 else torch.cat([part.q for part in attended], dim=1)


def regression_target(
    config: MaacConfig, rewards: Tensor, ended: Tensor, next_q: Tensor, next_log: Tensor
) -> Tensor:
    """y, like all its arguments ``[n, batch]``; ``next_q`` and ``next_log`` are of the next actions."""
    return rewards + config.discount * (1.0 - ended) * next_q - next_log / config.reward_scale


@dataclass(frozen=True)
class CriticLoss:
    """What a critic step looks at."""

    attended: list[Attended]  # by part of the batch
    q: Tensor  # [n, batch, actions]
    actions: Tensor  # int64 [n, batch, 1]
    target: Tensor  # y [n, batch]
    squared_logits: Tensor  # [n], sum over heads, mean over batch and others

    @property
    def error(self) -> Tensor:
        """Q - y of the actions taken, ``[n, batch]``."""
        return self.q.gather(-1, self.actions).squeeze(-1) - self.target

    def squared_error(self) -> Tensor:
        """Mean over the batch, ``[n]``."""
        return self.error.square().mean(dim=1)

    def q_gradient(self) -> Tensor:
        """dL/dQ ``[n, batch, actions]``: only the taken actions' values are in the loss."""
        pull = self.error.mul_(2.0 / self.target.shape[1]).unsqueeze(-1)
        return torch.zeros_like(self.q).scatter_(-1, self.actions, pull)


class MaacCritic:
    """One row of parameters ``[1, P]``, its target, its optimiser.

    A batch is passed through the network in parts, several at once: they have the parameters in common, and
    their gradients are added up. How it is divided depends on its size alone, so results do not depend on the
    number of threads.
    """

    def __init__(self, config: MaacConfig, shape: AttentionShape, like: Tensor, pool: BlockPool) -> None:
        self.config = config
        self.shape = shape
        row = (1, shape.size)
        self.parameters, self.targets, self.gradient = (zeros(row, like.dtype, like.device) for _ in range(3))
        self.adam = StackedAdam(self.parameters, config.critic_learning_rate, config.learning_rate_decay)
        self._pool = pool
        self._networks: list[AttentionCritic] = []  # by part
        self._part_gradients = zeros((0, shape.size), like.dtype, like.device)
        self._arrays = shape.arrays(self.parameters)
        self._target_arrays = shape.arrays(self.targets)
        self._adam_rows = self.adam.rows(slice(0, 1), slice(0, shape.size))

    def initialise(self, generator: np.random.Generator) -> None:
        """Draw parameters; the target is a copy of them."""
        self.parameters.copy_(torch.from_numpy(self.shape.initial(generator)))
        self.targets.copy_(self.parameters)

    def attend(self, inputs: list[Tensor]) -> list[Attended]:
        """What comes of every part of a batch; everybody's action values are `values` of it."""
        return self._forward(self._arrays, inputs)

    def target_values(self, inputs: list[Tensor]) -> Tensor:
        """Q' ``[n, batch, actions]``."""
        return values(self._forward(self._target_arrays, inputs))

    def loss(self, inputs: list[Tensor], actions: Tensor, target: Tensor) -> CriticLoss:
        """The loss of a batch with these actions ``[n, batch, 1]``."""
        attended = self.attend(inputs)
        squares = sum(
            network.squared_logits(part) for network, part in zip(self._networks, attended, strict=False)
        )
        assert isinstance(squares, Tensor)
        return CriticLoss(attended, values(attended), actions, target, squares / self._logits(target))

    def backward(self, inputs: list[Tensor], loss: CriticLoss) -> None:
        """The loss's gradient, to ``gradient``."""
        parts = self._parts(inputs)
        if len(self._part_gradients) != len(parts):
            with torch.inference_mode(False):
                like = self.parameters
                self._part_gradients = zeros((len(parts), self.shape.size), like.dtype, like.device)
        gradient, decay = loss.q_gradient(), 2.0 * self.config.attention_decay / self._logits(loss.target)

        def work(_: int, part: int) -> None:
            self._networks[part].backward(
                self._arrays,
                [seen[:, parts[part]] for seen in inputs],
                loss.attended[part],
                gradient[:, parts[part]],
                decay,
                self.shape.arrays(self._part_gradients[part : part + 1]),
            )

        self._pool.map(work, range(len(parts)))
        torch.sum(self._part_gradients, dim=0, keepdim=True, out=self.gradient)

    def attention_logits(self, loss: CriticLoss, agent: int) -> Tensor:
        """See `AttentionCritic.attention_logits`, of the whole batch."""
        parts = zip(self._networks, loss.attended, strict=False)
        return torch.cat([network.attention_logits(part, agent) for network, part in parts], dim=1)

    def _logits(self, target: Tensor) -> int:
        """Logits of an agent and a head in a batch."""
        return target.shape[1] * (self.shape.n_agents - 1)

    def _forward(self, arrays: CriticArrays, inputs: list[Tensor]) -> list[Attended]:
        parts = self._parts(inputs)
        self._networks += [AttentionCritic(self.shape) for _ in parts[len(self._networks) :]]

        def work(_: int, part: int) -> Attended:
            return self._networks[part].forward(arrays, [seen[:, parts[part]] for seen in inputs])

        return self._pool.map(work, range(len(parts)))

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
