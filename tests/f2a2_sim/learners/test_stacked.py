"""Stacked networks, optimiser and row blocks, each against its plain counterpart."""

from __future__ import annotations

import dataclasses
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from f2a2_sim.learners.rate_decay import RateDecay
from f2a2_sim.learners.stacked import MlpShape, StackedAdam, StackedMlp, blocks_of, carve, clip_rows

SHAPE = MlpShape(inputs=5, hidden=3, hidden_layers=2, outputs=4, branches=2)


def test_segments_are_aligned_and_cover_the_row_in_order() -> None:
    end = 0
    for offset, shape, _ in SHAPE.segments():
        assert offset % 16 == 0
        assert 0 <= offset - end < 16
        end = offset + prod(shape)
    assert 0 <= SHAPE.size - end < 16
    assert SHAPE.parameters == 2 * (5 * 3 + 3 + 3 * 3 + 3 + 3 * 4 + 4)


def test_views_write_into_the_row() -> None:
    rows = torch.zeros(2, SHAPE.size)
    for value, view in enumerate(SHAPE.views(rows[1:]), start=1):
        view.fill_(value)
    assert not rows[0].any()
    assert int((rows[1] > 0).sum()) == SHAPE.parameters


def test_carved_tensors_do_not_overlap() -> None:
    tensors = carve([(2, 3), (17,), (1, 1, 5)], torch.empty(0, dtype=torch.float64))
    for value, tensor in enumerate(tensors):
        assert tensor.is_contiguous() and not tensor.any()
        tensor.fill_(value)
    assert [tensor.unique().tolist() for tensor in tensors] == [[0.0], [1.0], [2.0]]
    assert [tuple(tensor.shape) for tensor in tensors] == [(2, 3), (17,), (1, 1, 5)]


def test_initial_weights_are_those_of_linear_layers() -> None:
    """Uniform in +-1/sqrt(fan_in): variance 1/(3 fan_in); padding stays 0."""
    shape = MlpShape(inputs=400, hidden=100, hidden_layers=2, outputs=50)
    row = torch.from_numpy(shape.initial(np.random.default_rng(0))).unsqueeze(0)
    assert int((row != 0).sum()) <= shape.parameters
    for view, (_, _, fan_in) in zip(shape.views(row), shape.segments(), strict=True):
        assert float(view.abs().max()) <= fan_in**-0.5
    assert float(shape.views(row)[0].var()) == pytest.approx(1 / 1200, rel=0.02)


def test_backward_is_the_gradient_of_forward() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(3, SHAPE.size, dtype=torch.float64, generator=generator)
    inputs = torch.randn(3, 6, 6, dtype=torch.float64, generator=generator)
    inputs[:, :, -1] = 1
    upstream = torch.randn(2, 3, 6, 4, dtype=torch.float64, generator=generator)
    mlp = StackedMlp(SHAPE.hidden, carve(StackedMlp.memory_shapes(SHAPE, 3, 6), parameters))
    outputs = mlp.forward(SHAPE.arrays(parameters), inputs).clone()
    gradient = torch.zeros_like(parameters)
    mlp.backward(SHAPE.arrays(parameters), inputs, upstream, SHAPE.arrays(gradient))

    leaf = parameters.clone().requires_grad_()
    first, w2, b2, w3, b3 = SHAPE.views(leaf)
    wide = torch.nn.functional.leaky_relu(inputs[:, :, :5] @ first[:, :5] + first[:, 5:], 0.01)
    expected = []
    for j in range(2):
        hidden = torch.nn.functional.leaky_relu(
            wide[:, :, 3 * j : 3 * j + 3] @ w2[:, j] + b2[:, j, None], 0.01
        )
        expected.append(hidden @ w3[:, j] + b3[:, j, None])
    torch.testing.assert_close(outputs, torch.stack(expected))
    (torch.stack(expected) * upstream).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gradient, leaf.grad)


def test_flops_are_the_closed_form() -> None:
    parameters, inputs = torch.zeros(3, SHAPE.size), torch.zeros(3, 6, 6)
    mlp = StackedMlp(SHAPE.hidden, carve(StackedMlp.memory_shapes(SHAPE, 3, 6), parameters))
    with FlopCounterMode(display=False) as counter:
        outputs = mlp.forward(SHAPE.arrays(parameters), inputs)
    per_input = 2 * 2 * (6 * 3 + 3 * 3 + 3 * 4)  # branches, multiply-add, layers
    assert counter.get_total_flops() == 3 * 6 * per_input
    with FlopCounterMode(display=False) as counter:
        gradient = SHAPE.arrays(torch.zeros_like(parameters))
        mlp.backward(SHAPE.arrays(parameters), inputs, torch.zeros_like(outputs), gradient)
    upstream = 2 * 2 * (3 * 3 + 3 * 4)  # no gradient with respect to the input
    assert counter.get_total_flops() == 3 * 6 * (per_input + upstream)


def step_both(
    adam: StackedAdam,
    references: list[torch.optim.Adam],
    rows: slice,
    columns: slice,
    decay: float,
    generator: torch.Generator,
) -> None:
    """A step of some rows along a random gradient, and of each one's own optimiser along the same."""
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    gradients = torch.randn(shape, dtype=torch.float64, generator=generator)
    adam.steps[rows] += 1
    adam.apply(adam.rows(rows, columns), gradients, decay)
    for gradient, reference in zip(gradients, references[rows], strict=True):
        reference.param_groups[0]["params"][0].grad = gradient.clone()
        reference.step()


def test_adam_equals_torch_for_every_agent_at_its_own_step() -> None:
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(4, 48, dtype=torch.float64, generator=generator)
    plain = [torch.nn.Parameter(row[16:].clone()) for row in parameters]
    references = [torch.optim.Adam([p], lr=0.01, weight_decay=0.1) for p in plain]
    adam = StackedAdam(parameters, 0.01)
    untouched = parameters[:, :16].clone()
    for rows in (slice(0, 4), slice(1, 3), slice(2, 4), slice(0, 1), slice(0, 4)):
        step_both(adam, references, rows, slice(16, 48), 0.1, generator)
    torch.testing.assert_close(parameters[:, 16:], torch.stack([p.data for p in plain]))
    assert torch.equal(parameters[:, :16], untouched)
    assert adam.steps.tolist() == [3, 3, 4, 3]


def test_step_sizes_fall_by_every_agents_own_updates_and_then_stay() -> None:
    generator = torch.Generator().manual_seed(2)
    parameters = torch.randn(3, 16, dtype=torch.float64, generator=generator)
    plain = [torch.nn.Parameter(row.clone()) for row in parameters]
    references = [torch.optim.Adam([p], lr=0.01) for p in plain]
    # Halved four times in four updates, which is a sixteenth; from the fifth on as it is.
    falling = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 ** min(k, 4)) for optimiser in references
    ]
    adam = StackedAdam(parameters, 0.01, RateDecay(factor=1 / 16, updates=4))
    for rows in (slice(0, 3), slice(0, 3), slice(1, 3), slice(0, 2), *[slice(0, 3)] * 4):
        step_both(adam, references, rows, slice(0, 16), 0.0, generator)
        for schedule in falling[rows]:
            schedule.step()
    torch.testing.assert_close(parameters, torch.stack([p.data for p in plain]), rtol=0, atol=1e-8)
    assert adam.steps.tolist() == [7, 8, 7]


def test_step_sizes_fall_by_updates_where_steps_are_counted_apart() -> None:
    """An actor that takes every second step of its agent's (F2A2-TD3)."""
    moved = []
    for decay, rate in ((RateDecay(factor=0.5, updates=1), 0.02), (None, 0.01)):
        parameters = torch.zeros(1, 4, dtype=torch.float64)
        adam = StackedAdam(parameters, rate, decay)
        adam.steps += 2
        rows = dataclasses.replace(adam.rows(slice(0, 1), slice(0, 4)), steps=[torch.tensor(1.0)])
        adam.apply(rows, torch.ones(1, 4, dtype=torch.float64), 0.0)
        moved.append(parameters)
    torch.testing.assert_close(*moved)
    assert float(moved[0][0, 0]) == pytest.approx(-0.01)


def test_clip_scales_only_rows_that_are_too_long() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    clip_rows(rows, 1.0)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


@given(rows=st.lists(st.integers(0, 40), unique=True, max_size=30), block=st.integers(1, 8))
def test_blocks_cover_every_row_once_with_its_position(rows: list[int], block: int) -> None:
    array = np.array(rows, dtype=np.int64)
    seen: list[int] = []
    for run, positions in blocks_of(array, block):
        assert 0 < len(positions) <= block
        assert array[positions].tolist() == list(range(run.start, run.stop))
        seen += positions.tolist()
    assert sorted(seen) == list(range(len(rows)))
