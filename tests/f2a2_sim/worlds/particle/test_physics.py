"""Motion and contact, by numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from f2a2_sim.worlds.particle.physics import DIRECTIONS, Bodies, move


def bodies(n: int, **changes: list[float] | list[bool]) -> Bodies:
    given = {name: np.array(value) for name, value in changes.items()}
    usual = {
        "size": np.full(n, 0.05),
        "mass": np.ones(n),
        "accel": np.full(n, 1.5),
        "max_speed": np.ones(n),
        "movable": np.ones(n, dtype=np.bool_),
        "collide": np.ones(n, dtype=np.bool_),
    }
    return Bodies(**usual | given)


def at(*places: tuple[float, float]) -> np.ndarray:
    return np.array([places], dtype=np.float64)


def stay(n: int) -> np.ndarray:
    return np.zeros((1, n, 2))


@pytest.mark.parametrize("mass", [1.0, 2.25])
def test_one_step_from_rest(mass: float) -> None:
    """0.1 x 1.5 x 1.5 whatever the mass, and the place moves with the new velocity."""
    place, velocity = move(bodies(1, mass=[mass]), at((0, 0)), stay(1), DIRECTIONS[[[1]]])
    assert velocity[0, 0] == pytest.approx([0.225, 0.0], abs=1e-15)
    assert place[0, 0] == pytest.approx([0.0225, 0.0], abs=1e-15)


@pytest.mark.parametrize(("action", "way"), list(enumerate([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])))
def test_directions(action: int, way: tuple[int, int]) -> None:
    _, velocity = move(bodies(1), at((0.3, 0.3)), stay(1), DIRECTIONS[[[action]]])
    assert velocity[0, 0] == pytest.approx([0.225 * way[0], 0.225 * way[1]], abs=1e-15)


def test_terminal_speed_is_nine_tenths() -> None:
    """The fixed point of v = 0.75 v + 0.225; the place goes on by 0.09 a step."""
    place, velocity = at((0, 0)), stay(1)
    for _ in range(200):
        before = place
        place, velocity = move(bodies(1), place, velocity, DIRECTIONS[[[3]]])
    assert velocity[0, 0] == pytest.approx([0.0, 0.9], abs=1e-12)
    assert (place - before)[0, 0] == pytest.approx([0.0, 0.09], abs=1e-12)


def test_contact_of_unequal_masses() -> None:
    """Masses 1 and 2.25, overlapping by 0.02: -0.45 and 0.0395, as measured in the original."""
    pair = bodies(2, mass=[1.0, 2.25], size=[0.05, 0.075])
    push = 100 * 1e-3 * math.log1p(math.exp(20))
    place, velocity = move(pair, at((0, 0), (0.105, 0)), stay(2), stay(2))
    assert velocity[0, 0, 0] == pytest.approx(-0.1 * push * 2.25, rel=1e-12)
    assert velocity[0, 1, 0] == pytest.approx(0.1 * push / 2.25 / 2.25, rel=1e-12)
    assert velocity[0, :, 0] == pytest.approx([-0.45, 0.0395], abs=5e-5)
    assert velocity[0, :, 1].tolist() == [0.0, 0.0]
    assert place[0, :, 0] == pytest.approx([-0.045, 0.105 + 0.00395], abs=5e-6)


def test_contact_goes_along_the_line_of_centres_and_is_soft() -> None:
    """Just touching, at right angles 3-4-5: push 100 k log 2 along (-0.6, -0.8)."""
    place = at((0, 0), (0.06, 0.08))
    _, velocity = move(bodies(2), place, stay(2), stay(2))
    speed = 0.1 * 100 * 1e-3 * math.log(2)
    assert velocity[0, 0] == pytest.approx([-0.6 * speed, -0.8 * speed], rel=1e-9)
    assert velocity[0, 1] == pytest.approx([0.6 * speed, 0.8 * speed], rel=1e-9)


def test_who_pushes_whom() -> None:
    """Who does not move takes no push but gives one, unscaled; who does not collide does neither."""
    three = bodies(3, mass=[1.0, 4.0, 1.0], movable=[True, False, True], collide=[True, True, False])
    place, velocity = move(three, at((0, 0), (0.08, 0), (-0.04, 0)), stay(3), DIRECTIONS[[[0, 1, 0]]])
    push = 100 * 1e-3 * math.log1p(math.exp(20))
    assert velocity[0, :, 0] == pytest.approx([-0.1 * push, 0.0, 0.0], rel=1e-12)
    assert place[0, 1:].tolist() == [[0.08, 0.0], [-0.04, 0.0]]


def test_speed_is_clipped_to_its_length_in_its_direction() -> None:
    velocity = np.array([[[3.0, 4.0], [0.9, 0.0]]])
    far = at((0, 0), (5, 5))
    place, after = move(bodies(2, max_speed=[0.5, 1.0]), far, velocity, stay(2))
    assert after[0, 0] == pytest.approx([0.3, 0.4], abs=1e-15)
    assert place[0, 0] == pytest.approx([0.03, 0.04], abs=1e-15)
    assert after[0, 1] == pytest.approx([0.675, 0.0], abs=1e-15)


def test_pairs_left_out_would_not_have_shown() -> None:
    """Just within and just beyond reach, a push is too small to tell from none."""
    for gap in (0.0999, 0.1001):
        _, velocity = move(bodies(2), at((0, 0), (0.1 + gap, 0)), stay(2), stay(2))
        assert abs(velocity).max() < 1e-40
