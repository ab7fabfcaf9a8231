"""MAAC's attention critic where each critic answers for one agent alone: every device has its own.

The function is that of `f2a2_sim.learners.attention`, and so are the symbols; the order of the products is
another. With one question instead of n, a head's logits

    l_j = <W_s s, W_k e_j> = <u, e_j>,   u = W_k^T W_s s

need no keys: u is one product for the question instead of one for each of the n agents, which saves a third
of a pass. Critic c answers for agent ``own + c``; the leading axis of every array is the critic.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.products import (
    LEAK,
    by_agent,
    linear,
    linear_transposed,
    multiply,
    product,
    through_leak,
)

PART = 2048
"""Transitions that are computed at once: more of them need fewer calls, but more memory."""


@dataclass(frozen=True)
class _Part:
    """What the backward pass needs of a part of the batch."""

    rows: slice  # along the batch
    logits: Tensor  # [C, part, heads, n], unscaled, 0 for the own agent
    weights: Tensor  # after the softmax [n, C, part, heads]
    encoded: Tensor  # e [C, n, part, hidden]
    values: Tensor  # [C, n, part, hidden], the heads side by side
    state_and_others: Tensor  # [s, x] [C, part, 2 hidden]
    selectors: Tensor  # W_s s [C, part, hidden], the heads side by side
    asked: Tensor  # u [C, heads, part, hidden]
    hidden: Tensor  # [C, part, hidden]


@dataclass(frozen=True)
class Answered:
    """A forward pass: the own action values, and its parts."""

    q: Tensor  # [C, batch, actions]
    parts: list[_Part]


class OwnAttentionCritic:
    """The arithmetic of neighbouring devices' critics of one shape; parameters and gradients are theirs.

    Large activations lie in buffers that the next pass overwrites: a backward pass follows its forward pass,
    and threads need a critic each.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self._buffers: dict[tuple[str, int, tuple[int, ...], torch.dtype], Tensor] = {}

    def inputs(self, observations: list[Tensor], actions: Tensor) -> list[Tensor]:
        """What the encoders read, by group: ``[C, group, batch, actions + size + 1]``.

        From standardised observations, by group ``[C, group, batch, size]``, and standardised one-hot
        actions ``[C, n, batch, actions]``.
        """
        a = self.shape.n_actions
        joined = []
        for group, seen in zip(self.shape.groups, observations, strict=True):
            whole = seen.new_empty(*seen.shape[:-1], a + group.observation_size + 1)
            whole[..., :a] = actions[:, group.agents]
            whole[..., a:-1] = seen
            whole[..., -1] = 1.0
            joined.append(whole)
        return joined

    def forward(self, parameters: CriticArrays, inputs: list[Tensor], own: int) -> Answered:
        """Values of the own actions of agents ``own``, ``own + 1``, ... for ``inputs``."""
        batch = inputs[0].shape[2]
        size = PART if inputs[0].device.type == "cpu" else batch
        q, parts = [], []
        for number, first in enumerate(range(0, batch, size)):
            values, part = self._forward(parameters, inputs, own, number, slice(first, first + size))
            q.append(values)
            parts.append(part)
        return Answered(q[0] if len(q) == 1 else torch.cat(q, dim=1), parts)

    def _forward(
        self, parameters: CriticArrays, inputs: list[Tensor], own: int, number: int, rows: slice
    ) -> tuple[Tensor, _Part]:
        shape = self.shape
        inputs = [seen[:, :, rows] for seen in inputs]
        copies, _, batch, _ = inputs[0].shape
        n, width, d = shape.n_agents, shape.hidden, shape.head_width

        def buffer(name: str, *size: int) -> Tensor:
            return self._buffer(name, number, (copies, *size), inputs[0])

        encoded = buffer("encoded", n, batch, width)
        for group, seen, weight in zip(shape.groups, inputs, parameters.encoders, strict=True):
            _multiply(seen, weight, encoded[:, group.agents], leaky=True)
        both = buffer("both", batch, 2 * width)
        state = both[..., :width]
        for critic in range(copies):
            g, member = self._place(own + critic)
            seen = inputs[g][critic, member, :, shape.n_actions :]
            state[critic] = linear(seen, parameters.states[g][critic, member], leaky=True)

        selectors = product(state, parameters.selector)
        asked = buffer("asked", shape.heads, batch, width)
        _stacked(self._heads(selectors).transpose(1, 2), self._key(parameters).mT, asked)
        logits = asked.transpose(1, 2) @ encoded.permute(0, 2, 3, 1)
        logits = logits.masked_fill_(self._own_seen(own, copies, logits.device), 0.0)
        in_front = (logits.permute(3, 0, 1, 2) / sqrt(d)).contiguous()
        in_front[own : own + copies].diagonal(dim1=0, dim2=1).fill_(-torch.inf)
        weights = torch.softmax(in_front, dim=0)
        weighed, bias = buffer("weighed", n, batch, width), parameters.value_bias.unsqueeze(1)
        values = product(encoded.flatten(1, 2), parameters.value, bias, leaky=True).view_as(encoded)
        torch.mul(weights.transpose(0, 1).unsqueeze(-1), self._heads(values), out=self._heads(weighed))
        torch.sum(weighed, dim=1, out=both[..., width:])

        bias = self._answering(parameters.head_bias, own).unsqueeze(1)
        hidden = product(both, self._answering(parameters.head, own), bias, leaky=True)
        bias = self._answering(parameters.output_bias, own).unsqueeze(1)
        q = product(hidden, self._answering(parameters.output, own), bias)
        return q, _Part(rows, logits, weights, encoded, values, both, selectors, asked, hidden)

    def backward(
        self,
        parameters: CriticArrays,
        inputs: list[Tensor],
        own: int,
        done: Answered,
        q_gradient: Tensor,
        logit_decay: float,
        out: CriticArrays,
    ) -> None:
        """Write to ``out`` the gradient of a loss with dL/dQ = ``q_gradient`` ``[C, batch, actions]``.

        Added is that of ``logit_decay`` / 2 times the sum of all squared unscaled logits. Columns of agents
        that a critic does not answer for are left as they are: 0 in a fresh gradient.
        """
        for number, part in enumerate(done.parts):
            seen = [x[:, :, part.rows] for x in inputs]
            gradient = q_gradient[:, part.rows]
            self._backward(parameters, seen, own, part, gradient, logit_decay, out, _Sum(number))

    def _backward(
        self,
        parameters: CriticArrays,
        inputs: list[Tensor],
        own: int,
        done: _Part,
        q_gradient: Tensor,
        logit_decay: float,
        out: CriticArrays,
        add: _Sum,
    ) -> None:
        shape, width, d = self.shape, self.shape.hidden, self.shape.head_width
        copies, n, batch, _ = done.encoded.shape

        def buffer(name: str, *size: int) -> Tensor:
            return self._buffer(name, 0, (copies, *size), q_gradient)

        add.product(self._answering(out.output, own), done.hidden, q_gradient)
        add(self._answering(out.output_bias, own), q_gradient.sum(dim=1))
        g_hidden = product(q_gradient, self._answering(parameters.output, own).mT)
        through_leak(g_hidden, done.hidden)
        add.product(self._answering(out.head, own), done.state_and_others, g_hidden)
        add(self._answering(out.head_bias, own), g_hidden.sum(dim=1))
        g_both = product(g_hidden, self._answering(parameters.head, own).mT)
        g_state, g_others = g_both[..., :width], self._heads(g_both[..., width:].unsqueeze(1))

        # The values and the weights they were added up with.
        g_values = buffer("weighed", n, batch, width)
        torch.mul(self._heads(done.values), g_others, out=self._heads(g_values))
        g_weights = self._heads(g_values).sum(dim=-1).transpose(0, 1)  # [n, C, part, heads]
        of_agents = done.weights.transpose(0, 1).unsqueeze(-1)
        torch.mul(of_agents, g_others, out=self._heads(g_values))
        through_leak(g_values, done.values)
        add.product(out.value, done.encoded.flatten(1, 2), g_values.flatten(1, 2))
        add(out.value_bias, g_values.flatten(1, 2).sum(dim=1))

        # The logits, and through them the question and what all have encoded.
        g_logits = torch._softmax_backward_data(g_weights, done.weights, 0, g_weights.dtype)
        g_logits = torch.add(g_logits.permute(1, 2, 3, 0) / sqrt(d), done.logits, alpha=logit_decay)
        g_asked = (g_logits @ done.encoded.transpose(1, 2)).transpose(1, 2)  # [C, heads, part, hidden]
        g_selectors = (g_asked @ self._key(parameters)).transpose(1, 2).reshape(copies, batch, width)
        add(self._key(out), g_asked.mT @ self._heads(done.selectors).transpose(1, 2))
        g_encoded = product(g_values.flatten(1, 2), parameters.value.mT).view_as(g_values)
        through_logits = buffer("through_logits", batch, n, width)
        _stacked(g_logits.mT, done.asked.transpose(1, 2), through_logits)
        g_encoded.transpose(1, 2).add_(through_logits)
        through_leak(g_encoded, done.encoded)

        state = done.state_and_others[..., :width]
        add.product(out.selector, state, g_selectors)
        g_question = product(g_selectors, parameters.selector.mT).add_(g_state)
        through_leak(g_question, state)
        for critic in range(copies):
            g, member = self._place(own + critic)
            seen = inputs[g][critic, member, :, shape.n_actions :]
            add.product(out.states[g][critic, member][None], seen[None], g_question[critic][None])
        for group, seen, weight in zip(shape.groups, inputs, out.encoders, strict=True):
            for member in range(group.count):
                add.product(weight[:, member], seen[:, member], g_encoded[:, group.first + member])

    def _place(self, agent: int) -> tuple[int, int]:
        """An agent's group, and its place in it."""
        for g, group in enumerate(self.shape.groups):
            if group.first <= agent < group.stop:
                return g, agent - group.first
        raise IndexError(agent)

    def _answering(self, array: Tensor, own: int) -> Tensor:
        """The part ``[C, ...]`` of ``[C, n, ...]`` that belongs to the critics' own agents, as a view."""
        return array[:, own : own + array.shape[0]].diagonal(dim1=0, dim2=1).movedim(-1, 0)

    def _key(self, arrays: CriticArrays) -> Tensor:
        """W_k by head ``[C, heads, hidden, d]``, a view."""
        return self._heads(arrays.key).transpose(1, 2)

    def _heads(self, array: Tensor) -> Tensor:
        """``[..., hidden]`` -> ``[..., heads, d]``, a view."""
        return array.view(*array.shape[:-1], self.shape.heads, self.shape.head_width)

    def _own_seen(self, own: int, copies: int, device: torch.device) -> Tensor:
        """Whether an agent would attend to itself: bool ``[C, 1, 1, n]``."""
        same = torch.eye(self.shape.n_agents, dtype=torch.bool, device=device)
        return same[own : own + copies].view(copies, 1, 1, -1)

    def _buffer(self, name: str, number: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory for ``name`` in a part of the batch, the same at every pass of equal size."""
        key = (name, number, shape, like.dtype)
        if key not in self._buffers:
            with torch.inference_mode(False):  # or it could be written in that mode alone
                self._buffers[key] = like.new_empty(shape)
        return self._buffers[key]


class _Sum:
    """Adds up what parts contribute to a gradient; that of ``number`` 0 is written over what is there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, into: Tensor, contribution: Tensor) -> None:
        if self.number == 0:
            into.copy_(contribution)
        else:
            into.add_(contribution)

    def product(self, into: Tensor, left: Tensor, right: Tensor) -> None:
        """``left^T right`` of ``[C, m, k]`` and ``[C, m, n]``."""
        for c in range(left.shape[0] if by_agent(left) else 0):
            _Sum(self.number)(into[c], linear_transposed(left[c], right[c]))
        if not by_agent(left):
            self(into, left.mT @ right)


def _stacked(left: Tensor, right: Tensor, out: Tensor) -> None:
    """``left @ right`` of ``[C, k, ., .]`` into ``out``, which is dense."""
    torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=out.flatten(0, 1))


def _multiply(left: Tensor, right: Tensor, out: Tensor, leaky: bool = False) -> None:
    """``left @ right`` ``[C, k, ., .]`` into ``out``, then a leaky ReLU if ``leaky``."""
    if left.shape[0] == 1 or by_agent(left):
        for c in range(left.shape[0]):
            multiply(left[c], right[c], out[c], leaky=leaky)
        return
    out.copy_(left @ right)
    if leaky:
        torch.nn.functional.leaky_relu_(out, LEAK)
