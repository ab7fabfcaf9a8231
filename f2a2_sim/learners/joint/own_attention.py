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
from f2a2_sim.learners.products import LEAK

leaky_relu_ = torch.nn.functional.leaky_relu_


@dataclass(frozen=True)
class Answered:
    """A forward pass: the own action values, and what the backward pass needs of it."""

    q: Tensor  # [C, batch, actions]
    logits: Tensor  # [C, heads, batch, n], unscaled, 0 for the own agent
    weights: Tensor  # the same, after the softmax
    encoded: Tensor  # e [C, n, batch, hidden]
    values: Tensor  # [C, n, batch, hidden], the heads side by side
    state_and_others: Tensor  # [s, x] [C, batch, 2 hidden]
    selectors: Tensor  # W_s s [C, heads, batch, d]
    asked: Tensor  # u [C, heads, batch, hidden]
    hidden: Tensor  # [C, batch, hidden]


class OwnAttentionCritic:
    """The arithmetic of neighbouring devices' critics of one shape; parameters and gradients are theirs.

    Large activations lie in buffers that the next pass overwrites: a backward pass follows its forward pass,
    and threads need a critic each.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self._buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}

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
        shape = self.shape
        copies, batch = inputs[0].shape[0], inputs[0].shape[2]
        n, width, d = shape.n_agents, shape.hidden, shape.head_width
        encoded = self._buffer("encoded", (copies, n, batch, width), inputs[0])
        for group, seen, weight in zip(shape.groups, inputs, parameters.encoders, strict=True):
            if copies == 1:
                torch.bmm(seen[0], weight[0], out=encoded[0, group.agents])
            else:
                encoded[:, group.agents] = seen @ weight
        leaky_relu_(encoded, LEAK)
        both = self._buffer("both", (copies, batch, 2 * width), inputs[0])
        state = both[..., :width]
        for critic in range(copies):
            g, member = self._place(own + critic)
            seen = inputs[g][critic, member, :, shape.n_actions :]
            state[critic] = seen @ parameters.states[g][critic, member]
        leaky_relu_(state, LEAK)

        selectors = self._by_head(state @ parameters.selector)
        asked = selectors @ self._key(parameters).mT
        logits = (asked.transpose(1, 2) @ encoded.permute(0, 2, 3, 1)).transpose(1, 2)
        own_seen = self._own_seen(own, copies, encoded.device)
        logits = logits.masked_fill(own_seen, 0.0)
        weights = (logits / sqrt(d)).masked_fill_(own_seen, -torch.inf)
        weights.sub_(weights.amax(dim=-1, keepdim=True)).exp_()
        weights.div_(weights.sum(dim=-1, keepdim=True))
        values = self._buffer("values", (copies, n, batch, width), encoded)
        flat = values.view(copies, n * batch, width)
        torch.baddbmm(
            parameters.value_bias.unsqueeze(1), encoded.view(flat.shape), parameters.value, out=flat
        )
        leaky_relu_(values, LEAK)
        weighed = self._buffer("weighed", (copies, n, batch, width), encoded)
        torch.mul(self._of_agents(weights), self._heads(values), out=self._heads(weighed))
        torch.sum(weighed, dim=1, out=both[..., width:])

        head, output = self._answering(parameters.head, own), self._answering(parameters.output, own)
        hidden = torch.baddbmm(self._answering(parameters.head_bias, own).unsqueeze(1), both, head)
        leaky_relu_(hidden, LEAK)
        q = torch.baddbmm(self._answering(parameters.output_bias, own).unsqueeze(1), hidden, output)
        return Answered(q, logits, weights, encoded, values, both, selectors, asked, hidden)

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
        shape, width = self.shape, self.shape.hidden
        copies, n, batch, _ = done.encoded.shape

        self._answering(out.output, own).copy_(done.hidden.mT @ q_gradient)
        self._answering(out.output_bias, own).copy_(q_gradient.sum(dim=1))
        g_hidden = _through_leak(q_gradient @ self._answering(parameters.output, own).mT, done.hidden)
        self._answering(out.head, own).copy_(done.state_and_others.mT @ g_hidden)
        self._answering(out.head_bias, own).copy_(g_hidden.sum(dim=1))
        g_both = g_hidden @ self._answering(parameters.head, own).mT
        g_state, g_others = g_both[..., :width], self._heads(g_both[..., width:].unsqueeze(1))

        # The values and the weights they were added up with.
        scratch = self._buffer("scratch", (copies, n, batch, width), done.encoded)
        torch.mul(self._heads(done.values), g_others, out=self._heads(scratch))
        g_weights = self._heads(scratch).sum(dim=-1).permute(0, 3, 2, 1)
        g_values = scratch
        torch.mul(self._of_agents(done.weights), g_others, out=self._heads(g_values))
        g_values = _through_leak(g_values, done.values).view(copies, n * batch, width)
        encoded = done.encoded.view(copies, n * batch, width)
        out.value.copy_(encoded.mT @ g_values)
        out.value_bias.copy_(g_values.sum(dim=1))

        # The logits, and through them the question and what all have encoded.
        inner = (g_weights * done.weights).sum(dim=-1, keepdim=True)
        g_logits = (g_weights - inner).mul_(done.weights).div_(sqrt(shape.head_width))
        g_logits = g_logits.add_(done.logits, alpha=logit_decay).transpose(1, 2)  # [C, batch, heads, n]
        by_item = done.encoded.transpose(1, 2)  # [C, batch, n, hidden]
        g_asked = (g_logits @ by_item).transpose(1, 2)
        g_selectors = g_asked @ self._key(parameters)
        self._key(out).copy_(g_asked.mT @ done.selectors)
        g_selectors = g_selectors.transpose(1, 2).reshape(copies, batch, width)
        g_encoded = self._buffer("g_encoded", (copies, n, batch, width), done.encoded)
        g_encoded.transpose(1, 2).copy_(g_logits.mT @ done.asked.transpose(1, 2))
        flat = g_encoded.view(encoded.shape)
        torch.baddbmm(flat, g_values, parameters.value.mT, out=flat)
        _through_leak(g_encoded, done.encoded)

        state = done.state_and_others[..., :width]
        out.selector.copy_(state.mT @ g_selectors)
        g_state = torch.baddbmm(g_state, g_selectors, parameters.selector.mT)
        torch.ops.aten.leaky_relu_backward.grad_input(g_state, state, LEAK, True, grad_input=g_state)
        for critic in range(copies):
            g, member = self._place(own + critic)
            seen = inputs[g][critic, member, :, shape.n_actions :]
            out.states[g][critic, member].copy_(seen.mT @ g_state[critic])
        for group, seen, weight in zip(shape.groups, inputs, out.encoders, strict=True):
            weight.copy_(seen.mT @ g_encoded[:, group.agents])

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

    def _by_head(self, flat: Tensor) -> Tensor:
        """``[C, batch, hidden]`` -> ``[C, heads, batch, d]``."""
        return self._heads(flat).transpose(1, 2)

    def _heads(self, array: Tensor) -> Tensor:
        """``[..., hidden]`` -> ``[..., heads, d]``, a view."""
        return array.view(*array.shape[:-1], self.shape.heads, self.shape.head_width)

    def _of_agents(self, weights: Tensor) -> Tensor:
        """``[C, heads, batch, n]`` -> ``[C, n, batch, heads, 1]``."""
        return weights.permute(0, 3, 2, 1).unsqueeze(-1)

    def _own_seen(self, own: int, copies: int, device: torch.device) -> Tensor:
        """Where an agent would attend to itself: bool ``[C, 1, 1, n]``."""
        same = torch.eye(self.shape.n_agents, dtype=torch.bool, device=device)
        return same[own : own + copies].view(copies, 1, 1, -1)

    def _buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory for ``name``, the same at every pass of equal size."""
        key = (name, shape)
        if key not in self._buffers or self._buffers[key].dtype != like.dtype:
            with torch.inference_mode(False):  # or it could be written in that mode alone
                self._buffers[key] = like.new_empty(shape)
        return self._buffers[key]


def _through_leak(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient before a leaky ReLU, from that behind it, which it overwrites, and what came out of it."""
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, activation, LEAK, True, grad_input=gradient)
    return gradient
