"""Pairs, messages and rewards, in scenes set by hand."""

from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.worlds.particle import RoverTower


def scene() -> RoverTower:
    """Tower j leads rover (j + 1) % 4 to landmark j; rover i stands at (i, 0), landmark k at (k, 5)."""
    rules = RoverTower()
    rules.reset([np.random.RandomState(0)])
    state = rules.state
    state.position[0] = [(i, 0.0) for i in range(8)]
    state.landmark_position[0] = [(k, 5.0) for k in range(6)]
    state.rover_of[0] = [1, 2, 3, 0]
    state.goal[0] = [0, 1, 2, 3]
    return rules


def test_both_of_a_pair_get_the_squared_way() -> None:
    _, rewards = scene().step(np.zeros((1, 8), dtype=np.int64))
    of_pair = [
        -26.0,
        -26.0,
        -26.0,
        -34.0,
    ]  # of tower j: one to the side and five up; rover 0 three to the side
    assert rewards[0, 4:] == pytest.approx(of_pair)
    assert rewards[0, :4] == pytest.approx([-34.0, -26.0, -26.0, -26.0])


@pytest.mark.parametrize(("way", "bonus"), [(0.4152, 10.0), (0.4155, 0.0)])
def test_bonus(way: float, bonus: float) -> None:
    """Paid while the squared way is below 1.5 x (0.075 + 0.04) = 0.1725, so within 0.41533."""
    rules = scene()
    rules.state.position[0, 1] = (0.0, 5.0 - way)
    _, rewards = rules.step(np.zeros((1, 8), dtype=np.int64))
    assert rewards[0, [1, 4]] == pytest.approx([bonus - way**2] * 2)


def test_what_is_seen_and_heard() -> None:
    """A message is heard in the step in which it is sent; nothing is heard after the reset."""
    rules = scene()
    rovers, towers = rules._observe()
    assert rovers[0, 2].tolist() == [0, 1, 0, 0, *[0] * 5, 2.0, 0.0, 0.0, 0.0]
    (rovers, towers), _ = rules.step(np.array([[0, 0, 1, 0, 0, 4, 0, 0]]))
    assert rovers[0, 2] == pytest.approx([0, 1, 0, 0, 0, 0, 0, 0, 1, 2.0225, 0.0, 0.225, 0.0])
    assert rovers[0, 1, 4:9].tolist() == [1, 0, 0, 0, 0]
    assert towers[0, 1] == pytest.approx([0, 0, 1, 0, 2.0225, 0.0, 1.0, 5.0])


def test_towers_stand_still() -> None:
    rules = scene()
    rules.step(np.full((1, 8), 1))
    assert rules.state.position[0, 4:].tolist() == [[i, 0.0] for i in range(4, 8)]


def test_nobody_collides() -> None:
    rules = scene()
    rules.state.position[0] = 0.01 * rules.state.position[0]
    rules.step(np.zeros((1, 8), dtype=np.int64))
    assert not rules.state.velocity.any()
