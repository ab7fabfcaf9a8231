from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from magent2.environments import battle_v4

from f2a2_sim.errors import UsageError
from f2a2_sim.worlds.battlefield import place_armies, smallest_map


@pytest.mark.parametrize(("agents", "size"), [(12, 18), (64, 40), (81, 45), (100, 50), (256, 80), (625, 125)])
def test_smallest_map_keeps_the_stock_density(agents: int, size: int) -> None:
    assert smallest_map(agents) == size


@given(st.integers(12, 625), st.integers(0, 60))
def test_exact_mirrored_and_inside_the_walls(agents: int, spare: int) -> None:
    size = smallest_map(agents) + spare
    left, right = place_armies(agents, size)
    assert len(left) == len(right) == agents
    everyone = np.concatenate([left, right])
    assert len(np.unique(everyone, axis=0)) == 2 * agents
    assert everyone.min() >= 1
    assert everyone.max() <= size - 2
    mirrored = np.stack([2 * (size // 2 - 1) - left[:, 0], left[:, 1]], axis=1)
    assert {tuple(cell) for cell in mirrored.tolist()} == {tuple(cell) for cell in right.tolist()}
    assert right[:, 0].min() - left[:, 0].max() == 8  # the gap between the fronts


@pytest.mark.parametrize("agents", [64, 81, 256, 625])
def test_squares_stand_where_battle_v4_puts_them(agents: int) -> None:
    size = smallest_map(agents)
    stock = battle_v4.parallel_env(map_size=size)
    stock.reset(seed=1)
    for handle, places in zip(stock.env.get_handles(), place_armies(agents, size), strict=True):
        np.testing.assert_array_equal(stock.env.get_pos(handle), places)


def test_a_map_too_small_says_what_would_do() -> None:
    with pytest.raises(UsageError, match=r"world\.map_size = 30: .*256.*at least 52.*80"):
        place_armies(256, 30)
    place_armies(256, 52)
    with pytest.raises(UsageError):
        place_armies(256, 51)


@pytest.mark.parametrize("agents", [0, 11, 626])
def test_numbers_of_agents_outside_the_range(agents: int) -> None:
    with pytest.raises(UsageError, match=rf"world\.agents = {agents}: expected 12 to 625"):
        place_armies(agents, 200)
