"""One device's attention critic on a CPU, agent by agent: what is read next is still in the cache.

The function, the symbols and the order of the products are those of `f2a2_sim.learners.joint.own_attention`,
which computes the same for all agents at once, as GPUs like it. Here what the agent itself sees and does, to
which it does not attend, is left out, instead of being computed and masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.products import linear, through_leak, write_transposed
from f2a2_sim.learners.stacked import Buffers


@dataclass(frozen=True)
class LoneArrays:
    """Views of one critic's parameters, or of its gradient: those that concern the agent it answers for."""

    selector: Tensor  # [hidden, hidden]
    key: Tensor  # by head [heads, hidden, d]
    value: Tensor  # [hidden, hidden]
    value_bias: Tensor  # [hidden]
    encoders: list[Tensor]  # of the others, in their order [actions + observation + 1, hidden]
    state: Tensor  # [observation + 1, hidden]
    head: Tensor  # [2 hidden, hidden]
    head_bias: Tensor  # [hidden]
    output: Tensor  # [hidden, actions]
    output_bias: Tensor  # [actions]

    @staticmethod
    def of(shape: AttentionShape, arrays: CriticArrays, critic: int, agent: int) -> LoneArrays:
        """Those of row ``critic`` for ``agent``."""
        group, member = shape.places[agent]
        return LoneArrays(
            arrays.selector[critic],
            torch.unflatten(arrays.key[critic], -1, (shape.heads, -1)).transpose(0, 1),
            arrays.value[critic],
            arrays.value_bias[critic],
            [arrays.encoders[g][critic, j] for g, j in shape.others(agent)],
            arrays.states[group][critic, member],
            arrays.head[critic, agent],
            arrays.head_bias[critic, agent],
            arrays.output[critic, agent],
            arrays.output_bias[critic, agent],
        )


@dataclass(frozen=True)
class Looked:
    """What one critic reads of a part of the batch."""

    others: list[Tensor]  # what each of them sees and does [part, actions + observation + 1]
    state: Tensor  # what the agent itself sees [part, observation + 1]

    @staticmethod
    def of(shape: AttentionShape, inputs: list[Tensor], critic: int, agent: int, rows: slice) -> Looked:
        """From inputs by group ``[C, group, batch, actions + observation + 1]``."""
        group, member = shape.places[agent]
        others = [inputs[g][critic, j, rows] for g, j in shape.others(agent)]
        return Looked(others, inputs[group][critic, member, rows, shape.n_actions :])


@dataclass(frozen=True)
class LonePass:
    """What the backward pass needs; m is the number of the others."""

    looked: Looked
    logits: Tensor  # [part, heads, m], unscaled
    weights: Tensor  # after the softmax [m, part, heads]
    encoded: Tensor  # e [m, part, hidden]
    values: list[Tensor]  # of each of the others [part, hidden], the heads side by side
    state_and_others: Tensor  # [s, x] [part, 2 hidden]
    selectors: Tensor  # W_s s [part, hidden], the heads side by side
    asked: Tensor  # u [heads, part, hidden]
    hidden: Tensor  # [part, hidden]


class LoneAttention:
    """The arithmetic of one critic; the next pass of the same ``number`` overwrites its buffers.

    Numbers are of a part of the batch, and of a critic.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self._buffer = Buffers()

    def forward(
        self, parameters: LoneArrays, looked: Looked, number: tuple[int, int]
    ) -> tuple[Tensor, LonePass]:
        """Values of the own actions ``[part, actions]``."""
        shape, width, like = self.shape, self.shape.hidden, looked.state
        batch, m = len(like), len(looked.others)
        encoded = self._buffer(("encoded", number), (m, batch, width), like)
        for into, seen, weight in zip(encoded, looked.others, parameters.encoders, strict=True):
            into.copy_(linear(seen, weight, leaky=True))
        both = self._buffer(("both", number), (batch, 2 * width), like)
        state, others = both[:, :width], self._heads(both[:, width:])
        state.copy_(linear(looked.state, parameters.state, leaky=True))

        selectors = linear(state, parameters.selector)
        asked = self._buffer(("asked", number), (shape.heads, batch, width), like)
        torch.bmm(self._heads(selectors).transpose(0, 1), parameters.key.mT, out=asked)
        logits = torch.bmm(asked.transpose(0, 1), encoded.permute(1, 2, 0))
        weights = (logits.permute(2, 0, 1) / sqrt(shape.head_width)).contiguous().softmax(dim=0)
        values: list[Tensor] = []
        for weight, of_other in zip(weights.unsqueeze(-1), encoded, strict=True):
            value = linear(of_other, parameters.value, parameters.value_bias, leaky=True)
            if values:
                others.addcmul_(weight, self._heads(value))
            else:
                torch.mul(weight, self._heads(value), out=others)
            values.append(value)

        hidden = linear(both, parameters.head, parameters.head_bias, leaky=True)
        q = linear(hidden, parameters.output, parameters.output_bias)
        return q, LonePass(looked, logits, weights, encoded, values, both, selectors, asked, hidden)

    def backward(
        self,
        parameters: LoneArrays,
        done: LonePass,
        q_gradient: Tensor,
        logit_decay: float,
        out: LoneArrays,
        first: bool,
    ) -> None:
        """Write to ``out``, or from the second part on add to it, the gradient for dL/dQ ``[part, actions]``.

        Added is that of ``logit_decay`` / 2 times the sum of the squared unscaled logits.
        """
        width, d = self.shape.hidden, self.shape.head_width
        m, batch, _ = done.encoded.shape

        write_transposed(done.hidden, q_gradient, out.output, add=not first)
        _sum(out.output_bias, q_gradient.sum(dim=0), first)
        g_hidden = through_leak(linear(q_gradient, parameters.output.mT), done.hidden)
        write_transposed(done.state_and_others, g_hidden, out.head, add=not first)
        _sum(out.head_bias, g_hidden.sum(dim=0), first)
        g_both = linear(g_hidden, parameters.head.mT)
        g_state, g_others = g_both[:, :width], self._heads(g_both[:, width:])

        # The values and the weights they were added up with.
        g_weights = torch.empty_like(done.weights)
        g_encoded = []
        product = self._buffer("product", (batch, width), q_gradient)
        in_heads = self._heads(product)
        for j, value in enumerate(done.values):
            torch.mul(self._heads(value), g_others, out=in_heads)
            torch.sum(in_heads, dim=-1, out=g_weights[j])
            torch.mul(done.weights[j].unsqueeze(-1), g_others, out=in_heads)
            through_leak(product, value)
            write_transposed(done.encoded[j], product, out.value, add=not first or j > 0)
            _sum(out.value_bias, product.sum(dim=0), first and j == 0)
            g_encoded.append(linear(product, parameters.value.mT))

        # The logits, and through them the question and what all have encoded.
        g_logits = torch._softmax_backward_data(g_weights, done.weights, 0, g_weights.dtype)
        g_logits = torch.add(g_logits.permute(1, 2, 0) / sqrt(d), done.logits, alpha=logit_decay)
        g_asked = torch.bmm(g_logits, done.encoded.transpose(0, 1)).transpose(0, 1)  # [heads, part, hidden]
        g_selectors = torch.bmm(g_asked, parameters.key).transpose(0, 1).reshape(batch, width)
        _sum(out.key, torch.bmm(g_asked.mT, self._heads(done.selectors).transpose(0, 1)), first)
        through_logits = self._buffer("through_logits", (batch, m, width), q_gradient)
        torch.bmm(g_logits.mT, done.asked.transpose(0, 1), out=through_logits)

        state = done.state_and_others[:, :width]
        write_transposed(state, g_selectors, out.selector, add=not first)
        g_question = through_leak(linear(g_selectors, parameters.selector.mT).add_(g_state), state)
        write_transposed(done.looked.state, g_question, out.state, add=not first)
        for j, (seen, gradient) in enumerate(zip(done.looked.others, g_encoded, strict=True)):
            through_leak(gradient.add_(through_logits[:, j]), done.encoded[j])
            write_transposed(seen, gradient, out.encoders[j], add=not first)

    def _heads(self, array: Tensor) -> Tensor:
        """``[..., hidden]`` -> ``[..., heads, d]``, a view."""
        return array.view(*array.shape[:-1], self.shape.heads, self.shape.head_width)


def _sum(into: Tensor, contribution: Tensor, first: bool) -> None:
    if first:
        into.copy_(contribution)
    else:
        into.add_(contribution)
