"""The attention critic of MAAC, which answers for all agents, with hand-written gradients.

Source: Iqbal and Sha, "Actor-Attention-Critic for Multi-Agent Reinforcement Learning", ICML 2019.

Agent i's action values depend on its own observation and on everybody else's observations and actions:

    e_j = f(E_j [a_j, o_j, 1])              what agent j sees and does (action encoder)
    s_i = f(S_i [o_i, 1])                   what agent i sees (state encoder)
    l_ij = <W_s s_i, W_k e_j>               per head, j != i
    x_i = sum_j softmax_j(l_ij / sqrt(d)) f(W_v e_j + b_v)
    Q_i(o, ., a_-i) = U_i f(H_i [s_i, x_i] + h_i) + u_i

f is the leaky ReLU, d a head's width; observations and one-hot actions come standardised.  W_k, W_s and W_v
serve all agents.  The own action only selects a column of Q_i.  The transitions of a batch have nothing to do
with one another here, so that parts of it can be computed at once.

On a processor products are computed agent by agent, so that what one has written is still in the cache when
the next one reads it; on a GPU those of all agents are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners import lone
from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.products import (
    LEAK,
    add_product,
    multiply,
    multiply_transposed,
    through_leak,
    write_transposed,
)
from f2a2_sim.learners.stacked import Buffers


@dataclass(frozen=True)
class Attended:
    """What the backward pass needs of a forward pass; rows are ``[n, batch, hidden]``."""

    q: Tensor  # [n, batch, actions]
    logits: Tensor  # [batch * heads, n, n], unscaled, 0 where an agent would attend to itself
    weights: Tensor  # after the softmax, whom an agent attends to in front [n, batch * heads, n]
    encoded: Tensor  # rows e
    state: Tensor  # rows s
    others: Tensor  # rows x
    selectors: Tensor  # rows
    keys: Tensor  # rows
    values: Tensor  # rows
    hidden: Tensor  # rows


@dataclass(frozen=True)
class _Span:
    """Neighbouring agents whose products are asked for at once."""

    agents: slice
    groups: tuple[tuple[int, slice, slice], ...]  # a group, which of its agents, their places in the span


@cache
def _spans(shape: AttentionShape, alone: bool) -> tuple[_Span, ...]:
    """Spans of one agent each, or one of all."""
    if alone:
        one = slice(0, 1)
        return tuple(
            _Span(slice(i, i + 1), ((group, slice(member, member + 1), one),))
            for i, (group, member) in enumerate(shape.places)
        )
    groups = tuple((g, slice(0, group.count), group.agents) for g, group in enumerate(shape.groups))
    return (_Span(slice(0, shape.n_agents), groups),)


class AttentionCritic:
    """The arithmetic of a critic; parameters and gradients are the caller's, one row each.

    Large activations lie in buffers that the next pass overwrites: fresh memory costs a sixth of an update.
    So a backward pass follows its forward pass, and threads need a critic each.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self._buffer = Buffers()

    def inputs(self, observations: list[Tensor], actions: Tensor) -> list[Tensor]:
        """What the encoders read, by group: ``[group, batch, actions + size + 1]``.

        From standardised observations, by group ``[group, batch, size]``, and standardised one-hot actions
        ``[n, batch, actions]``.
        """
        a = self.shape.n_actions
        joined = []
        for group, seen in zip(self.shape.groups, observations, strict=True):
            whole = seen.new_empty(*seen.shape[:-1], a + group.observation_size + 1)
            whole[..., :a] = actions[group.agents]
            whole[..., a:-1] = seen
            whole[..., -1] = 1.0
            joined.append(whole)
        return joined

    def action_values(self, parameters: CriticArrays, inputs: list[Tensor]) -> Tensor:
        """``[n, batch, actions]`` for ``inputs``, see `inputs`."""
        return self._forward(parameters, inputs, keep=False).q

    def forward(self, parameters: CriticArrays, inputs: list[Tensor]) -> Attended:
        """The same, and what the backward pass needs."""
        return self._forward(parameters, inputs, keep=True)

    def _forward(self, parameters: CriticArrays, inputs: list[Tensor], keep: bool) -> Attended:
        """Unless ``keep``, all spans have one memory for e and the hidden layer, which stays in the cache."""
        shape, like = self.shape, inputs[0]
        batch, heads, n, width = like.shape[1], shape.heads, shape.n_agents, shape.hidden
        spans = _spans(shape, lone.computed_alone(like))
        state, others, selectors, keys, values = (
            self._rows(name, n, like) for name in ("state", "others", "selectors", "keys", "values")
        )
        encoded, hidden = (
            self._rows(name, n if keep else len(state[spans[0].agents]), like)
            for name in ("encoded", "hidden")
        )
        for span in spans:
            mine = span.agents
            s, e = state[mine], encoded[mine] if keep else encoded
            for group, members, places in span.groups:
                seen = inputs[group][members]
                multiply(seen, parameters.encoders[group][0, members], e[places], leaky=True)
                own = seen[..., shape.n_actions :]
                multiply(own, parameters.states[group][0, members], s[places], leaky=True)
            bias = parameters.value_bias.expand(len(s), -1).unsqueeze(1)
            multiply(e, _of_each(parameters.key, s), keys[mine])
            multiply(e, _of_each(parameters.value, s), values[mine], bias, leaky=True)
            multiply(s, _of_each(parameters.selector, s), selectors[mine])

        logits = self._by_head_product("logits", self._by_head(selectors), self._by_head(keys).mT)
        in_front = self._buffer("in_front", (n, batch * heads, n), like)
        torch.mul(logits.permute(2, 0, 1), 1.0 / sqrt(shape.head_width), out=in_front)
        self._fill_self(in_front.permute(1, 2, 0), -torch.inf)
        weights = in_front.softmax(dim=0)  # along the first axis: forty times as fast as along the last
        self._to_rows(others, weights.permute(1, 2, 0), self._by_head(values))
        if keep:
            self._fill_self(logits, 0.0)

        q = like.new_empty(n, batch, shape.n_actions)
        for span in spans:
            mine = span.agents
            h, head = hidden[mine] if keep else hidden, parameters.head[0, mine]
            multiply(state[mine], head[:, :width], h, parameters.head_bias[0, mine].unsqueeze(1))
            add_product(others[mine], head[:, width:], h)
            torch.nn.functional.leaky_relu_(h, LEAK)
            bias = parameters.output_bias[0, mine].unsqueeze(1)
            multiply(h, parameters.output[0, mine], q[mine], bias)
        return Attended(q, logits, weights, encoded, state, others, selectors, keys, values, hidden)

    def backward(
        self,
        parameters: CriticArrays,
        inputs: list[Tensor],
        done: Attended,
        q_gradient: Tensor,
        logit_decay: float,
        out: CriticArrays,
    ) -> None:
        """Write to ``out`` the gradient of a loss with dL/dQ = ``q_gradient`` ``[n, batch, actions]``.

        Added is that of ``logit_decay`` / 2 times the sum of all squared unscaled logits.
        """
        shape, heads, width, like = self.shape, self.shape.heads, self.shape.hidden, q_gradient
        n, batch, _ = like.shape
        spans = _spans(shape, lone.computed_alone(like))
        g_state, g_others, g_selectors, g_keys, g_values = (
            self._rows(name, n, like) for name in ("g_state", "g_others", "g_selectors", "g_keys", "g_values")
        )
        of_span = self._rows("of_span", len(g_state[spans[0].agents]), like)

        torch.sum(q_gradient, dim=1, out=out.output_bias[0])
        for span in spans:
            mine, g_hidden = span.agents, of_span
            hidden, pull, head = done.hidden[mine], q_gradient[mine], parameters.head[0, mine]
            multiply_transposed(hidden, pull, out.output[0, mine])
            multiply(pull, parameters.output[0, mine].mT, g_hidden)
            through_leak(g_hidden, hidden)
            multiply_transposed(done.state[mine], g_hidden, out.head[0, mine, :width])
            multiply_transposed(done.others[mine], g_hidden, out.head[0, mine, width:])
            torch.sum(g_hidden, dim=1, out=out.head_bias[0, mine])
            multiply(g_hidden, head[:, :width].mT, g_state[mine])
            multiply(g_hidden, head[:, width:].mT, g_others[mine])

        keys, values, selectors = (self._by_head(x) for x in (done.keys, done.values, done.selectors))
        g_attended = self._by_head(g_others)
        self._to_rows(g_values, done.weights.permute(1, 0, 2), g_attended)
        g_logits = self._by_head_product("g_logits", g_attended, values.mT)  # so far those of the weights
        g_front = self._buffer("in_front", (n, batch * heads, n), like)
        g_front.copy_(g_logits.permute(2, 0, 1))
        g_front = torch._softmax_backward_data(g_front, done.weights, 0, g_front.dtype)
        torch.mul(done.logits, logit_decay, out=g_logits)
        g_logits.add_(g_front.permute(1, 2, 0), alpha=1.0 / sqrt(shape.head_width))
        self._to_rows(g_selectors, g_logits, keys)
        self._to_rows(g_keys, g_logits.mT, selectors)

        for span in spans:
            mine, g_encoded, first = span.agents, of_span, span is spans[0]
            s, e, g_s = done.state[mine], done.encoded[mine], g_state[mine]
            _sum_transposed(s, g_selectors[mine], out.selector[0], first)
            add_product(g_selectors[mine], _of_each(parameters.selector.mT, s), g_s)
            through_leak(g_s, s)
            through_leak(g_values[mine], done.values[mine])
            _sum_transposed(e, g_values[mine], out.value[0], first)
            if first:
                torch.sum(g_values[mine], dim=(0, 1), out=out.value_bias[0])
            else:
                out.value_bias[0].add_(g_values[mine].sum(dim=(0, 1)))
            multiply(g_values[mine], _of_each(parameters.value.mT, s), g_encoded)
            _sum_transposed(e, g_keys[mine], out.key[0], first)
            add_product(g_keys[mine], _of_each(parameters.key.mT, s), g_encoded)
            through_leak(g_encoded, e)
            for group, members, places in span.groups:
                seen = inputs[group][members]
                multiply_transposed(seen, g_encoded[places], out.encoders[group][0, members])
                own = seen[..., shape.n_actions :]
                multiply_transposed(own, g_s[places], out.states[group][0, members])

    def attention_logits(self, done: Attended, agent: int) -> Tensor:
        """An agent's logits, divided by sqrt(d), for the others in their order: ``[heads, batch, n - 1]``."""
        heads, n = self.shape.heads, self.shape.n_agents
        logits = done.logits[:, agent].view(-1, heads, n).transpose(0, 1)
        others = torch.arange(n, device=logits.device) != agent
        return logits[..., others] / sqrt(self.shape.head_width)

    def squared_logits(self, done: Attended) -> Tensor:
        """Sum over heads, others and batch of the squared unscaled logits: ``[n]``."""
        return done.logits.square().sum(dim=(0, 2))

    def _to_rows(self, rows: Tensor, left: Tensor, right: Tensor) -> None:
        """``left @ right`` ``[batch * heads, agents, d]``, to where that belongs."""
        self._by_head(rows).copy_(self._by_head_product("by_head", left, right))

    def _by_head_product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """``left @ right`` ``[batch * heads, ., .]``, in the buffer ``name``."""
        out = self._buffer(name, (*left.shape[:2], right.shape[2]), right)
        torch.bmm(left, right, out=out)
        return out

    def _by_head(self, rows: Tensor) -> Tensor:
        """``[batch * heads, agents, d]``."""
        agents, batch, _ = rows.shape
        return rows.view(agents, batch * self.shape.heads, -1).transpose(0, 1)

    def _fill_self(self, logits: Tensor, value: float) -> None:
        """Set where an agent would attend to itself in ``[batch * heads, n, n]``."""
        logits.diagonal(dim1=1, dim2=2).fill_(value)

    def _rows(self, name: str, agents: int, like: Tensor) -> Tensor:
        """Rows ``[agents, batch, hidden]`` in the memory for ``name``, for a batch as large as ``like``'s.

        Behind an agent's there is one more, which concerns nobody. Without it an agent's rows would begin a
        power of two after the last one's, fall into the same lines of the cache, and products that take a row
        of each agent would take twice as long.
        """
        return self._buffer(name, (agents, like.shape[1] + 1, self.shape.hidden), like)[:, :-1]


def _of_each(weight: Tensor, rows: Tensor) -> Tensor:
    """``[1, in, out]`` for each agent that has ``rows``."""
    return weight.expand(len(rows), -1, -1)


def _sum_transposed(left: Tensor, right: Tensor, out: Tensor, first: bool) -> None:
    """``left^T right``, summed over agents: written to ``out``, or added to what the first span wrote."""
    if len(left) == 1:
        write_transposed(left[0], right[0], out, add=not first)
    else:
        torch.sum(torch.bmm(left.mT, right), dim=0, out=out)
