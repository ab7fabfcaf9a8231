"""Pictures of a battle, drawn with numpy alone so that they need no display."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GROUND = (250, 248, 243)
_WALL = (92, 92, 100)
_FULL = ((200, 30, 45), (25, 90, 190))  # an unhurt unit, left and right army
_SPENT = ((246, 190, 190), (185, 210, 246))  # the same about to die
_FULL_HP = 10.0

Army = tuple[NDArray[np.int32], NDArray[np.float32]]


def draw_battle(map_size: int, armies: Sequence[Army], scale: int = 8) -> NDArray[np.uint8]:
    """RGB picture, uint8 ``[map_size * scale, map_size * scale, 3]``; y grows downwards as on the map.

    armies: the left and the right one, each as (cells ``[m, 2]`` as x, y; hit points ``[m]``, 0 to 10).
    A unit is a square in its army's colour, the paler the fewer hit points it has; from scale 4 up cells are
    set apart by a line of ground.
    """
    cells = np.empty((map_size, map_size, 3), dtype=np.uint8)
    cells[:] = _GROUND
    cells[[0, -1], :] = _WALL
    cells[:, [0, -1]] = _WALL
    unit = np.zeros((map_size, map_size), dtype=np.bool_)
    for (places, hit_points), full, spent in zip(armies, _FULL, _SPENT, strict=True):
        share = np.clip(hit_points / _FULL_HP, 0.0, 1.0)[:, None]
        colours = np.asarray(spent) + share * (np.asarray(full) - np.asarray(spent))
        cells[places[:, 1], places[:, 0]] = np.rint(colours).astype(np.uint8)
        unit[places[:, 1], places[:, 0]] = True
    picture = cells.repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= 4:
        edge = np.zeros((scale, scale), dtype=np.bool_)
        edge[-1, :] = edge[:, -1] = True
        lines = np.tile(edge, (map_size, map_size)) & unit.repeat(scale, axis=0).repeat(scale, axis=1)
        picture[lines] = _GROUND
    return picture
