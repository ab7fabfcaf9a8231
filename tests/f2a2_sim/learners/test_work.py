"""What work is counted as costing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from devices.compute import Work
from f2a2_sim.learners.work import count_work

LEFT, RIGHT = torch.ones(2, 3, 4), torch.ones(2, 4, 5)


def test_a_product_is_one_launch_and_its_bytes_are_those_of_its_operands() -> None:
    flops, floats = 2 * 2 * 3 * 4 * 5, 2 * 3 * 4 + 2 * 4 * 5 + 2 * 3 * 5
    assert count_work(lambda: LEFT.bmm(RIGHT)) == Work(flops, 4 * floats, 1)


def test_views_are_free() -> None:
    assert count_work(lambda: LEFT.transpose(0, 1)[1:].unsqueeze(0)) == Work(0, 0, 0)


def test_what_is_made_the_first_time_is_not_counted() -> None:
    made: list[torch.Tensor] = []

    def work() -> None:
        if not made:
            made.append(torch.zeros(100))
        made[0].add_(1)

    assert count_work(work) == Work(0, 800, 1)


@pytest.mark.parametrize("gradients", [True, False])
def test_products_within_other_operations_are_found(gradients: bool) -> None:
    """Without gradients torch dispatches matmul, linear and einsum whole."""

    def work() -> None:
        with torch.inference_mode(not gradients):
            torch.matmul(LEFT, RIGHT).sum()
            torch.nn.functional.linear(LEFT, RIGHT[0].T)
            torch.einsum("bij,bjk->bk", LEFT, RIGHT)

    with FlopCounterMode(display=False) as counter:
        work()
    found = count_work(work)
    assert found.flops == counter.get_total_flops() > 0
    assert gradients or found.kernels == 4


def test_neither_counting_nor_recording_imports_torchs_compiler() -> None:
    """It takes longer than all else that a process imports."""
    program = """
import sys
import torch
from f2a2_sim.learners.tape import Tape
from f2a2_sim.learners.work import count_work
double = lambda x: 2 * x
assert count_work(lambda: double(torch.ones(3))).kernels == 2
assert Tape(double, [torch.ones(3)]).failure is None
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
