"""Joint perceptron critics against single networks on inputs put together one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from f2a2_sim.learners import products
from f2a2_sim.learners.joint.mlp_critic import JointInputLayout, JointMlpCritic
from f2a2_sim.learners.stacked import MlpShape
from tests.f2a2_sim.learners.joint.conftest import ACTIONS, SIZES

N, BATCH, HIDDEN = len(SIZES), 5, 4
OWN = torch.tensor([1, 2])


def world(seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Observations with rubbish behind each agent's own size, and two variants of actions."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(OWN), N, BATCH)
    observations = torch.randn(*shape, max(SIZES), dtype=torch.float64, generator=generator)
    return observations, [torch.randint(ACTIONS, shape, generator=generator) for _ in range(2)]


def written_out(observations: Tensor, actions: Tensor, critic: int, at: int, own_asked: bool) -> list[float]:
    """x of one critic at one transition, number by number."""
    own = int(OWN[critic])
    x = [float(agent == own) for agent in range(N)]
    for agent, size in enumerate(SIZES):
        for number in range(size):
            seen = observations[critic, agent, :, number].numpy()
            x.append(float((seen[at] - seen.mean()) / np.sqrt(seen.var() + 1e-5)))
    for agent in range(N):
        for action in range(ACTIONS):
            taken = int(actions[critic, agent, at]) == action
            x.append(float(taken and not (own_asked and agent == own)))
    return [*x, 1.0]


@pytest.mark.parametrize("variants", [1, 2])
def test_many_rows_pass_alike_by_either_library(variants: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, many = JointInputLayout(SIZES, ACTIONS), 70
    critic = JointMlpCritic(layout, MlpShape(layout.width, HIDDEN, 2, 1))
    observations, actions = world()
    observations = observations.float().repeat(1, 1, many, 1)
    inputs = critic.inputs(OWN, observations, [a.repeat(1, 1, many) for a in actions[:variants]])
    rows = torch.randn(len(OWN), critic.shape.size, generator=torch.Generator().manual_seed(1))
    passes = []
    for plain in (False, True):
        monkeypatch.setattr(products, "_plain", plain)
        q, out = critic.forward(critic.shape.arrays(rows), inputs).clone(), torch.zeros_like(rows)
        critic.backward(critic.shape.arrays(rows), inputs, q, critic.shape.arrays(out))
        passes.append((q, out))
    torch.testing.assert_close(passes[0], passes[1], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("own_asked", [False, True])
@pytest.mark.parametrize("variants", [1, 2])
def test_inputs_are_what_is_written(variants: int, own_asked: bool) -> None:
    observations, actions = world()
    layout = JointInputLayout(SIZES, ACTIONS)
    critic = JointMlpCritic(layout, MlpShape(layout.width, HIDDEN, 2, 1))
    critic.inputs(OWN, *world(seed=1), own_asked)  # what lay there before does not matter
    inputs = critic.inputs(OWN, observations, actions[:variants], own_asked)
    expected = [
        [written_out(observations, a, c, t, own_asked) for a in actions[:variants] for t in range(BATCH)]
        for c in range(len(OWN))
    ]
    assert layout.width + 1 == len(expected[0][0])
    np.testing.assert_allclose(inputs.whole(), np.array(expected), atol=1e-12)
    last = inputs.variant(variants - 1).whole()
    np.testing.assert_allclose(last, np.array(expected)[:, -BATCH:], atol=1e-12)
    for c, columns in enumerate(layout.own_action_columns(OWN)):
        first = N + sum(SIZES) + int(OWN[c]) * ACTIONS
        assert columns.tolist() == list(range(first, first + ACTIONS))


def plain(shape: MlpShape, row: Tensor, x: Tensor) -> Tensor:
    """Values ``[twins, rows, outputs]`` of one agent's critics."""
    first, *rest = shape.views(row[None])
    outputs = []
    for twin in range(shape.branches):
        columns = slice(twin * shape.hidden, (twin + 1) * shape.hidden)
        hidden = x @ first[0, :, columns]
        for weight, bias in zip(rest[0::2], rest[1::2], strict=True):
            hidden = torch.nn.functional.leaky_relu(hidden, 0.01) @ weight[0, twin] + bias[0, twin]
        outputs.append(hidden)
    return torch.stack(outputs)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("outputs", [1, ACTIONS])
@pytest.mark.parametrize("twins", [1, 2])
@pytest.mark.parametrize("variants", [1, 2])
def test_passes_are_those_of_single_networks(variants: int, twins: int, outputs: int) -> None:
    """Values, the gradient of parameters, and that of the own action, by autograd through x."""
    layout = JointInputLayout(SIZES, ACTIONS)
    shape = MlpShape(layout.width, HIDDEN, 2, outputs, twins)
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(len(OWN), shape.size, dtype=torch.float64, generator=generator)
    observations, actions = world()
    critic = JointMlpCritic(layout, shape)
    inputs = critic.inputs(OWN, observations, actions[:variants])
    values = critic.forward(shape.arrays(parameters), inputs).clone()
    upstream = torch.randn(values.shape, dtype=torch.float64, generator=generator)
    gradient = torch.zeros_like(parameters)
    critic.backward(shape.arrays(parameters), inputs, upstream, shape.arrays(gradient))
    of_action = critic.own_action_gradient(shape.arrays(parameters), inputs, OWN, upstream)
    for c, columns in enumerate(layout.own_action_columns(OWN)):
        row = parameters[c].clone().requires_grad_()
        x = inputs.whole()[c].clone().requires_grad_()
        expected = plain(shape, row, x)
        torch.testing.assert_close(values[:, c], expected)
        (expected * upstream[:, c]).sum().backward()
        torch.testing.assert_close(gradient[c], row.grad)
        torch.testing.assert_close(of_action[c], x.grad[:, columns])


@pytest.mark.usefixtures("form")
def test_a_critic_depends_on_its_own_row_alone() -> None:
    layout = JointInputLayout(SIZES, ACTIONS)
    shape = MlpShape(layout.width, HIDDEN, 2, 1)
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(len(OWN), shape.size, dtype=torch.float64, generator=generator)
    observations, actions = world()
    others, other_actions = world(seed=5)
    others[0], other_actions[0][0] = observations[0], actions[0][0]
    other_parameters = parameters.clone()
    other_parameters[1] += 1.0
    upstream = torch.randn(1, len(OWN), BATCH, 1, dtype=torch.float64, generator=generator)
    results = []
    for p, o, a in ((parameters, observations, actions[0]), (other_parameters, others, other_actions[0])):
        critic, gradient = JointMlpCritic(layout, shape), torch.zeros_like(p)
        inputs = critic.inputs(OWN, o, [a])
        values = critic.forward(shape.arrays(p), inputs).clone()
        critic.backward(shape.arrays(p), inputs, upstream, shape.arrays(gradient))
        results.append((values[0], gradient))
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert not torch.equal(mine[1], theirs[1])


@pytest.mark.usefixtures("form")
def test_observations_are_multiplied_once_for_all_variants() -> None:
    layout = JointInputLayout(SIZES, ACTIONS)
    shape = MlpShape(layout.width, HIDDEN, 2, 1)
    parameters = torch.zeros(len(OWN), shape.size, dtype=torch.float64)
    observations, actions = world()
    critic = JointMlpCritic(layout, shape)
    inputs = critic.inputs(OWN, observations, actions)
    with FlopCounterMode(display=False) as counter:
        critic.forward(shape.arrays(parameters), inputs)
    variant = (N * ACTIONS + 1) * HIDDEN + HIDDEN * HIDDEN + HIDDEN
    expected = 2 * len(OWN) * BATCH * (layout.common * HIDDEN + 2 * variant)
    assert counter.get_total_flops() == expected
