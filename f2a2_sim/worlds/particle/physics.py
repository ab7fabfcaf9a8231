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
_REACH = 100 * CONTACT_MARGIN  # farther apart, a push is below 1e-44 and is left out
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
    def pushes(self) -> BoolArray:
        """Whether i can be pushed by j, ``[A, A]``."""
        return self.push_share > 0.0

    @cached_property
    def touch_distance(self) -> FloatArray:
        """How near the centres of i and j are when they touch, ``[A, A]``."""
        return self.size[:, None] + self.size[None, :]


def distances(here: FloatArray, there: FloatArray) -> FloatArray:
    """From each place ``here [B, n, 2]`` to each place ``there [B, m, 2]``: ``[B, n, m]``."""
    x, y = (there[:, None, :, axis] - here[:, :, None, axis] for axis in (0, 1))
    return np.asarray(np.sqrt(np.square(x) + np.square(y)))


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
    if bodies.collide.any():
        add_contact_forces(bodies, position, force)
    moved = velocity * (1.0 - DAMPING) + force / bodies.mass[:, None] * STEP_TIME
    speed = lengths(moved)
    fast = speed > bodies.max_speed
    if fast.any():
        clipped = moved / np.where(fast, speed, 1.0)[..., None] * bodies.max_speed[:, None]
        moved = np.where(fast[..., None], clipped, moved)
    moved = np.where(bodies.movable[:, None], moved, velocity)
    return np.where(bodies.movable[:, None], position + moved * STEP_TIME, position), moved


def add_contact_forces(bodies: Bodies, position: FloatArray, force: FloatArray) -> None:
    """Add to each agent's force, contiguous ``[B, A, 2]``, the pushes of all others in their order.

    With d = p_i - p_j, r = abs(d) and k the margin, i takes from j the force 100 d/r k log(1 + exp(-(r - s_i
    - s_j) / k)), times ``push_share``. Two agents in the very same place give NaN, as in the original; that
    has probability 0.
    """
    n_agents = len(bodies.size)
    distance = distances(position, position)
    gap = distance - bodies.touch_distance
    pair = np.flatnonzero((gap < _REACH) & bodies.pushes)
    if not len(pair):
        return
    pushed, other = np.divmod(pair, n_agents)
    rollout, agent = np.divmod(pushed, n_agents)
    places = position.reshape(-1, 2)
    away = places[pushed] - places[rollout * n_agents + other]
    penetration = np.logaddexp(0.0, -gap.reshape(-1)[pair] / CONTACT_MARGIN) * CONTACT_MARGIN
    push = CONTACT_FORCE * away / distance.reshape(-1, 1)[pair] * penetration[:, None]
    push *= bodies.push_share[agent, other][:, None]
    coordinate = 2 * pushed[:, None] + np.arange(2)
    np.add.at(force.reshape(-1), coordinate.reshape(-1), push.reshape(-1))
