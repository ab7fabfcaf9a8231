"""MAgent2's engine and the stock battle's configuration, imported without a side effect on the rest.

On import MAgent2 sets the environment variable OMP_NUM_THREADS to half the cores if it is unset. Its wheels
do not use OpenMP, but torch does, and would take the number over if imported later.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

_VARIABLE = "OMP_NUM_THREADS"


def _import(module: str) -> Any:
    before = os.environ.get(_VARIABLE)
    imported = importlib.import_module(module)
    if before is None:
        os.environ.pop(_VARIABLE, None)
    return imported


def new_grid(map_size: int) -> Any:
    """A ``magent2.GridWorld`` with the rules and rewards of ``battle_v4`` on a square map."""
    battle = _import("magent2.environments.battle.battle")
    config = battle.get_config(map_size, False, 0, **battle.default_reward_args)
    return _import("magent2.gridworld").GridWorld(config, map_size=map_size)
