"""Where two armies of exactly N stand at the start of a battle, on a square map with walls at its border.

The stock ``battle_v4`` places ``int(sqrt(0.04 * map_size**2))`` squared units a side, so only square numbers,
and fewer on small maps, where its block runs into the wall. This module keeps its geometry (units two cells
apart, the blocks' inner columns 8 cells apart) and its density (0.04 units a side per cell: 256 on 80 x 80,
625 on 125 x 125), and equals it wherever it places a full square; between squares the rear column is left
partly empty.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.errors import UsageError

FEWEST, MOST = 12, 625
_SPACING = 2
_GAP = 3
_CELLS_PER_UNIT = 25  # 1 / 0.04, the stock density
_SMALLEST_MAP = 12  # battle_v4's own limit

Positions = NDArray[np.int32]


def smallest_map(agents: int) -> int:
    """The smallest map that holds ``agents`` a side at the stock density, and in two blocks that fit."""
    size = max(_SMALLEST_MAP, math.isqrt(_CELLS_PER_UNIT * agents - 1) + 1)
    while _block(agents, size) is None:
        size += 1
    return size


def place_armies(agents: int, map_size: int) -> tuple[Positions, Positions]:
    """Cells of the left and the right army, int32 ``[agents, 2]`` as (x, y), ordered by x, then y.

    The two are mirror images in the vertical line ``x = map_size // 2 - 1``.
    """
    check_agents(agents)
    block = _block(agents, map_size)
    if block is None:
        raise UsageError(
            f"world.map_size = {map_size}: two armies of {agents} do not fit on it; expected at least "
            f"{_smallest_block_map(agents)}. Give a larger map, fewer world.agents, or leave map_size out "
            f"(then {smallest_map(agents)})."
        )
    columns, rows = block
    centre = map_size // 2
    top = (map_size - _SPACING * rows) // 2
    left: list[tuple[int, int]] = []
    for column in range(columns):  # column 0 is the front
        count = rows if column < columns - 1 else agents - rows * (columns - 1)
        first = (rows - count) // 2
        x = centre - _GAP - _SPACING * (column + 1)
        left.extend((x, top + _SPACING * (first + row)) for row in range(count))
    right = [(2 * (centre - 1) - x, y) for x, y in left]
    return np.array(sorted(left), dtype=np.int32), np.array(sorted(right), dtype=np.int32)


def check_agents(agents: int) -> None:
    """Raise UsageError unless the number of agents is one that battle takes."""
    if not FEWEST <= agents <= MOST:
        raise UsageError(
            f"world.agents = {agents}: expected {FEWEST} to {MOST} a side in battle; change world.agents."
        )


def _block(agents: int, map_size: int) -> tuple[int, int] | None:
    """(columns, rows) of one army: as square as the map lets it be; None if it does not fit."""
    most_columns = (map_size // 2 - _GAP - 1) // _SPACING
    most_rows = (map_size - 2) // _SPACING
    if map_size < _SMALLEST_MAP or most_columns < 1:
        return None
    columns = min(math.isqrt(agents - 1) + 1, most_columns)
    rows = -(-agents // columns)
    if rows > most_rows:
        return None
    return -(-agents // rows), rows


def _smallest_block_map(agents: int) -> int:
    size = _SMALLEST_MAP
    while _block(agents, size) is None:
        size += 1
    return size
