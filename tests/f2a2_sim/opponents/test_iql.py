from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from f2a2_sim.errors import UsageError
from f2a2_sim.opponents import make_opponent
from f2a2_sim.opponents.iql import IqlOpponent, Layer, SoftPolicy, load_opponent, save_opponent

SIZES = (5, 4, 3)
POLICY = SoftPolicy(epsilon=0.25, temperature=0.5)


def random_layers(sizes: tuple[int, ...] = SIZES) -> list[Layer]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(b, a)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in pairwise(sizes)
    ]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "policy.safetensors"
    save_opponent(path, random_layers(), POLICY, 0.1, {"rounds": "7"})
    return path


def test_values_are_those_of_the_torch_network(saved: Path) -> None:
    layers = random_layers()
    first, second = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
    for module, (weight, bias) in zip((first, second), layers, strict=True):
        module.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    network = torch.nn.Sequential(first, torch.nn.LeakyReLU(0.1), second)
    seen = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    with torch.no_grad():
        want = network(torch.from_numpy(seen)).numpy()
    opponent = load_opponent(saved, 5, 3)
    np.testing.assert_allclose(opponent.values(seen), want, rtol=1e-5, atol=1e-6)
    assert opponent.policy == POLICY
    assert not saved.with_name(saved.name + ".partial").exists()


def test_a_soft_policy_picks_as_often_as_it_says() -> None:
    """epsilon/3 + (1 - epsilon) softmax(values / temperature), over a grid of all uniforms."""
    values = np.array([0.3, -0.2, 0.5], dtype=np.float32)
    grid = (np.arange(400) + 0.5) / 400
    uniforms = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    picked = POLICY.choose(np.tile(values, (len(uniforms), 1)), uniforms)
    soft = np.exp(values / 0.5) / np.exp(values / 0.5).sum()
    np.testing.assert_allclose(np.bincount(picked) / len(picked), 0.25 / 3 + 0.75 * soft, atol=2e-3)


def test_greedy_at_temperature_zero() -> None:
    values = np.array([[0.0, 2.0, 2.0], [3.0, 1.0, 2.0]], dtype=np.float32)
    assert SoftPolicy(0.0, 0.0).choose(values, np.zeros((2, 2))).tolist() == [1, 0]
    almost_one = np.full((2, 2), 1 - 2.0**-53)
    assert SoftPolicy(0.0, 0.01).choose(values, almost_one).tolist() == [2, 0]
    assert SoftPolicy(1.0, 0.01).choose(values, almost_one).tolist() == [2, 2]


def test_nobody_to_act_for() -> None:
    opponent = IqlOpponent(random_layers(), POLICY)
    assert opponent.act(np.zeros((0, 5), np.float32), np.zeros((0, 2))).shape == (0,)


def damaged(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-9])


def foreign(saved: Path) -> None:
    save_file({"w": np.zeros(3, np.float32)}, saved)


def no_safetensors(saved: Path) -> None:
    saved.write_text("PK nonsense")


def rewrite(saved: Path, tensors: dict[str, np.ndarray] | None = None, **metadata: str) -> None:
    told = {"format": "f2a2-sim opponent", "version": "1", "epsilon": "0", "temperature": "0"}
    told |= {"negative_slope": "0.01"} | metadata
    if tensors is None:
        tensors = {}
        for index, (weight, bias) in enumerate(random_layers()):
            tensors |= {f"layers.{index}.weight": weight, f"layers.{index}.bias": bias}
    save_file(tensors, saved, metadata=told)


def layer(weight: tuple[int, ...], bias: tuple[int, ...], fill: float = 0.0) -> dict[str, np.ndarray]:
    return {
        "layers.0.weight": np.full(weight, fill, np.float32),
        "layers.0.bias": np.zeros(bias, np.float32),
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged, "cannot be read as safetensors"),
        (no_safetensors, "cannot be read as safetensors"),
        (Path.unlink, "cannot be read as safetensors"),
        (foreign, "metadata is not that of 'f2a2-sim opponent'"),
        (lambda p: rewrite(p, version="2"), "metadata is not that of"),
        (lambda p: rewrite(p, epsilon="often"), "epsilon, temperature or negative_slope is no number"),
        (lambda p: rewrite(p, temperature="-1"), "temperature -1.0 below 0"),
        (lambda p: rewrite(p, epsilon="nan"), "epsilon nan is not within"),
        (lambda p: rewrite(p, {}), "its tensors are"),
        (lambda p: rewrite(p, {"layers.1.bias": np.zeros(3, np.float32)}), "its tensors are"),
        (lambda p: rewrite(p, layer((3, 5), (4,))), "layer 0 has weight"),
        (lambda p: rewrite(p, layer((3, 5), (3,), np.inf)), "layer 0 holds numbers that are not finite"),
        (lambda p: rewrite(p, layer((3, 6), (3,))), "maps 6 inputs to 3 actions, this world has 5 and 3"),
        (lambda p: rewrite(p, layer((2, 5), (2,))), "maps 5 inputs to 2 actions"),
    ],
)
def test_files_that_are_no_policy_for_this_world(saved: Path, spoil: object, message: str) -> None:
    spoil(saved)  # type: ignore[operator]
    with pytest.raises(UsageError, match=message) as told:
        make_opponent(str(saved), 5, 3)
    assert str(told.value).startswith(f"world.opponent = {str(saved)!r}: ")
    assert "train-opponent" in str(told.value)


def test_half_precision_is_read_too(saved: Path) -> None:
    rewrite(saved, {k: v.astype(np.float16) for k, v in layer((3, 5), (3,), 0.5).items()})
    assert load_opponent(saved, 5, 3).values(np.ones((1, 5), np.float32)).tolist() == [[2.5, 2.5, 2.5]]


def test_random_covers_every_action_evenly() -> None:
    uniforms = np.stack([(np.arange(2100) + 0.5) / 2100, np.zeros(2100)], axis=1)
    picked = make_opponent("random", 845, 21).act(np.zeros((2100, 0), np.float32), uniforms)
    assert np.bincount(picked).tolist() == [100] * 21
