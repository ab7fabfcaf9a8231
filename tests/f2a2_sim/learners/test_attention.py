"""The attention critic against its formula, written out agent by agent and head by head, and autograd."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from f2a2_sim.errors import UsageError
from f2a2_sim.learners import lone
from f2a2_sim.learners.attention import Attended, AttentionCritic
from f2a2_sim.learners.attention_shape import AgentGroup, AttentionShape, CriticArrays, group_agents
from f2a2_sim.learners.joint import own_attention
from f2a2_sim.learners.joint.own_attention import OwnAttentionCritic

SHAPE = AttentionShape((6, 6, 3, 4, 4), n_actions=3, hidden=8, heads=2)
COPIES, BATCH, LOGIT_DECAY = 3, 8, 0.3


def written_out(shape: AttentionShape, p: CriticArrays, inputs: list[Tensor], c: int, i: int) -> tuple:
    """Q_i ``[batch, actions]`` and the logits by head ``[batch, others]`` of critic c, as in the formula."""

    def find(agent: int) -> tuple[int, int]:
        return next((g, agent - x.first) for g, x in enumerate(shape.groups) if x.first <= agent < x.stop)

    g, at = find(i)
    state = leaky_relu(inputs[g][c, at, :, shape.n_actions :] @ p.states[g][c, at], 0.01)
    parts, all_logits = [state], []
    for head in range(shape.heads):
        mine = slice(head * shape.head_width, (head + 1) * shape.head_width)
        logits, values = [], []
        for j in range(shape.n_agents):
            if j == i:
                continue
            h, place = find(j)
            e = leaky_relu(inputs[h][c, place] @ p.encoders[h][c, place], 0.01)
            logits.append(((state @ p.selector[c][:, mine]) * (e @ p.key[c][:, mine])).sum(dim=1))
            values.append(leaky_relu(e @ p.value[c][:, mine] + p.value_bias[c][mine], 0.01))
        stacked = torch.stack(logits, dim=1)
        weights = torch.softmax(stacked / sqrt(shape.head_width), dim=1)
        parts.append(sum(weights[:, [k]] * value for k, value in enumerate(values)))
        all_logits.append(stacked)
    hidden = leaky_relu(torch.cat(parts, dim=1) @ p.head[c, i] + p.head_bias[c, i], 0.01)
    return hidden @ p.output[c, i] + p.output_bias[c, i], all_logits


@pytest.fixture
def rows() -> Tensor:
    rng = np.random.default_rng(4)
    return torch.from_numpy(np.stack([SHAPE.initial(rng) for _ in range(COPIES)]))


@pytest.fixture
def inputs() -> list[Tensor]:
    rng = np.random.default_rng(5)
    seen = [rng.standard_normal((COPIES, g.count, BATCH, g.observation_size)) for g in SHAPE.groups]
    actions = torch.from_numpy(rng.standard_normal((COPIES, SHAPE.n_agents, BATCH, SHAPE.n_actions)))
    return OwnAttentionCritic(SHAPE).inputs([torch.from_numpy(x) for x in seen], actions)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.fixture(params=[True, False], ids=["one by one", "all at once"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic for all agents computes them as on a processor, and as on a GPU."""
    monkeypatch.setattr(lone, "computed_alone", lambda like: request.param)


@pytest.mark.usefixtures("_both_ways")
def test_forward_is_the_formula(rows: Tensor, inputs: list[Tensor]) -> None:
    critic, arrays = AttentionCritic(SHAPE), SHAPE.arrays(rows[:1])
    done = critic.forward(arrays, [x[0] for x in inputs])
    assert done.q.shape == (5, BATCH, 3)
    for agent in range(SHAPE.n_agents):
        q, logits = written_out(SHAPE, arrays, inputs, 0, agent)
        close(done.q[agent], q)
        close(critic.attention_logits(done, agent), torch.stack(logits) / 2.0)
        close(critic.squared_logits(done)[agent], sum(x.square().sum() for x in logits))
    assert torch.equal(critic.action_values(arrays, [x[0] for x in inputs]), done.q)


@pytest.mark.usefixtures("_both_ways")
def test_backward_is_the_gradient(rows: Tensor, inputs: list[Tensor]) -> None:
    critic, rows = AttentionCritic(SHAPE), rows[:1]
    done: Attended = critic.forward(SHAPE.arrays(rows), [x[0] for x in inputs])
    pull = torch.from_numpy(np.random.default_rng(6).standard_normal(done.q.shape))
    gradient = torch.zeros_like(rows)
    critic.backward(
        SHAPE.arrays(rows), [x[0] for x in inputs], done, pull, LOGIT_DECAY, SHAPE.arrays(gradient)
    )

    leaves = rows.clone().requires_grad_()
    arrays, loss = SHAPE.arrays(leaves), torch.zeros((), dtype=torch.float64)
    for agent in range(SHAPE.n_agents):
        q, logits = written_out(SHAPE, arrays, inputs, 0, agent)
        loss = loss + (q * pull[agent]).sum() + LOGIT_DECAY / 2 * sum(x.square().sum() for x in logits)
    loss.backward()
    assert leaves.grad is not None and leaves.grad.abs().max() > 1
    close(gradient, leaves.grad)


@pytest.mark.parametrize("own", [0, 1, 2])
@pytest.mark.parametrize(
    ("copies", "alone", "part", "variants"),
    [
        (1, True, 5, 1),
        (COPIES, True, 9, 1),
        (2, True, 6, 2),
        (2, True, 9, 4),
        (1, False, 9, 1),
        (3, False, 9, 2),
    ],
)
def test_critics_of_one_agent_each_are_the_formula(
    rows: Tensor,
    inputs: list[Tensor],
    own: int,
    copies: int,
    alone: bool,
    part: int,
    variants: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other order of products: values, and the gradient with respect to all parameters.

    Alone as on a CPU, or all critics together as on a GPU; of a batch, or of variants of one.
    """
    monkeypatch.setattr(lone, "computed_alone", lambda like: alone)
    monkeypatch.setattr(own_attention, "PART", part)
    rows, inputs = rows[:copies], [x[:copies] for x in inputs]
    critic = OwnAttentionCritic(SHAPE)
    for x in inputs:  # what is seen is the same in all variants
        seen = torch.unflatten(x[..., SHAPE.n_actions :], 2, (variants, -1))
        seen[:, :, 1:] = seen[:, :, :1]
    done = critic.forward(SHAPE.arrays(rows), inputs, own, variants)
    pull = torch.from_numpy(np.random.default_rng(6).standard_normal(done.q.shape))
    gradient = torch.zeros_like(rows)
    critic.backward(SHAPE.arrays(rows), inputs, own, done, pull, LOGIT_DECAY, SHAPE.arrays(gradient))

    leaves = rows.clone().requires_grad_()
    arrays, loss = SHAPE.arrays(leaves), torch.zeros((), dtype=torch.float64)
    for c in range(copies):
        q, logits = written_out(SHAPE, arrays, inputs, c, own + c)
        close(done.q[c], q)
        loss = loss + (q * pull[c]).sum() + LOGIT_DECAY / 2 * sum(x.square().sum() for x in logits)
    loss.backward()
    assert leaves.grad is not None and leaves.grad.abs().max() > 1
    close(gradient, leaves.grad)


def test_own_action_does_not_move_own_values(rows: Tensor, inputs: list[Tensor]) -> None:
    critic, arrays, inputs = AttentionCritic(SHAPE), SHAPE.arrays(rows[:1]), [x[0] for x in inputs]
    before = critic.forward(arrays, inputs).q
    inputs[1][0, :, : SHAPE.n_actions] += 1.0  # agent 2's action
    moved = (critic.forward(arrays, inputs).q - before).abs().amax(dim=(1, 2))
    assert moved[2] == 0
    assert (moved[[0, 1, 3, 4]] > 1e-6).all()


def test_columns_by_meaning() -> None:
    rows = torch.zeros(1, SHAPE.size)
    rows[:, SHAPE.attention_columns] = 1.0
    arrays = SHAPE.arrays(rows)
    assert all(bool((x == 1).all()) for x in (arrays.selector, arrays.key, arrays.value, arrays.value_bias))
    assert not any(bool(x.any()) for x in (*arrays.encoders, *arrays.states, arrays.head, arrays.output))
    rows[:, SHAPE.common_columns] = 1.0
    assert all(bool((x == 1).all()) for x in arrays.encoders)
    assert not any(bool(x.any()) for x in (*arrays.states, arrays.head, arrays.output_bias))


def test_parameters_are_maacs() -> None:
    """Rover Tower: 8 agents, 4 of 13 and 4 of 8 observations (as many as the original has)."""
    shape = AttentionShape((13,) * 4 + (8,) * 4, n_actions=5)
    encoders = sum(4 * 128 * (o + 1 + o + 5 + 1) for o in (13, 8))
    assert shape.parameters == encoders + 3 * 128 * 128 + 128 + 8 * (257 * 128 + 129 * 5)


def test_initial_values_are_linear_layers() -> None:
    arrays = SHAPE.arrays(torch.from_numpy(SHAPE.initial(np.random.default_rng(0)))[None])
    for array, fan_in in (
        (arrays.head, 16),
        (arrays.head_bias, 16),
        (arrays.encoders[0], 9),
        (arrays.key, 8),
    ):
        assert 0.9 < array.abs().max() * sqrt(fan_in) <= 1.0


def test_groups_are_runs_of_one_size() -> None:
    expected = (AgentGroup(0, 2, 6), AgentGroup(2, 3, 3), AgentGroup(3, 5, 6))
    assert group_agents([6, 6, 3, 6, 6]) == expected


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(UsageError, match="3 heads cannot share 8 hidden units"):
        AttentionShape((4, 4), 2, hidden=8, heads=3)
    with pytest.raises(UsageError, match="1 agents; expected at least two"):
        AttentionShape((4,), 2)
