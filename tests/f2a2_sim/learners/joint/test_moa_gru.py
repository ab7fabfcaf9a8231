"""Stacked recurrent networks against torch.nn.GRU, agent by agent and sequence by sequence."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from f2a2_sim.learners.joint.moa_gru import GruShape, StackedGru

SHAPE = GruShape(inputs=5, hidden=3, layers=2)
AGENTS, STEPS, SEQUENCES = 2, 4, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(row: Tensor, shape: GruShape = SHAPE) -> torch.nn.GRU:
    """torch's network with the weights of one row."""
    gru = torch.nn.GRU(shape.inputs, shape.hidden, shape.layers).double()
    for number, layer in enumerate(shape.arrays(row.unsqueeze(0))):
        for name, values in (
            (f"weight_ih_l{number}", layer.below[0].T),
            (f"bias_ih_l{number}", layer.below_bias[0, 0]),
            (f"weight_hh_l{number}", layer.before[0].T),
            (f"bias_hh_l{number}", layer.before_bias[0, 0]),
        ):
            getattr(gru, name).data.copy_(values)
    return gru


def expected(gru: torch.nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    """Last states ``[sequences, hidden]``, each sequence alone; ``inputs`` ``[steps, sequences, inputs]``."""
    last = []
    for number, length in enumerate(lengths.tolist()):
        if length == 0:
            last.append(inputs.new_zeros(gru.hidden_size))
        else:
            last.append(gru(inputs[STEPS - length :, number])[0][-1])
    return torch.stack(last)


LENGTHS = {
    "full": torch.full((AGENTS, SEQUENCES), STEPS),
    "any": torch.tensor([[0, 1, 2, 3, 4, 4], [4, 0, 3, 3, 1, 2]]),
}


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_last_states_and_gradients_are_those_of_torch(kind: str, layers: int) -> None:
    shape = GruShape(SHAPE.inputs, SHAPE.hidden, layers)
    rows = draw(AGENTS, shape.size)
    inputs = draw(AGENTS, STEPS, SEQUENCES, shape.inputs, seed=1)
    upstream = draw(AGENTS, SEQUENCES, shape.hidden, seed=2)
    lengths = LENGTHS[kind]
    given = lengths if kind == "any" else None
    for kept in (True, False):
        gru = StackedGru(shape, AGENTS, STEPS, SEQUENCES, rows[:0], keeps=kept)
        result = gru.forward(shape.arrays(rows), inputs, given)
        for agent, row in enumerate(rows):
            last = expected(reference(row, shape), inputs[agent], lengths[agent])
            torch.testing.assert_close(result[agent], last)
    gru = StackedGru(shape, AGENTS, STEPS, SEQUENCES, rows[:0])
    gru.forward(shape.arrays(rows), inputs, given)
    gradient = torch.full_like(rows, 7.0)  # whatever was there is overwritten
    gru.backward(shape.arrays(rows), inputs, upstream, shape.arrays(gradient), given)
    for agent, row in enumerate(rows):
        torch_gru = reference(row, shape)
        (expected(torch_gru, inputs[agent], lengths[agent]) * upstream[agent]).sum().backward()
        for number, layer in enumerate(shape.arrays(gradient[agent : agent + 1])):
            for name, values in (
                (f"weight_ih_l{number}", layer.below[0].T),
                (f"bias_ih_l{number}", layer.below_bias[0, 0]),
                (f"weight_hh_l{number}", layer.before[0].T),
                (f"bias_hh_l{number}", layer.before_bias[0, 0]),
            ):
                torch.testing.assert_close(values, getattr(torch_gru, name).grad)


def test_what_lies_before_a_sequence_does_not_matter() -> None:
    rows, inputs = draw(AGENTS, SHAPE.size), draw(AGENTS, STEPS, SEQUENCES, SHAPE.inputs, seed=1)
    other = inputs.clone()
    for agent in range(AGENTS):
        for number, length in enumerate(LENGTHS["any"][agent].tolist()):
            other[agent, : STEPS - length, number] = 1e3
    gru = StackedGru(SHAPE, AGENTS, STEPS, SEQUENCES, rows[:0])
    results = [gru.forward(SHAPE.arrays(rows), x, LENGTHS["any"]).clone() for x in (inputs, other)]
    assert torch.equal(*results)


def test_rows_hold_every_parameter_once_and_start_as_torch_starts() -> None:
    shape = GruShape(inputs=40, hidden=64, layers=2)
    row = shape.initial(np.random.default_rng(0))
    assert shape.parameters == sum(p.numel() for p in torch.nn.GRU(40, 64, 2).parameters())
    assert int((row != 0).sum()) == shape.parameters
    assert abs(row).max() <= 1 / 8
    assert row[row != 0].var() == pytest.approx(1 / (3 * 64), rel=0.02)
    end = 0
    for offset, sizes in shape.segments():
        assert offset % 16 == 0 and 0 <= offset - end < 16
        end = offset + prod(sizes)


def test_flops_are_the_closed_form() -> None:
    rows, inputs = torch.zeros(AGENTS, SHAPE.size), torch.zeros(AGENTS, STEPS, SEQUENCES, 5)
    gru = StackedGru(SHAPE, AGENTS, STEPS, SEQUENCES, rows)
    each = 2 * AGENTS * SEQUENCES * 3 * SHAPE.hidden  # a product with one input unit, per step
    recurrent = 2 * 3 * (STEPS - 1)  # two layers; the first state is 0
    with FlopCounterMode(display=False) as counter:
        result = gru.forward(SHAPE.arrays(rows), inputs)
    assert counter.get_total_flops() == each * ((5 + 3) * STEPS + recurrent)
    with FlopCounterMode(display=False) as counter:
        gru.backward(SHAPE.arrays(rows), inputs, result.clone(), SHAPE.arrays(torch.zeros_like(rows)))
    assert counter.get_total_flops() == each * ((5 + 2 * 3) * STEPS + 2 * recurrent)
