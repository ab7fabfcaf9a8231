"""MAAC's attention critic where each critic answers for one agent alone: every device has its own.

The function is that of `f2a2_sim.learners.attention`, and so are the symbols; the order of the products is
another. With one question instead of n, a head's logits

    l_j = <W_s s, W_k e_j> = <u, e_j>,   u = W_k^T W_s s

need no keys: u is one product for the question instead of one for each of the n agents, which saves a third
of a pass. Critic c answers for agent ``own + c``; the leading axis of every array is the critic.

On a CPU each critic is computed by itself, see `f2a2_sim.learners.joint.lone_attention`; all of them at once,
as here, is for GPUs, where the own agent is masked among those attended to.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners import lone
from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.joint.lone_attention import (
    LoneArrays,
    LoneAttention,
    LonePass,
    Looked,
    rows_of,
)
from f2a2_sim.learners.products import LEAK, product, through_leak

PART = 2048
"""Transitions that a CPU computes at once: more of them need fewer calls, but more memory."""


@dataclass(frozen=True)
class Answered:
    """A forward pass: the own action values, and what the backward pass needs."""

    q: Tensor  # [C, batch, actions]
    together: _Together | None  # all critics at once
    alone: list[list[LonePass]]  # or by part of the batch, and by critic
    variants: int = 1


@dataclass(frozen=True)
class _Together:
    """What the backward pass needs of all critics at once."""

    logits: Tensor  # [C, batch, heads, n], unscaled, 0 for the own agent
    weights: Tensor  # after the softmax [n, C, batch, heads]
    encoded: Tensor  # e [C, n, batch, hidden]
    values: Tensor  # [C, n, batch, hidden], the heads side by side
    state_and_others: Tensor  # [s, x] [C, batch, 2 hidden]
    selectors: Tensor  # W_s s [C, batch, hidden], the heads side by side
    asked: Tensor  # u [C, heads, batch, hidden]
    hidden: Tensor  # [C, batch, hidden]


class OwnAttentionCritic:
    """The arithmetic of neighbouring devices' critics of one shape; parameters and gradients are theirs.

    `CriticArrays` should stay the same from pass to pass: views of them are made once, so that threads need a
    critic each.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self._lone = LoneAttention(shape)
        self._lone_arrays: dict[tuple[int, int], tuple[CriticArrays, list[LoneArrays]]] = {}

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

    def forward(
        self, parameters: CriticArrays, inputs: list[Tensor], own: int, variants: int = 1
    ) -> Answered:
        """Values of the own actions of agents ``own``, ``own + 1``, ... for ``inputs``.

        Their batch may be that of ``variants`` one behind the other, in which all observations are the same.
        """
        if not lone.computed_alone(inputs[0]):
            return self._forward(parameters, inputs, own)
        q, passes = [], []
        for rows in _parts(inputs[0].shape[2], variants):
            answers = [
                self._lone.forward(arrays, Looked.of(self.shape, inputs, c, own + c, rows, variants))
                for c, arrays in enumerate(self._by_critic(parameters, own))
            ]
            of_part = torch.stack([values for values, _ in answers])
            q.append(torch.unflatten(of_part, 1, (variants, -1)))
            passes.append([done for _, done in answers])
        whole = q[0] if len(q) == 1 else torch.cat(q, dim=2)
        return Answered(whole.flatten(1, 2), None, passes, variants)

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

        Added is that of ``logit_decay`` / 2 times the sum of all squared unscaled logits. Columns that do not
        concern the agent that a critic answers for are left as they are, or 0: 0 in a fresh gradient.
        """
        if done.together is not None:
            self._backward(parameters, inputs, own, done.together, q_gradient, logit_decay, out)
            return
        by_critic = zip(self._by_critic(parameters, own), self._by_critic(out, own), strict=True)
        for c, (arrays, into) in enumerate(by_critic):
            parts = zip(_parts(q_gradient.shape[1], done.variants), done.alone, strict=True)
            for number, (rows, passes) in enumerate(parts):
                gradient = rows_of(q_gradient[c], rows, done.variants)
                self._lone.backward(arrays, passes[c], gradient, logit_decay, into, first=number == 0)

    def _by_critic(self, arrays: CriticArrays, own: int) -> list[LoneArrays]:
        key = (id(arrays), own)
        if key not in self._lone_arrays:
            critics = range(len(arrays.selector))
            self._lone_arrays[key] = arrays, [LoneArrays.of(self.shape, arrays, c, own + c) for c in critics]
        return self._lone_arrays[key][1]

    def _forward(self, parameters: CriticArrays, inputs: list[Tensor], own: int) -> Answered:
        shape = self.shape
        copies, _, batch, _ = inputs[0].shape
        width = shape.hidden

        groups = zip(inputs, parameters.encoders, strict=True)
        encoded = leaky(torch.cat([seen @ weight for seen, weight in groups], dim=1))
        state = []
        for c in range(copies):
            g, member = shape.places[own + c]
            state.append(inputs[g][c, member, :, shape.n_actions :] @ parameters.states[g][c, member])
        both = inputs[0].new_empty(copies, batch, 2 * width)
        both[..., :width] = leaky(torch.stack(state))

        selectors = both[..., :width] @ parameters.selector
        asked = self._heads(selectors).transpose(1, 2) @ self._key(parameters).mT
        logits = asked.transpose(1, 2) @ encoded.permute(0, 2, 3, 1)
        logits = logits.masked_fill_(self._own_seen(own, copies, logits.device), 0.0)
        in_front = (logits.permute(3, 0, 1, 2) / sqrt(shape.head_width)).contiguous()
        in_front[own : own + copies].diagonal(dim1=0, dim2=1).fill_(-torch.inf)
        weights = torch.softmax(in_front, dim=0)
        bias = parameters.value_bias.unsqueeze(1)
        values = product(encoded.flatten(1, 2), parameters.value, bias, leaky=True).view_as(encoded)
        weighed = weights.transpose(0, 1).unsqueeze(-1) * self._heads(values)
        both[..., width:] = weighed.sum(dim=1).flatten(-2)

        bias = self._answering(parameters.head_bias, own).unsqueeze(1)
        hidden = product(both, self._answering(parameters.head, own), bias, leaky=True)
        bias = self._answering(parameters.output_bias, own).unsqueeze(1)
        q = product(hidden, self._answering(parameters.output, own), bias)
        return Answered(q, _Together(logits, weights, encoded, values, both, selectors, asked, hidden), [])

    def _backward(
        self,
        parameters: CriticArrays,
        inputs: list[Tensor],
        own: int,
        done: _Together,
        q_gradient: Tensor,
        logit_decay: float,
        out: CriticArrays,
    ) -> None:
        shape, width, d = self.shape, self.shape.hidden, self.shape.head_width
        copies, _, batch, _ = done.encoded.shape

        self._answering(out.output, own).copy_(done.hidden.mT @ q_gradient)
        self._answering(out.output_bias, own).copy_(q_gradient.sum(dim=1))
        g_hidden = through_leak(q_gradient @ self._answering(parameters.output, own).mT, done.hidden)
        self._answering(out.head, own).copy_(done.state_and_others.mT @ g_hidden)
        self._answering(out.head_bias, own).copy_(g_hidden.sum(dim=1))
        g_both = g_hidden @ self._answering(parameters.head, own).mT
        g_state, g_others = g_both[..., :width], self._heads(g_both[..., width:].unsqueeze(1))

        # The values and the weights they were added up with.
        g_weights = (self._heads(done.values) * g_others).sum(dim=-1).transpose(0, 1)  # [n, C, batch, heads]
        g_values = (done.weights.transpose(0, 1).unsqueeze(-1) * g_others).flatten(-2)
        through_leak(g_values, done.values)
        out.value.copy_(done.encoded.flatten(1, 2).mT @ g_values.flatten(1, 2))
        out.value_bias.copy_(g_values.flatten(1, 2).sum(dim=1))

        # The logits, and through them the question and what all have encoded.
        g_logits = torch._softmax_backward_data(g_weights, done.weights, 0, g_weights.dtype)
        g_logits = torch.add(g_logits.permute(1, 2, 3, 0) / sqrt(d), done.logits, alpha=logit_decay)
        g_asked = (g_logits @ done.encoded.transpose(1, 2)).transpose(1, 2)  # [C, heads, batch, hidden]
        g_selectors = (g_asked @ self._key(parameters)).transpose(1, 2).reshape(copies, batch, width)
        self._key(out).copy_(g_asked.mT @ self._heads(done.selectors).transpose(1, 2))
        g_encoded = (g_values.flatten(1, 2) @ parameters.value.mT).view_as(g_values)
        g_encoded.transpose(1, 2).add_(g_logits.mT @ done.asked.transpose(1, 2))
        through_leak(g_encoded, done.encoded)

        state = done.state_and_others[..., :width]
        out.selector.copy_(state.mT @ g_selectors)
        g_question = through_leak((g_selectors @ parameters.selector.mT).add_(g_state), state)
        for c in range(copies):
            g, member = shape.places[own + c]
            seen = inputs[g][c, member, :, shape.n_actions :]
            out.states[g][c, member] = seen.mT @ g_question[c]
        for group, seen, weight in zip(shape.groups, inputs, out.encoders, strict=True):
            weight.copy_(seen.mT @ g_encoded[:, group.agents])

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


def _parts(rows: int, variants: int) -> list[slice]:
    """Parts of the batch of each variant, of which ``rows`` has as many."""
    batch, part = rows // variants, max(1, PART // variants)
    return [slice(begin, begin + part) for begin in range(0, batch, part)]


def leaky(values: Tensor) -> Tensor:
    """A leaky ReLU in place."""
    return torch.nn.functional.leaky_relu_(values, LEAK)
