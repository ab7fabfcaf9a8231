"""Critics that put out the values of all own actions, Q^i(o, (., a^-i)), one for every agent (F2A2-COMA).

``critic: perceptron`` is one on everything that is seen and done (`f2a2_sim.learners.joint.mlp_critic`).
``critic: attention`` is MAAC's (`f2a2_sim.learners.joint.own_attention`): what the agent itself sees has a
path of its own, and whom of the others it reads is learnt. A perceptron has to find among all products of
its inputs the few on which an agent's reward hangs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape
from f2a2_sim.learners.joint.attention_twins import entered, observed_by_group
from f2a2_sim.learners.joint.mlp_critic import JointInputLayout, JointInputs, JointMlpCritic
from f2a2_sim.learners.joint.own_attention import Answered, OwnAttentionCritic
from f2a2_sim.learners.stacked import MlpShape, RowViews


class OwnValues(ABC):
    """Passes of a block of neighbouring agents' critics; buffers are reused, so threads need one each.

    A pass reads what `look` was given last; `backward` belongs to the `forward` before it.
    """

    @abstractmethod
    def look(self, run: slice, seen: Tensor, actions: Tensor) -> None:
        """What agents ``run`` see of all ``[b, n, batch, size]``, and all actions ``[b, n, batch]``."""

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """Values ``[b, batch, actions]`` by the critics in ``rows`` ``[b, size]``."""

    @abstractmethod
    def backward(self, rows: Tensor, q_gradient: Tensor, out: Tensor) -> None:
        """Write to ``out`` ``[b, size]`` the gradient for dL/dQ ``[b, batch, actions]``."""


class PerceptronValues(OwnValues):
    """See `JointMlpCritic`."""

    def __init__(self, layout: JointInputLayout, shape: MlpShape) -> None:
        self._critic = JointMlpCritic(layout, shape)
        self._inputs: JointInputs | None = None
        self._views = RowViews(shape.arrays)

    def look(self, run: slice, seen: Tensor, actions: Tensor) -> None:
        own = torch.arange(run.start, run.stop, device=seen.device)
        self._inputs = self._critic.inputs(own, seen, [actions], own_asked=True)

    def forward(self, rows: Tensor) -> Tensor:
        assert self._inputs is not None
        return self._critic.forward(self._views(rows), self._inputs)[0]

    def backward(self, rows: Tensor, q_gradient: Tensor, out: Tensor) -> None:
        assert self._inputs is not None
        self._critic.backward(self._views(rows), self._inputs, q_gradient.unsqueeze(0), self._views(out))


class AttentionValues(OwnValues):
    """See `OwnAttentionCritic`; ``logit_decay`` is the weight of the squared attention logits."""

    def __init__(self, shape: AttentionShape, logit_decay: float) -> None:
        self._critic = OwnAttentionCritic(shape)
        self._logit_decay = logit_decay
        self._own = 0
        self._inputs: list[Tensor] = []
        self._done: Answered | None = None
        self._views = RowViews(shape.arrays)

    def look(self, run: slice, seen: Tensor, actions: Tensor) -> None:
        shape = self._critic.shape
        self._own = run.start
        self._inputs = self._critic.inputs(observed_by_group(shape, seen), entered(shape, actions, seen))

    def forward(self, rows: Tensor) -> Tensor:
        self._done = self._critic.forward(self._views(rows), self._inputs, self._own)
        return self._done.q

    def backward(self, rows: Tensor, q_gradient: Tensor, out: Tensor) -> None:
        assert self._done is not None
        shape = self._critic.shape
        decay = 2.0 * self._logit_decay / (q_gradient.shape[1] * (shape.n_agents - 1))
        out.zero_()
        arrays, into = self._views(rows), self._views(out)
        self._critic.backward(arrays, self._inputs, self._own, self._done, q_gradient, decay, into)
