"""One device's attention critic on a CPU, agent by agent: what is read next is still in the cache.

The function and the symbols are those of `f2a2_sim.learners.joint.own_attention`, which computes the same for
all agents at once, as GPUs like it. Here what the agent itself sees and does, to which it does not attend, is
left out, instead of being computed and masked; and where a critic is asked about several *variants*, joint
actions at the same observations, what it makes of the own observation, s, W_s s, u and the part of H [s, x]
that is due to s, is computed once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.products import LEAK, linear, through_leak, write_transposed


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
    """What one critic reads of a part of the batch, v variants of it, one behind the other."""

    others: list[Tensor]  # what each of them sees and does [v * part, actions + observation + 1]
    state: Tensor  # what the agent itself sees [part, observation + 1]

    @staticmethod
    def of(
        shape: AttentionShape, inputs: list[Tensor], critic: int, agent: int, rows: slice, variants: int
    ) -> Looked:
        """``rows`` of the batch, of inputs by group ``[C, group, v * batch, actions + observation + 1]``."""
        group, member = shape.places[agent]
        others = [rows_of(inputs[g][critic, j], rows, variants) for g, j in shape.others(agent)]
        own = inputs[group][critic, member, :, shape.n_actions :]
        return Looked(others, own[: len(own) // variants][rows])


@dataclass(frozen=True)
class LonePass:
    """What the backward pass needs; m is the number of the others, ``rows`` are v * part."""

    looked: Looked
    logits: Tensor  # [rows, heads, m], unscaled
    weights: Tensor  # after the softmax [m, rows, heads]
    encoded: Tensor  # e [m, rows, hidden]
    values: list[Tensor]  # of each of the others [rows, hidden], the heads side by side
    state: Tensor  # s [part, hidden]
    others: Tensor  # x [rows, hidden]
    selectors: Tensor  # W_s s [part, hidden], the heads side by side
    asked: Tensor  # u [heads, part, hidden]
    hidden: Tensor  # [rows, hidden]


class LoneAttention:
    """The arithmetic of one critic."""

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape

    def forward(self, parameters: LoneArrays, looked: Looked) -> tuple[Tensor, LonePass]:
        """Values of the own actions ``[rows, actions]``."""
        shape, width, like = self.shape, self.shape.hidden, looked.state
        part, rows, m = len(like), len(looked.others[0]), len(looked.others)
        encoded = like.new_empty(m, rows, width)
        values: list[Tensor] = []
        for into, seen, weight in zip(encoded, looked.others, parameters.encoders, strict=True):
            of_other = linear(seen, weight, leaky=True)
            into.copy_(of_other)
            values.append(linear(of_other, parameters.value, parameters.value_bias, leaky=True))
        state = linear(looked.state, parameters.state, leaky=True)
        selectors = linear(state, parameters.selector)
        asked = like.new_empty(shape.heads, part, width)
        torch.bmm(self._heads(selectors).transpose(0, 1), parameters.key.mT, out=asked)
        logits = like.new_empty(rows, shape.heads, m)
        v = rows // part
        for into, of_others in zip(logits.chunk(v), encoded.chunk(v, dim=1), strict=True):
            torch.bmm(asked.transpose(0, 1), of_others.permute(1, 2, 0), out=into)
        weights = (logits.permute(2, 0, 1) / sqrt(shape.head_width)).contiguous().softmax(dim=0)
        weighed = [
            (weight.unsqueeze(-1), self._heads(value)) for weight, value in zip(weights, values, strict=True)
        ]
        others = torch.mul(*weighed[0])
        for weight, value in weighed[1:]:
            others.addcmul_(weight, value)
        others = others.view(rows, width)

        hidden = linear(others, parameters.head[width:])
        hidden.view(v, part, width).add_(linear(state, parameters.head[:width], parameters.head_bias))
        torch.nn.functional.leaky_relu_(hidden, LEAK)
        q = linear(hidden, parameters.output, parameters.output_bias)
        return q, LonePass(looked, logits, weights, encoded, values, state, others, selectors, asked, hidden)

    def backward(
        self,
        parameters: LoneArrays,
        done: LonePass,
        q_gradient: Tensor,
        logit_decay: float,
        out: LoneArrays,
        first: bool,
    ) -> None:
        """Write to ``out``, or from the second part on add to it, the gradient for dL/dQ ``[rows, actions]``.

        Added is that of ``logit_decay`` / 2 times the sum of the squared unscaled logits.
        """
        width, d = self.shape.hidden, self.shape.head_width
        m, rows, _ = done.encoded.shape
        part = len(done.state)
        v = rows // part

        write_transposed(done.hidden, q_gradient, out.output, add=not first)
        _sum(out.output_bias, q_gradient.sum(dim=0), first)
        g_hidden = through_leak(linear(q_gradient, parameters.output.mT), done.hidden)
        write_transposed(done.others, g_hidden, out.head[width:], add=not first)
        g_others = self._heads(linear(g_hidden, parameters.head[width:].mT))
        g_hidden = g_hidden.view(v, part, width).sum(dim=0)  # all variants have the same s
        write_transposed(done.state, g_hidden, out.head[:width], add=not first)
        _sum(out.head_bias, g_hidden.sum(dim=0), first)
        g_state = linear(g_hidden, parameters.head[:width].mT)

        # The weights of the values, the logits, and through them the question.
        g_weights = torch.empty_like(done.weights)
        product = q_gradient.new_empty(rows, width)
        in_heads = self._heads(product)
        for value, into in zip(done.values, g_weights, strict=True):
            torch.mul(self._heads(value), g_others, out=in_heads)
            torch.sum(in_heads, dim=-1, out=into)
        g_logits = torch._softmax_backward_data(g_weights, done.weights, 0, g_weights.dtype)
        g_logits = torch.add(g_logits.permute(1, 2, 0) / sqrt(d), done.logits, alpha=logit_decay)
        by_row = q_gradient.new_empty(part, self.shape.heads, width)
        variants = zip(g_logits.chunk(v), done.encoded.chunk(v, dim=1), strict=True)
        for k, (gradient, of_others) in enumerate(variants):
            torch.baddbmm(by_row, gradient, of_others.transpose(0, 1), beta=float(k > 0), out=by_row)
        by_other = g_logits.permute(2, 1, 0).contiguous()  # [m, heads, rows]
        by_other = by_other.view(m, self.shape.heads, v, part, 1)
        g_asked = by_row.transpose(0, 1)  # [heads, part, hidden]
        g_selectors = torch.bmm(g_asked, parameters.key).transpose(0, 1).reshape(part, width)
        _sum(out.key, torch.bmm(self._heads(done.selectors).permute(1, 2, 0), g_asked).mT, first)

        write_transposed(done.state, g_selectors, out.selector, add=not first)
        g_question = through_leak(linear(g_selectors, parameters.selector.mT).add_(g_state), done.state)
        write_transposed(done.looked.state, g_question, out.state, add=not first)

        # The values, and what the others' encoders made of them and of the question.
        for j, (seen, encoded, value) in enumerate(
            zip(done.looked.others, done.encoded, done.values, strict=True)
        ):
            torch.mul(done.weights[j].unsqueeze(-1), g_others, out=in_heads)
            through_leak(product, value)
            write_transposed(encoded, product, out.value, add=not first or j > 0)
            _sum(out.value_bias, product.sum(dim=0), first and j == 0)
            g_encoded = linear(product, parameters.value.mT)
            by_variant = g_encoded.view(v, part, width)
            for question, weight in zip(done.asked, by_other[j], strict=True):
                by_variant.addcmul_(question, weight)
            through_leak(g_encoded, encoded)
            write_transposed(seen, g_encoded, out.encoders[j], add=not first)

    def _heads(self, array: Tensor) -> Tensor:
        """``[..., hidden]`` -> ``[..., heads, d]``, a view."""
        return array.view(*array.shape[:-1], self.shape.heads, self.shape.head_width)


def rows_of(values: Tensor, rows: slice, variants: int) -> Tensor:
    """``[v * batch, ...]`` -> ``[v * part, ...]``: some rows of every variant's batch."""
    return torch.unflatten(values, 0, (variants, -1))[:, rows].flatten(0, 1)


def _sum(into: Tensor, contribution: Tensor, first: bool) -> None:
    if first:
        into.copy_(contribution)
    else:
        into.add_(contribution)
