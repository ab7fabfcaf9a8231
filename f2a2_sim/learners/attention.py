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
from f2a2_sim.learners.stacked import LEAK

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


@dataclass(frozen=True)
class Attended:
    """A forward pass: the action values, and what the backward pass needs of it."""

    q: Tensor  # [C, m, batch, actions]
    logits: Tensor  # [C, batch * heads, m, n], unscaled, 0 where an agent would attend to itself
    weights: Tensor  # the same, after the softmax
    encoded: Tensor  # e [C, n, batch, hidden]
    state_and_others: Tensor  # [s, x] [C, m, batch, 2 hidden]
    selectors: Tensor  # [C, batch * heads, m, d]
    keys: Tensor  # [C, batch * heads, n, d]
    values: Tensor  # the same
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

    def forward(self, parameters: CriticArrays, inputs: list[Tensor]) -> Attended:
        """Action values for ``inputs``, see `inputs`."""
        shape = self.shape
        copies, batch = inputs[0].shape[0], inputs[0].shape[2]
        n, width = shape.n_agents, shape.hidden
        encoded = self._buffer("encoded", (copies, n, batch, width), inputs[0])
        for group, seen, weight in zip(shape.groups, inputs, parameters.encoders, strict=True):
            encoded[:, group.agents] = seen @ weight
        leaky_relu_(encoded, LEAK)
        both = self._buffer("both", (copies, self._questions, batch, 2 * width), inputs[0])
        state, others = both[..., :width], both[..., width:]
        for asked in self._asked(parameters):
            state[asked.critics, asked.questions] = self._seen(inputs, asked) @ asked.weight
        leaky_relu_(state, LEAK)

        asking, flat = state.flatten(1, 2), encoded.flatten(1, 2)
        selectors, keys, pre_values = (
            self._buffer(name, (copies, rows.shape[1], width), flat)
            for name, rows in (("selectors", asking), ("keys", flat), ("values", flat))
        )
        torch.bmm(asking, parameters.selector, out=selectors)
        torch.bmm(flat, parameters.key, out=keys)
        torch.baddbmm(parameters.value_bias.unsqueeze(1), flat, parameters.value, out=pre_values)
        selectors, keys = self._by_head(selectors, batch), self._by_head(keys, batch)
        values = self._by_head(leaky_relu_(pre_values, LEAK), batch)
        self_seen = self._self_seen(copies, inputs[0].device)
        logits = (selectors @ keys.mT).masked_fill_(self_seen, 0.0)
        weights = _softmax_of_others(logits / sqrt(shape.head_width), self_seen)
        attended = (weights @ values).transpose(1, 2)  # [C, m, batch * heads, d]
        in_place = (copies, self._questions, batch, shape.heads, shape.head_width)
        others.view(in_place).copy_(attended.view(in_place))

        hidden = both @ self._answering(parameters.head)
        leaky_relu_(hidden.add_(self._answering(parameters.head_bias).unsqueeze(2)), LEAK)
        q = hidden @ self._answering(parameters.output)
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
        shape, width = self.shape, self.shape.hidden
        batch = q_gradient.shape[2]

        self._answering(out.output).copy_(done.hidden.mT @ q_gradient)
        self._answering(out.output_bias).copy_(q_gradient.sum(dim=2))
        g_hidden = _through_leak(q_gradient @ self._answering(parameters.output).mT, done.hidden)
        self._answering(out.head).copy_(done.state_and_others.mT @ g_hidden)
        self._answering(out.head_bias).copy_(g_hidden.sum(dim=2))
        head = self._answering(parameters.head)
        g_state = g_hidden @ head[:, :, :width].mT
        g_others = self._by_head((g_hidden @ head[:, :, width:].mT).flatten(1, 2), batch)

        g_weights = g_others @ done.values.mT
        g_values = self._by_agent("g_values", done.weights.mT @ g_others, batch)
        g_logits = torch._softmax_backward_data(g_weights, done.weights, -1, g_weights.dtype)
        g_logits.div_(sqrt(shape.head_width)).add_(done.logits, alpha=logit_decay)
        g_selectors = self._by_agent("g_selectors", g_logits @ done.keys, batch)
        g_keys = self._by_agent("g_keys", g_logits.mT @ done.selectors, batch)
        g_values = _through_leak(g_values, done.values.transpose(1, 2).reshape(g_values.shape))

        state, encoded = done.state_and_others[..., :width], done.encoded.flatten(1, 2)
        out.selector.copy_(state.flatten(1, 2).mT @ g_selectors)
        out.key.copy_(encoded.mT @ g_keys)
        out.value.copy_(encoded.mT @ g_values)
        out.value_bias.copy_(g_values.sum(dim=1))
        g_state.flatten(1, 2).baddbmm_(g_selectors, parameters.selector.mT)
        g_state = _through_leak(g_state, state)
        g_encoded = (g_keys @ parameters.key.mT).baddbmm_(g_values, parameters.value.mT)
        g_encoded = _through_leak(g_encoded.view(done.encoded.shape), done.encoded)
        for asked in self._asked(out):
            seen = self._seen(inputs, asked)
            asked.weight.copy_(seen.mT @ g_state[asked.critics, asked.questions])
        for group, seen, weight in zip(shape.groups, inputs, out.encoders, strict=True):
            weight.copy_(seen.mT @ g_encoded[:, group.agents])

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

    def _by_head(self, flat: Tensor, batch: int) -> Tensor:
        """``[C, agents * batch, hidden]`` -> ``[C, batch * heads, agents, d]``."""
        return flat.view(flat.shape[0], -1, batch * self.shape.heads, self.shape.head_width).transpose(1, 2)

    def _by_agent(self, name: str, by_head: Tensor, batch: int) -> Tensor:
        """``[C, batch * heads, agents, d]`` -> ``[C, agents * batch, hidden]``, in the buffer ``name``."""
        copies, _, agents, _ = by_head.shape
        flat = self._buffer(name, (copies, agents * batch, self.shape.hidden), by_head)
        self._by_head(flat, batch).copy_(by_head)
        return flat

    def _buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory for ``name``, the same at every pass of equal size."""
        key = (name, shape)
        if key not in self._buffers or self._buffers[key].dtype != like.dtype:
            with torch.inference_mode(False):  # or it could be written in that mode alone
                self._buffers[key] = like.new_empty(shape)
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


def _softmax_of_others(logits: Tensor, self_seen: Tensor) -> Tensor:
    """Softmax over the last dimension without the places ``self_seen``; overwrites ``logits``.

    Over rows as short as these torch's own takes ten times as long.
    """
    logits.masked_fill_(self_seen, -torch.inf)
    logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(dim=-1, keepdim=True))


def _through_leak(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient before a leaky ReLU, from that behind it, which it overwrites, and what came out of it."""
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, activation, LEAK, True, grad_input=gradient)
    return gradient
