"""From Gymnasium's spaces to what a learner takes: flat float32 vectors in, a number of actions out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary
from numpy.typing import NDArray

from f2a2_sim.errors import UsageError

Encoder = Callable[[Any], NDArray[np.float32]]


def observation_encoder(space: object, where: str) -> tuple[int, Encoder]:
    """Size and encoder of an agent's observations: Box and MultiBinary flattened, Discrete one-hot.

    ``where`` names environment and agent in the UsageError that any other space raises.
    """
    if isinstance(space, Box | MultiBinary):
        size = int(np.prod(space.shape, dtype=np.int64))
        return size, _flatten
    if isinstance(space, Discrete):
        return int(space.n), _one_hot(int(space.n), int(space.start))
    raise UsageError(
        f"{where}: its observation space is {space!r}; expected Box, Discrete or MultiBinary. "
        "Wrap the environment so that it observes one of these, and name the wrapped one in world.env."
    )


def discrete_actions(space: object, where: str) -> tuple[int, int]:
    """Number of actions and the first of them; UsageError if they are not discrete."""
    if isinstance(space, Discrete):
        return int(space.n), int(space.start)
    hint = (
        "Many environments have a switch for it, e.g. world.env_args: {continuous_actions: false}"
        if isinstance(space, Box)
        else "Wrap the environment so that one number names the action, and name the wrapped one in world.env"
    )
    raise UsageError(f"{where}: its action space is {space!r}; expected Discrete. {hint}.")


def _flatten(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, dtype=np.float32).reshape(-1)


def _one_hot(n: int, start: int) -> Encoder:
    def encode(value: Any) -> NDArray[np.float32]:
        vector = np.zeros(n, dtype=np.float32)
        vector[int(value) - start] = 1.0
        return vector

    return encode
