"""A scripted policy that really fights, so that worlds are tested with hits, kills and deaths."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

Brawler = Callable[[NDArray[np.float32], int], NDArray[np.int64]]

_WALL, _ENEMY = 0, 3  # channels of the view
_ATTACKS = {
    (-1, -1): 13,
    (0, -1): 14,
    (1, -1): 15,
    (-1, 0): 16,
    (1, 0): 17,
    (-1, 1): 18,
    (0, 1): 19,
    (1, 1): 20,
}
_MOVES = {(-1, -1): 1, (0, -1): 2, (1, -1): 3, (-1, 0): 5, (1, 0): 7, (-1, 1): 9, (0, 1): 10, (1, 1): 11}
_FAR = {(1, 0): 8, (-1, 0): 4, (0, 1): 12, (0, -1): 0}


def _one(view: NDArray[np.float32], side: int) -> int:
    enemies = np.argwhere(view[:, :, _ENEMY] > 0) - 6
    if len(enemies):
        dy, dx = enemies[np.abs(enemies).max(axis=1).argmin()].tolist()
        step = (int(np.sign(dx)), int(np.sign(dy)))
        return _ATTACKS[step] if max(abs(dx), abs(dy)) == 1 else _MOVES[step]
    walls = {(1, 0): view[6, 8, _WALL], (0, 1): view[8, 6, _WALL]}
    walls |= {(-1, 0): view[6, 4, _WALL], (0, -1): view[4, 6, _WALL]}
    around = [(1, 0), (0, 1), (-1, 0), (0, -1)] * 2  # along the walls, clockwise
    for wall, onward in pairwise(around):
        if walls[wall] > 0 and not walls[onward] > 0:
            return _FAR[onward]
    return (8, 4)[side]


@pytest.fixture
def brawl() -> Brawler:
    """Attack the nearest enemy seen, else charge: ``brawl(observations [m, 845], side) -> actions [m]``."""

    def act(observations: NDArray[np.float32], side: int) -> NDArray[np.int64]:
        views = observations.reshape(-1, 13, 13, 5)
        return np.array([_one(view, side) for view in views], dtype=np.int64)

    return act
