"""The attention critic of MAAC, for ``C`` critics at once, with hand-written gradients.

Source: Iqbal and Sha, "Actor-Attention-Critic for Multi-Agent Reinforcement Learning", ICML 2019.

Agent i's action values depend on its own observation and on everybody else's observations and actions:

    e_j = f(E_j [a_j, o_j, 1])              what agent j sees and does (action encoder)
    s_i = f(S_i [o_i, 1])                   what agent i sees (state encoder)
    l_ij = <W_s s_i, W_k e_j>               per head, j != i
    x_i = sum_j softmax_j(l_ij / sqrt(d)) f(W_v e_j + b_v)
    Q_i(o, ., a_-i) = U_i f(H_i [s_i, x_i] + h_i) + u_i

f is the leaky ReLU, d a head's width; observations and one-hot actions come standardised.  W_k, W_s and W_v
serve all agents.  The own action only selects a column of Q_i.

A critic is a row of parameters, and the leading axis of every array is the critic: MAAC has one, which
answers for all agents; a fleet has one per device, and each answers for its device alone (``own``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2a2_sim.learners.attention_shape import AttentionShape, CriticArrays
from f2a2_sim.learners.products import LEAK
from f2a2_sim.learners.stacked import zeros

leaky_relu_ = torch.nn.functional.leaky_relu_


@dataclass(frozen=True)
class _Asked:
    """What the questions ``[c, m]`` of one group of agents read: part of the critics, part of the agents.

    ``weight`` is a view of their state encoders ``[c, m, observation + 1, hidden]``.
    """

    group: int
    critics: slice  # along C
    questions: slice  # along m
    agents: slice  # along the group's agents in its inputs
    weight: Tensor


class _Rows:
    """Rows ``[C, agents, batch, width]``, in memory as one more row an agent, which stays 0.

    Without it an agent's rows would begin a power of two after the last one's, fall into the same lines of
    the cache, and products that take a row of each agent would take twice as long.  Being 0 it changes no
    product over all rows, ``flat`` ``[C, agents * (batch + 1), width]``.
    """

    def __init__(self, whole: Tensor) -> None:
        self.each = whole[:, :, :-1]
        self.flat = whole.flatten(1, 2)

    def by_head(self, heads: int) -> Tensor:
        """``[C, batch * heads, agents, d]``."""
        copies, agents, batch, width = self.each.shape
        return self.each.view(copies, agents, batch * heads, width // heads).transpose(1, 2)


@dataclass(frozen=True)
class Attended:
    """A forward pass: the action values, and what the backward pass needs of it."""

    q: Tensor  # [C, m, batch, actions]
    logits: Tensor  # [C, batch * heads, m, n], unscaled, 0 where an agent would attend to itself
    weights: Tensor  # the same, after the softmax
    encoded: _Rows  # e, n agents
    state_and_others: _Rows  # [s, x], m agents
    selectors: _Rows  # m agents
    keys: _Rows  # n agents
    values: _Rows  # n agents
    hidden: Tensor  # [C, m, batch, hidden]


class AttentionCritic:
    """The arithmetic of critics of one shape; parameters and gradients are the caller's rows.

    ``own``: None, every critic answers for all n agents (m = n); otherwise critic c answers for agent
    ``own + c`` alone (m = 1), so that neighbouring devices of a fleet are one block.

    Large activations lie in buffers that the next pass overwrites: fresh memory costs a sixth of an update.
    So a backward pass follows its forward pass, and threads need a critic each.
    """

    def __init__(self, shape: AttentionShape, own: int | None = None) -> None:
        self.shape = shape
        self._own = own
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}
        self._padded: dict[tuple[str, tuple[int, ...], torch.dtype], _Rows] = {}

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

    def forward(self, parameters: CriticArrays, inputs: list[Tensor]) -> Attended:
        """Action values for ``inputs``, see `inputs`."""
        shape, like = self.shape, inputs[0]
        copies, batch, heads = like.shape[0], like.shape[2], shape.heads
        n, m, width = shape.n_agents, self._questions, shape.hidden
        encoded = self._rows("encoded", (copies, n, batch, width), like)
        for group, seen, weight in zip(shape.groups, inputs, parameters.encoders, strict=True):
            _product(seen, weight, encoded.each[:, group.agents])
        leaky_relu_(encoded.flat, LEAK)
        both = self._rows("both", (copies, m, batch, 2 * width), like)
        state, others = both.each[..., :width], both.each[..., width:]
        for asked in self._asked(parameters):
            seen = self._seen(inputs, asked)
            _product(seen, asked.weight, state[asked.critics, asked.questions])
        leaky_relu_(state, LEAK)

        selectors = self._rows("selectors", (copies, m, batch, width), like)
        keys, values = (self._rows(name, (copies, n, batch, width), like) for name in ("keys", "values"))
        torch.bmm(both.flat[..., :width], parameters.selector, out=selectors.flat)
        torch.bmm(encoded.flat, parameters.key, out=keys.flat)
        torch.bmm(encoded.flat, parameters.value, out=values.flat)
        values.each.add_(parameters.value_bias.view(copies, 1, 1, width))
        leaky_relu_(values.flat, LEAK)
        logits = self._fill_self(selectors.by_head(heads) @ keys.by_head(heads).mT, 0.0)
        scaled = self._fill_self(logits / sqrt(shape.head_width), -torch.inf)
        weights = scaled.softmax(dim=-1)
        attended = self._by_head_product("attended", weights, values.by_head(heads))
        in_place = (copies, m, batch, heads, shape.head_width)
        for into, head in zip(
            others.view(in_place).unbind(3),
            attended.transpose(1, 2).view(in_place).unbind(3),
            strict=True,
        ):  # head by head, because a copy of five axes takes three times as long
            into.copy_(head)

        hidden = self._buffer("hidden", (copies, m, batch, width), like)
        _product(both.each, self._answering(parameters.head), hidden)
        leaky_relu_(hidden.add_(self._answering(parameters.head_bias).unsqueeze(2)), LEAK)
        q = _narrow_product(hidden, self._answering(parameters.output))
        q.add_(self._answering(parameters.output_bias).unsqueeze(2))
        return Attended(q, logits, weights, encoded, both, selectors, keys, values, hidden)

    def backward(
        self,
        parameters: CriticArrays,
        inputs: list[Tensor],
        done: Attended,
        q_gradient: Tensor,
        logit_decay: float,
        out: CriticArrays,
    ) -> None:
        """Write to ``out`` the gradient of a loss with dL/dQ = ``q_gradient`` ``[C, m, batch, actions]``.

        Added is that of ``logit_decay`` / 2 times the sum of all squared unscaled logits.  Columns of agents
        that a critic does not answer for are left as they are: 0 in a fresh gradient.
        """
        shape, heads, width = self.shape, self.shape.heads, self.shape.hidden
        copies, m, batch = q_gradient.shape[:3]
        of_askers, of_all = (copies, m, batch, width), (copies, shape.n_agents, batch, width)

        self._answering(out.output).copy_((q_gradient.mT @ done.hidden).mT)  # as in _narrow_product
        self._answering(out.output_bias).copy_(q_gradient.sum(dim=2))
        g_hidden = self._buffer("g_hidden", of_askers, q_gradient)
        _product(q_gradient, self._answering(parameters.output).mT, g_hidden)
        _through_leak(g_hidden, done.hidden)
        _product(done.state_and_others.each.mT, g_hidden, self._answering(out.head))
        self._answering(out.head_bias).copy_(g_hidden.sum(dim=2))
        head = self._answering(parameters.head)
        g_state, g_others, g_selectors = (
            self._rows(name, of_askers, q_gradient) for name in ("g_state", "g_others", "g_selectors")
        )
        _product(g_hidden, head[:, :, :width].mT, g_state.each)
        _product(g_hidden, head[:, :, width:].mT, g_others.each)

        keys, values = done.keys.by_head(heads), done.values.by_head(heads)
        g_attended = g_others.by_head(heads)
        g_keys, g_values = (self._rows(name, of_all, q_gradient) for name in ("g_keys", "g_values"))
        g_values.by_head(heads).copy_(self._by_head_product("g_by_head", done.weights.mT, g_attended))
        g_weights = g_attended @ values.mT
        g_logits = torch._softmax_backward_data(g_weights, done.weights, -1, g_weights.dtype)
        g_logits.div_(sqrt(shape.head_width)).add_(done.logits, alpha=logit_decay)
        g_selectors.by_head(heads).copy_(self._by_head_product("g_by_head", g_logits, keys))
        selectors = done.selectors.by_head(heads)
        g_keys.by_head(heads).copy_(self._by_head_product("g_by_head", g_logits.mT, selectors))
        _through_leak(g_values.flat, done.values.flat)

        state, encoded = done.state_and_others.flat[..., :width], done.encoded.flat
        torch.bmm(state.mT, g_selectors.flat, out=out.selector)
        torch.bmm(encoded.mT, g_keys.flat, out=out.key)
        torch.bmm(encoded.mT, g_values.flat, out=out.value)
        out.value_bias.copy_(g_values.flat.sum(dim=1))
        g_state.flat.baddbmm_(g_selectors.flat, parameters.selector.mT)
        _through_leak(g_state.flat, state)
        g_encoded = self._rows("g_encoded", of_all, q_gradient)
        torch.bmm(g_keys.flat, parameters.key.mT, out=g_encoded.flat)
        g_encoded.flat.baddbmm_(g_values.flat, parameters.value.mT)
        _through_leak(g_encoded.flat, encoded)
        for asked in self._asked(out):
            seen = self._seen(inputs, asked)
            _product(seen.mT, g_state.each[asked.critics, asked.questions], asked.weight)
        for group, seen, weight in zip(shape.groups, inputs, out.encoders, strict=True):
            _product(seen.mT, g_encoded.each[:, group.agents], weight)

    def attention_logits(self, done: Attended, question: int) -> Tensor:
        """Logits of the ``question``-th agent that the critics answer for, divided by sqrt(d), for the other
        agents in their order: ``[C, heads, batch, n - 1]``."""
        heads, n = self.shape.heads, self.shape.n_agents
        copies = done.logits.shape[0]
        logits = done.logits[:, :, question].view(copies, -1, heads, n).transpose(1, 2)
        others = ~self._self_seen(copies, logits.device).expand(copies, 1, -1, n)[:, 0, question]
        chosen = [part[..., mask] for part, mask in zip(logits, others, strict=True)]
        return torch.stack(chosen) / sqrt(self.shape.head_width)

    def squared_logits(self, done: Attended) -> Tensor:
        """Sum over heads and others, mean over the batch, of the squared unscaled logits: ``[C, m]``.

        MAAC's regulariser is 1e-3 times this, over n - 1.
        """
        return done.logits.square().sum(dim=(1, 3)) / (done.logits.shape[1] // self.shape.heads)

    @property
    def _questions(self) -> int:
        return self.shape.n_agents if self._own is None else 1

    def _asked(self, arrays: CriticArrays) -> list[_Asked]:
        """The questions, group by group, with views of the state encoders in ``arrays``."""
        everything = slice(None)
        if self._own is None:
            return [
                _Asked(g, everything, group.agents, everything, weight)
                for g, (group, weight) in enumerate(zip(self.shape.groups, arrays.states, strict=True))
            ]
        asked, copies = [], arrays.selector.shape[0]
        for g, group in enumerate(self.shape.groups):
            first, stop = max(group.first, self._own), min(group.stop, self._own + copies)
            if first < stop:
                critics = slice(first - self._own, stop - self._own)
                agents = slice(first - group.first, stop - group.first)
                weight = _diagonal(arrays.states[g][critics, agents])
                asked.append(_Asked(g, critics, everything, agents, weight))
        return asked

    def _seen(self, inputs: list[Tensor], asked: _Asked) -> Tensor:
        """What the state encoders read: the inputs without the actions."""
        seen = inputs[asked.group][asked.critics, asked.agents, :, self.shape.n_actions :]
        return seen if self._own is None else _diagonal(seen)

    def _answering(self, array: Tensor) -> Tensor:
        """The part ``[C, m, ...]`` of ``[C, n, ...]`` that belongs to the agents asked for, as a view."""
        if self._own is None:
            return array
        return _diagonal(array[:, self._own : self._own + array.shape[0]])

    def _by_head_product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """``left @ right`` ``[C, batch * heads, agents, d]``, in the buffer ``name``."""
        out = self._buffer(name, (*left.shape[:3], right.shape[3]), right)
        torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=out.flatten(0, 1))
        return out

    def _fill_self(self, logits: Tensor, value: float) -> Tensor:
        """Set where an agent would attend to itself in ``[C, batch * heads, m, n]``, which is returned."""
        if self._own is None:
            logits.diagonal(dim1=2, dim2=3).fill_(value)
        else:
            mine = logits[:, :, 0, self._own : self._own + logits.shape[0]]
            mine.diagonal(dim1=0, dim2=2).fill_(value)
        return logits

    def _rows(self, name: str, shape: tuple[int, int, int, int], like: Tensor) -> _Rows:
        """Rows ``[C, agents, batch, width]`` in the memory for ``name``."""
        copies, agents, batch, width = shape
        key = (name, shape, like.dtype)
        if key not in self._padded:
            self._padded[key] = _Rows(self._buffer(name, (copies, agents, batch + 1, width), like))
        return self._padded[key]

    def _buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory for ``name``, the same at every pass of equal size; 0 at first."""
        key = (name, shape, like.dtype)
        if key not in self._buffers:
            with torch.inference_mode(False):  # or it could be written in that mode alone
                self._buffers[key] = zeros(shape, like.dtype, like.device)
        return self._buffers[key]

    def _self_seen(self, copies: int, device: torch.device) -> Tensor:
        """Where an agent would attend to itself: bool, broadcasting to ``[C, batch * heads, m, n]``."""
        same = torch.eye(self.shape.n_agents, dtype=torch.bool, device=device)
        if self._own is None:
            return same.view(1, 1, *same.shape)
        return same[self._own : self._own + copies].view(copies, 1, 1, -1)


def _diagonal(array: Tensor) -> Tensor:
    """``[k, k, ...]`` -> ``[k, 1, ...]``: what critic c says of the c-th agent, as a view."""
    return array.diagonal(dim1=0, dim2=1).movedim(-1, 0).unsqueeze(1)


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """``left @ right`` ``[C, k, ., .]`` into ``out``, where it lies: torch would make a copy of four axes."""
    if out.shape[1] == 1:
        torch.bmm(left[:, 0], right[:, 0], out=out[:, 0])
        return
    for a, b, c in zip(left, right, out, strict=True):
        torch.bmm(a, b, out=c)


def _narrow_product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` where ``right`` has few columns, computed as (right^T left^T)^T: in a quarter of the
    time."""
    return (right.mT @ left.mT).mT


def _through_leak(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient before a leaky ReLU, from that behind it, which it overwrites, and what came out of it."""
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, activation, LEAK, True, grad_input=gradient)
    return gradient
