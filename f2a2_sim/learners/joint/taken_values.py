"""Critics that are asked for the value of one joint action, Q_j^i(o, a), twin by twin (F2A2-DDPG, F2A2-TD3).

``critic: perceptron`` reads the joint action (`f2a2_sim.learners.joint.mlp_critic`). ``critic: attention`` is
MAAC's (`f2a2_sim.learners.joint.own_attention`), which puts out the values of all own actions: with a^i as a
vector Q^i(o, a) = <a^i, Q^i(o, (., a^-i))>, which is the entry of what was done, and is linear in a^i: its
gradient by the own action is that vector of values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from f2a2_sim.learners.joint.attention_twins import AttentionTwins, entered, observed_by_group
from f2a2_sim.learners.joint.mlp_critic import JointInputLayout, JointInputs, JointMlpCritic
from f2a2_sim.learners.joint.own_attention import Answered, OwnAttentionCritic
from f2a2_sim.learners.stacked import MlpShape, RowViews


class TakenValues(ABC):
    """Passes of a block of neighbouring agents' critics; buffers are reused, so threads need one each.

    What `look` was given last is asked for in *variants*, joint actions at the same observations: all of them
    or one. `backward` and `own_action_gradient` belong to the `forward` before them.
    """

    @abstractmethod
    def look(self, run: slice, seen: Tensor, variants: Sequence[Tensor]) -> None:
        """What agents ``run`` see of all ``[b, n, batch, size]``; joint actions int64 ``[b, n, batch]``."""

    @abstractmethod
    def forward(self, rows: Tensor, variant: int | None = None) -> Tensor:
        """Values ``[twins, b, m * batch]`` of all m variants, or of one, by the critics in ``rows``
        ``[b, size]``."""

    @abstractmethod
    def backward(self, rows: Tensor, q_gradient: Tensor, out: Tensor) -> None:
        """Write to ``out`` ``[b, size]`` the gradient for dL/dQ ``[twins, b, m * batch]``."""

    @abstractmethod
    def own_action_gradient(self, rows: Tensor, q_gradient: Tensor) -> Tensor:
        """dL/da^i ``[b, m * batch, actions]`` for dL/dQ as in `backward`; of parameters no gradient."""


class PerceptronTaken(TakenValues):
    """See `JointMlpCritic`."""

    def __init__(self, layout: JointInputLayout, shape: MlpShape) -> None:
        self._critic = JointMlpCritic(layout, shape)
        self._own = torch.empty(0)
        self._looked: JointInputs | None = None
        self._asked: JointInputs | None = None
        self._views = RowViews(shape.arrays)

    def look(self, run: slice, seen: Tensor, variants: Sequence[Tensor]) -> None:
        self._own = torch.arange(run.start, run.stop, device=seen.device)
        self._looked = self._critic.inputs(self._own, seen, variants)

    def forward(self, rows: Tensor, variant: int | None = None) -> Tensor:
        assert self._looked is not None
        self._asked = self._looked if variant is None else self._looked.variant(variant)
        return self._critic.forward(self._views(rows), self._asked).squeeze(-1)

    def backward(self, rows: Tensor, q_gradient: Tensor, out: Tensor) -> None:
        assert self._asked is not None
        self._critic.backward(self._views(rows), self._asked, q_gradient.unsqueeze(-1), self._views(out))

    def own_action_gradient(self, rows: Tensor, q_gradient: Tensor) -> Tensor:
        assert self._asked is not None
        gradient = q_gradient.unsqueeze(-1)
        return self._critic.own_action_gradient(self._views(rows), self._asked, self._own, gradient)


class AttentionTaken(TakenValues):
    """See `OwnAttentionCritic`; ``logit_decay`` is the weight of the squared attention logits."""

    def __init__(self, twins: AttentionTwins, logit_decay: float) -> None:
        self._twins = twins
        self._critics = [OwnAttentionCritic(twins.shape) for _ in range(twins.twins)]
        self._logit_decay = logit_decay
        self._own = 0
        self._batch = 0
        self._looked: list[Tensor] = []
        self._actions = torch.empty(0)  # int64 [b, all variants' batches, 1], what the own agents did
        self._asked: list[Tensor] = []
        self._taken = torch.empty(0)
        self._done: list[Answered] = []
        self._views = RowViews(lambda rows: [twins.arrays(rows, twin) for twin in range(twins.twins)])

    def look(self, run: slice, seen: Tensor, variants: Sequence[Tensor]) -> None:
        shape = self._twins.shape
        self._own, self._batch = run.start, seen.shape[2]
        observed = observed_by_group(shape, seen)
        if len(variants) > 1:
            observed = [x.repeat(1, 1, len(variants), 1) for x in observed]
        actions = torch.cat([entered(shape, chosen, seen) for chosen in variants], dim=2)
        self._looked = self._critics[0].inputs(observed, actions)
        done = [chosen[:, run].diagonal(dim1=0, dim2=1).movedim(-1, 0) for chosen in variants]
        self._actions = torch.cat(done, dim=1).unsqueeze(-1)

    def forward(self, rows: Tensor, variant: int | None = None) -> Tensor:
        first = 0 if variant is None else variant * self._batch
        part = slice(first, None if variant is None else first + self._batch)
        self._asked, self._taken = [x[:, :, part] for x in self._looked], self._actions[:, part]
        self._done = [
            critic.forward(arrays, self._asked, self._own, self._taken.shape[1] // self._batch)
            for critic, arrays in zip(self._critics, self._views(rows), strict=True)
        ]
        return torch.stack([done.q.gather(-1, self._taken).squeeze(-1) for done in self._done])

    def backward(self, rows: Tensor, q_gradient: Tensor, out: Tensor) -> None:
        decay = 2.0 * self._logit_decay / (q_gradient.shape[2] * (self._twins.shape.n_agents - 1))
        out.zero_()
        into = self._views(out)
        for twin, (critic, arrays) in enumerate(zip(self._critics, self._views(rows), strict=True)):
            done = self._done[twin]
            of_values = torch.zeros_like(done.q).scatter_(-1, self._taken, q_gradient[twin].unsqueeze(-1))
            critic.backward(arrays, self._asked, self._own, done, of_values, decay, into[twin])

    def own_action_gradient(self, rows: Tensor, q_gradient: Tensor) -> Tensor:
        values = torch.stack([done.q for done in self._done])
        return (values * q_gradient.unsqueeze(-1)).sum(dim=0)
