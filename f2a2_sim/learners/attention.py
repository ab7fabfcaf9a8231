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
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.products import linear, multiply, multiply_transposed, through_leak
from f2a2_sim.learners.stacked import Buffers


class _Rows:
    """Rows ``[agents, batch, width]``, in memory as one more row an agent, which concerns nobody.

    Without it an agent's rows would begin a power of two after the last one's, fall into the same lines of
    the cache, and products that take a row of each agent would take twice as long.  ``flat`` ``[agents *
    (batch + 1), width]`` is for what treats all agents' rows alike: there it changes nothing as long as it is
    0 in one of two factors.
    """

    def __init__(self, whole: Tensor) -> None:
        self.each = whole[:, :-1]
        self.flat = whole.flatten(0, 1)

    def like(self, flat: Tensor) -> _Rows:
        """As many rows, computed from ``flat``."""
        agents, batch, _ = self.each.shape
        return _Rows(flat.view(agents, batch + 1, -1))

    def by_head(self, heads: int) -> Tensor:
        """``[batch * heads, agents, d]``."""
        agents, batch, width = self.each.shape
        return self.each.view(agents, batch * heads, width // heads).transpose(0, 1)


@dataclass(frozen=True)
class Attended:
    """A forward pass: the action values, and what the backward pass needs of it."""

    q: Tensor  # [n, batch, actions]
    logits: Tensor  # [batch * heads, n, n], unscaled, 0 where an agent would attend to itself
    weights: Tensor  # the same, after the softmax
    weights_in_front: Tensor  # the same, whom an agent attends to in front [n, batch * heads, n]
    encoded: _Rows  # e
    state_and_others: _Rows  # [s, x]
    selectors: _Rows
    keys: _Rows
    values: _Rows
    hidden: Tensor  # [n, batch, hidden]


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

    def forward(self, parameters: CriticArrays, inputs: list[Tensor]) -> Attended:
        """Action values for ``inputs``, see `inputs`."""
        shape, like = self.shape, inputs[0]
        batch, heads, n, width = like.shape[1], shape.heads, shape.n_agents, shape.hidden
        encoded = self._rows("encoded", (n, batch, width), like)
        both = self._rows("both", (n, batch, 2 * width), like)
        state, others = both.each[..., :width], both.each[..., width:]
        for group, seen, encoder, asker in zip(
            shape.groups, inputs, parameters.encoders, parameters.states, strict=True
        ):
            multiply(seen, encoder[0], encoded.each[group.agents], leaky=True)
            multiply(seen[..., shape.n_actions :], asker[0], state[group.agents], leaky=True)

        selectors = encoded.like(linear(both.flat[:, :width], parameters.selector[0]))
        keys = encoded.like(linear(encoded.flat, parameters.key[0]))
        bias = parameters.value_bias[0]
        values = encoded.like(linear(encoded.flat, parameters.value[0], bias, leaky=True))
        logits = self._by_head_product("logits", selectors.by_head(heads), keys.by_head(heads).mT)
        self._fill_self(logits, 0.0)
        in_front = self._buffer("in_front", (n, batch * heads, n), like)
        torch.mul(logits.permute(2, 0, 1), 1.0 / sqrt(shape.head_width), out=in_front)
        self._fill_self(in_front.permute(1, 2, 0), -torch.inf)
        in_front = in_front.softmax(dim=0)  # along the first axis: forty times as fast as along the last
        weights = self._buffer("weights", (batch * heads, n, n), like).copy_(in_front.permute(1, 2, 0))
        attended = self._by_head_product("attended", weights, values.by_head(heads))
        for into, head in zip(
            others.view(n, batch, heads, -1).unbind(2),
            attended.transpose(0, 1).view(n, batch, heads, -1).unbind(2),
            strict=True,
        ):  # head by head, because a copy of all takes three times as long
            into.copy_(head)

        hidden = self._buffer("hidden", (n, batch, width), like)
        multiply(both.each, parameters.head[0], hidden, parameters.head_bias[0].unsqueeze(1), leaky=True)
        q = torch.empty_like(hidden[..., : shape.n_actions])
        multiply(hidden, parameters.output[0], q, parameters.output_bias[0].unsqueeze(1))
        return Attended(q, logits, weights, in_front, encoded, both, selectors, keys, values, hidden)

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
        shape, heads, width = self.shape, self.shape.heads, self.shape.hidden
        n, batch, _ = q_gradient.shape
        size = (n, batch, width)

        multiply_transposed(done.hidden, q_gradient, out.output[0])
        torch.sum(q_gradient, dim=1, out=out.output_bias[0])
        g_hidden = self._buffer("g_hidden", size, q_gradient)
        multiply(q_gradient, parameters.output[0].mT, g_hidden)
        through_leak(g_hidden, done.hidden)
        multiply_transposed(done.state_and_others.each, g_hidden, out.head[0])
        torch.sum(g_hidden, dim=1, out=out.head_bias[0])
        head = parameters.head[0]
        g_state, g_others, g_selectors, g_keys, g_values = (
            self._rows(name, size, q_gradient)
            for name in ("g_state", "g_others", "g_selectors", "g_keys", "g_values")
        )
        multiply(g_hidden, head[:, :width].mT, g_state.each)
        multiply(g_hidden, head[:, width:].mT, g_others.each)

        keys, values, selectors = (x.by_head(heads) for x in (done.keys, done.values, done.selectors))
        g_attended = g_others.by_head(heads)
        self._to_rows(g_values, done.weights.mT, g_attended)
        g_weights = self._by_head_product("g_weights", g_attended, values.mT)
        g_front = self._buffer("in_front", (n, batch * heads, n), q_gradient)
        g_front.copy_(g_weights.permute(2, 0, 1))
        g_front = torch._softmax_backward_data(g_front, done.weights_in_front, 0, g_front.dtype)
        g_logits = torch.mul(done.logits, logit_decay, out=g_weights)
        g_logits.add_(g_front.permute(1, 2, 0), alpha=1.0 / sqrt(shape.head_width))
        self._to_rows(g_selectors, g_logits, keys)
        self._to_rows(g_keys, g_logits.mT, selectors)
        through_leak(g_values.flat, done.values.flat)

        state, encoded = done.state_and_others.each[..., :width], done.encoded
        self._of_all(state, g_selectors, out.selector[0])
        self._of_all(encoded.each, g_keys, out.key[0])
        self._of_all(encoded.each, g_values, out.value[0])
        torch.sum(g_values.flat, dim=0, out=out.value_bias[0])
        g_state.flat.add_(linear(g_selectors.flat, parameters.selector[0].mT))
        through_leak(g_state.flat, done.state_and_others.flat[:, :width])
        g_encoded = encoded.like(linear(g_keys.flat, parameters.key[0].mT))
        g_encoded.flat.add_(linear(g_values.flat, parameters.value[0].mT))
        through_leak(g_encoded.flat, encoded.flat)
        for group, seen, encoder, asker in zip(shape.groups, inputs, out.encoders, out.states, strict=True):
            multiply_transposed(seen, g_encoded.each[group.agents], encoder[0])
            multiply_transposed(seen[..., shape.n_actions :], g_state.each[group.agents], asker[0])

    def attention_logits(self, done: Attended, agent: int) -> Tensor:
        """An agent's logits, divided by sqrt(d), for the others in their order: ``[heads, batch, n - 1]``."""
        heads, n = self.shape.heads, self.shape.n_agents
        logits = done.logits[:, agent].view(-1, heads, n).transpose(0, 1)
        others = torch.arange(n, device=logits.device) != agent
        return logits[..., others] / sqrt(self.shape.head_width)

    def squared_logits(self, done: Attended) -> Tensor:
        """Sum over heads, others and batch of the squared unscaled logits: ``[n]``."""
        return done.logits.square().sum(dim=(0, 2))

    def _of_all(self, left: Tensor, right: _Rows, out: Tensor) -> None:
        """``left^T right`` over all agents' rows, into ``out``: agent by agent, which stays in the cache."""
        each = self._buffer("of_all", (left.shape[0], *out.shape), left)
        multiply_transposed(left, right.each, each)
        torch.sum(each, dim=0, out=out)

    def _to_rows(self, rows: _Rows, left: Tensor, right: Tensor) -> None:
        """``left @ right`` ``[batch * heads, agents, d]``, to where that belongs."""
        rows.by_head(self.shape.heads).copy_(self._by_head_product("by_head", left, right))

    def _by_head_product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """``left @ right`` ``[batch * heads, ., .]``, in the buffer ``name``."""
        out = self._buffer(name, (*left.shape[:2], right.shape[2]), right)
        torch.bmm(left, right, out=out)
        return out

    def _fill_self(self, logits: Tensor, value: float) -> None:
        """Set where an agent would attend to itself in ``[batch * heads, n, n]``."""
        logits.diagonal(dim1=1, dim2=2).fill_(value)

    def _rows(self, name: str, shape: tuple[int, int, int], like: Tensor) -> _Rows:
        """Rows ``[agents, batch, width]`` in the memory for ``name``."""
        agents, batch, width = shape
        return _Rows(self._buffer(name, (agents, batch + 1, width), like))
