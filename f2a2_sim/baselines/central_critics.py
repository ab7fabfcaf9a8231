"""One critic per agent, on what all agents see and do: perceptrons, stacked, gradients by autograd.

The input of every critic is ``[o_1 .. o_n, a_1 .. a_n, 1]`` with standardised observations and one-hot
actions; it is laid out once, ``[batch, inputs + 1]``, and read by all.  Where an agent's own action is to be
another than the one laid out, the difference goes through that action's weights alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from f2a2_sim.baselines.config import PerceptronConfig
from f2a2_sim.baselines.maac.steps import clip_norms, load_into, optimiser_state
from f2a2_sim.learners.products import LEAK
from f2a2_sim.learners.stacked import MlpShape, StackedAdam, zeros
from f2a2_sim.learners.standardise import Standardised

leaky_relu = torch.nn.functional.leaky_relu


class CentralCritics:
    """Parameters ``[n, P]``, their targets and their optimiser."""

    def __init__(
        self,
        config: PerceptronConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        outputs: int,
        generator: np.random.Generator,
        like: Tensor,
    ) -> None:
        self.config = config
        n = len(observation_sizes)
        self._n_actions = n_actions
        self._own_first = sum(observation_sizes) + n_actions * torch.arange(n, device=like.device)
        self.shape = MlpShape(sum(observation_sizes) + n * n_actions, config.hidden_size, 2, outputs)
        rows = (n, self.shape.size)
        self.parameters, self.targets, self.gradient = (
            zeros(rows, like.dtype, like.device) for _ in range(3)
        )
        self.parameters.copy_(torch.from_numpy(np.stack([self.shape.initial(generator) for _ in range(n)])))
        self.targets.copy_(self.parameters)
        self.adam = StackedAdam(self.parameters, config.critic_learning_rate, config.learning_rate_decay)
        self._adam_rows = self.adam.rows(slice(0, n), slice(0, self.shape.size))

    def inputs(self, seen: list[Standardised], actions: Tensor) -> Tensor:
        """``[batch, inputs + 1]`` from observations by group and actions int64 ``[n, batch]``."""
        batch = actions.shape[1]
        observations = [x.values.transpose(0, 1).reshape(batch, -1) for x in seen]
        like = observations[0]
        one_hot = self.one_hot(actions).transpose(0, 1).reshape(batch, -1)
        return torch.cat([*observations, one_hot, like.new_ones(batch, 1)], dim=1)

    def one_hot(self, actions: Tensor) -> Tensor:
        """``[n, batch, actions]``."""
        return torch.nn.functional.one_hot(actions, self._n_actions).to(self.parameters)

    def values(self, rows: Tensor, inputs: Tensor, own: Tensor | None = None) -> Tensor:
        """Outputs ``[n, batch, outputs]`` of the critics ``rows`` (parameters or targets).

        ``own`` ``[n, batch, actions]``: what is added to each agent's own action, as its critic sees it.
        """
        first = self._first(rows, inputs)
        if own is not None:
            first = first + own @ self._own_weights(rows)
        return self._further(rows, first)

    def values_of_own_actions(self, rows: Tensor, inputs: Tensor, actions: Tensor) -> Tensor:
        """Of critics with one output, all ``[n, batch, actions]`` values of the own action.

        The others' are those in ``inputs``, as are the own ones, ``actions`` ``[n, batch]``.
        """
        weights = self._own_weights(rows)
        without = self._first(rows, inputs) - self.one_hot(actions) @ weights
        every = without.unsqueeze(2) + weights.unsqueeze(1)  # [n, batch, actions, hidden]
        return self._further(rows, every.flatten(1, 2)).view(every.shape[:3])

    def descend(self, loss: Tensor) -> Tensor:
        """One step down ``loss``, a sum over critics; their gradients' norms before clipping ``[n]``."""
        (gradient,) = torch.autograd.grad(loss, self.parameters)
        self.parameters.requires_grad_(False)
        self.gradient.copy_(gradient)
        norms = clip_norms(self.gradient, self.config.critic_clip)
        self.adam.steps.add_(1)
        self.adam.apply(self._adam_rows, self.gradient, 0.0)
        return norms

    def start_equal(self) -> None:
        """Give all critics the first one's parameters."""
        self.parameters.copy_(self.parameters[:1].clone().expand_as(self.parameters))
        self.targets.copy_(self.parameters)

    def follow_targets(self) -> None:
        """theta' <- (1 - tau) theta' + tau theta."""
        self.targets.lerp_(self.parameters, self.config.tau)

    def trained(self) -> Tensor:
        """The parameters, as what the next `descend` takes a gradient with respect to."""
        return self.parameters.requires_grad_()

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        return {"parameters": self.parameters, "targets": self.targets, **optimiser_state(self.adam)}

    def load_state(self, state: dict[str, Any]) -> None:
        load_into(self.state(), state)

    def _first(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """The first layer before its leaky ReLU, ``[n, batch, hidden]``."""
        return torch.bmm(inputs.expand(len(rows), -1, -1), self.shape.views(rows)[0])

    def _further(self, rows: Tensor, first: Tensor) -> Tensor:
        _, *layers = self.shape.views(rows)
        below = first
        for weight, bias in zip(layers[0::2], layers[1::2], strict=True):
            below = torch.baddbmm(bias, leaky_relu(below, LEAK), weight[:, 0])
        return below

    def _own_weights(self, rows: Tensor) -> Tensor:
        """Weights ``[n, actions, hidden]`` that each agent's own action goes through."""
        places = self._own_first.unsqueeze(1) + torch.arange(self._n_actions, device=rows.device)
        weight = self.shape.views(rows)[0]
        return weight.gather(1, places.unsqueeze(2).expand(-1, -1, weight.shape[2]))
