"""How particles move and push each other, in a batch of rollouts: MAAC's fork of
``multiagent-particle-envs``.

It is not the physics of today's particle environments (``mpe2``): a mover's acceleration does not depend on
its mass and holds its factor ``accel`` twice, velocity is updated before position, and the push of a contact
is scaled by the ratio of the two masses.

Lengths and times are the world's own; a step takes 0.1. Leading axis B: rollouts. No sum here or in the rules
runs in an order that depends on B, so a rollout of a batch equals the same one alone, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

STEP_TIME = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
DIRECTIONS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float64)
"""The five actions of a mover, as MAAC's one-hot vectors mean them: stay, +x, -x, +y, -y."""


@dataclass(frozen=True, eq=False)
class Bodies:
    """What does not change of A agents; every array is ``[A]``.

    ``collide``: pushes, and is pushed by, others that collide.
    """

    size: FloatArray
    mass: FloatArray
    accel: FloatArray
    max_speed: FloatArray
    movable: BoolArray
    collide: BoolArray

    @cached_property
    def push_share(self) -> FloatArray:
        """Factor on the push that i takes from j, ``[A, A]``: m_j / m_i if both move, 1 if only i does, else
        0.

        Action and reaction thus differ where masses do; no one pushes itself.
        """
        ratio = np.where(self.movable[None, :], self.mass[None, :] / self.mass[:, None], 1.0)
        pairs = self.collide[:, None] & self.collide[None, :] & self.movable[:, None]
        np.fill_diagonal(pairs, False)
        return np.where(pairs, ratio, 0.0)

    @cached_property
    def any_contact(self) -> bool:
        return bool(self.push_share.any())


def offsets(here: FloatArray, there: FloatArray) -> FloatArray:
    """From each place ``here [B, n, 2]`` to each place ``there [B, m, 2]``: ``[B, n, m, 2]``."""
    return np.asarray(there[:, None, :, :] - here[:, :, None, :])


def lengths(vectors: FloatArray) -> FloatArray:
    """Euclidean norms of ``[..., 2]``."""
    return np.asarray(np.sqrt(np.square(vectors[..., 0]) + np.square(vectors[..., 1])))


def move(
    bodies: Bodies, position: FloatArray, velocity: FloatArray, direction: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Position and velocity after one step; all ``[B, A, 2]``, ``direction`` is a row of DIRECTIONS.

    Semi-implicit Euler: contacts are those of the old positions, and positions move with the new velocity.
    """
    force = (bodies.mass * bodies.accel)[:, None] * (bodies.accel[:, None] * direction)
    if bodies.any_contact:
        pushes = contact_forces(bodies, position)
        for other in range(pushes.shape[2]):
            force += pushes[:, :, other]
    moved = velocity * (1.0 - DAMPING) + force / bodies.mass[:, None] * STEP_TIME
    speed = lengths(moved)
    fast = speed > bodies.max_speed
    if fast.any():
        clipped = moved / np.where(fast, speed, 1.0)[..., None] * bodies.max_speed[:, None]
        moved = np.where(fast[..., None], clipped, moved)
    moved = np.where(bodies.movable[:, None], moved, velocity)
    return np.where(bodies.movable[:, None], position + moved * STEP_TIME, position), moved


def contact_forces(bodies: Bodies, position: FloatArray) -> FloatArray:
    """Force on agent i from agent j, ``[B, i, j, 2]``, zero for pairs without contact force.

    With d = p_i - p_j, r = abs(d) and k the margin: 100 d/r k log(1 + exp(-(r - s_i - s_j) / k)), times
    ``push_share``. Two agents in the very same place give NaN, as in the original; that has probability 0.
    """
    away = -offsets(position, position)
    distance = lengths(away) + np.eye(position.shape[1])  # 1 on the diagonal, where nothing is pushed
    gap = distance - (bodies.size[:, None] + bodies.size[None, :])
    penetration = np.logaddexp(0.0, -gap / CONTACT_MARGIN) * CONTACT_MARGIN
    push = CONTACT_FORCE * away / distance[..., None] * penetration[..., None]
    return np.asarray(push * bodies.push_share[..., None])
