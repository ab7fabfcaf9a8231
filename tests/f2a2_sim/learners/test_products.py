"""Products by whichever library, on stacks and views as learners have them; softmax; what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from f2a2_sim.learners import few, products
from f2a2_sim.learners.work import count_work

ROWS = 1200  # enough to be computed agent by agent


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape)).float()


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("outputs", [1, 5, 40])
@pytest.mark.parametrize("leaky", [False, True])
def test_products_are_the_formula(
    plain: bool, outputs: int, leaky: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_plain", plain)
    rows, bias = normal(3, ROWS, 24)[:, :, 2:], normal(3, 1, outputs)
    dense, gaps = normal(3, 22, outputs), normal(3, 22, outputs + 7)[:, :, 3 : 3 + outputs]
    for weight in (dense, gaps, normal(3, outputs, 22).mT):
        expected = rows.double() @ weight.double() + bias.double()
        if leaky:
            expected = torch.where(expected > 0, expected, 0.01 * expected)
        out = torch.empty(3, ROWS, outputs)
        products.multiply(rows, weight, out, bias, leaky)
        close(out, expected)
        close(products.linear(rows[1], weight[1], bias[1, 0], leaky), expected[1])
        for agents in (slice(3), slice(1, 2)):
            close(products.product(rows[agents], weight[agents], bias[agents], leaky), expected[agents])


@pytest.mark.parametrize("plain", [False, True])
def test_a_leaky_relu_is_gone_back_through(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_plain", plain)
    rows, weight, activation = normal(3, ROWS, 24), normal(3, 24, 10), normal(3, ROWS, 10)
    out = torch.empty(3, ROWS, 12)[..., 1:11]
    products.multiply_before_leak(rows, weight, activation, out)
    behind = rows.double() @ weight.double()
    close(out, torch.where(activation > 0, behind, 0.01 * behind))


@pytest.mark.parametrize(("plain", "ahead"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("cached", [1, 2**20])
@pytest.mark.parametrize("outputs", [1, 5, 22, 40])
def test_transposed_products_are_the_formula(
    plain: bool, ahead: bool, cached: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_plain", plain)
    monkeypatch.setattr(products, "_ahead", ahead)
    monkeypatch.setattr(products, "_CACHED", cached)
    left, right = normal(3, ROWS, 30)[:, :, 4:26], normal(ROWS, 3, outputs).transpose(0, 1)
    out = torch.empty(3, 22, outputs)
    products.multiply_transposed(left, right, out)
    expected = left.double().mT @ right.double()
    close(out, expected)
    products.write_transposed(left[1], right[1], out[0])
    products.write_transposed(left[2], right[2], out[1], add=True)
    close(out[:2], torch.stack([expected[1], expected[1] + expected[2]]))


def test_softmax_over_the_last_axis() -> None:
    values = normal(2, 30, 5).double()
    torch.testing.assert_close(few.softmax(values), values.softmax(dim=-1))
    torch.testing.assert_close(few.log_softmax(values), values.log_softmax(dim=-1))


def test_flops_are_those_of_plain_products() -> None:
    rows, weight, out = normal(2, ROWS, 8), normal(2, 8, 9), torch.empty(2, ROWS, 9)
    each = 2 * 2 * ROWS * 8 * 9
    assert count_work(lambda: products.multiply(rows, weight, out)).flops == each
    assert count_work(lambda: out.baddbmm_(rows, weight)).flops == each


@pytest.mark.parametrize(
    ("vendor", "family", "ahead"),
    [("AuthenticAMD", 26, True), ("AuthenticAMD", 25, False), ("GenuineIntel", 26, False), ("", 0, False)],
)
def test_libraries_are_even_but_on_new_processors_of_amd(
    vendor: str, family: int, ahead: bool, tmp_path: Path
) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: avx512f\n\n")
    assert products._is_ahead(told) == ahead
    assert not products._is_ahead(tmp_path / "missing")
