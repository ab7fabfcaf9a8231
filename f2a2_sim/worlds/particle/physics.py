"""How particles move and push each other, in a batch of rollouts: MAAC's fork of
``multiagent-particle-envs``.

It is not the physics of today's particle environments (``mpe2``): a mover's acceleration does not depend on
its mass and holds its factor ``accel`` twice, velocity is updated before position, and the push of a contact
is scaled by the ratio of the two masses.

Lengths and times are the world's own; a step takes 0.1. Leading axis B: rollouts. No sum here or in the rules
runs in an order that depends on B, so a rollout of a batch equals the same one alone, bit for bit.

The arrays are small, so that a step costs what its calls of numpy cost: x and y of all agents are one flat
axis where both are treated alike, and an offset is one complex number where it is subtracted or looked up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
ComplexArray = NDArray[np.complex128]

STEP_TIME = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
_REACH = 100 * CONTACT_MARGIN  # farther apart, a push is below 1e-44 and is left out
DIRECTIONS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float64)
"""The five actions of a mover, as MAAC's one-hot vectors mean them: stay, +x, -x, +y, -y."""


class Apart(NamedTuple):
    """How agents lie to one another: offset of j from i as ``x + iy``, and distance, both ``[B, A, A]``.

    An agent is farther from itself than it could be from another.
    """

    offset: ComplexArray
    distance: FloatArray


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

    def first(self, n: int) -> Bodies:
        """The first n agents alone."""
        return Bodies(*(getattr(self, field.name)[:n] for field in fields(self)))

    @cached_property
    def drive(self) -> FloatArray:
        """Force of an action along its axis, for x and y of each agent: ``[2 A]``."""
        return np.repeat(self.mass * self.accel * self.accel, 2)

    @cached_property
    def inertia(self) -> FloatArray:
        """Mass, for x and y of each agent: ``[2 A]``."""
        return np.repeat(self.mass, 2)

    @cached_property
    def surely_allowed(self) -> float:
        """Square of a speed that no agent has to be slowed down from."""
        return float(self.max_speed.min()) ** 2

    @cached_property
    def all_move(self) -> bool:
        return bool(self.movable.all())

    @cached_property
    def any_collides(self) -> bool:
        return bool(self.collide.any())

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
    def touch_distance(self) -> FloatArray:
        """How near the centres of i and j are when they touch, ``[A, A]``."""
        return self.size[:, None] + self.size[None, :]

    @cached_property
    def reach(self) -> FloatArray:
        """How near j must be for its push on i to count, ``[A, A]``; 0 if there is none."""
        return np.where(self.push_share > 0.0, self.touch_distance + _REACH, 0.0)


def apart(position: FloatArray) -> Apart:
    """Of agents at ``position [B, A, 2]``."""
    places = complex_of(position)
    offset = places[:, None, :] - places[:, :, None]
    x_y = offset.view(np.float64)
    x_y = x_y * x_y
    distance = np.sqrt(x_y[..., ::2] + x_y[..., 1::2])
    distance.reshape(len(places), -1)[:, :: places.shape[1] + 1] = np.inf
    return Apart(offset, distance)


def complex_of(x_y: FloatArray) -> ComplexArray:
    """``[..., 2]`` seen as complex numbers ``[...]``."""
    return x_y.view(np.complex128)[..., 0]


def move(
    bodies: Bodies,
    position: FloatArray,
    velocity: FloatArray,
    direction: FloatArray,
    known: Apart | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Position and velocity after one step; all ``[B, A, 2]``, ``direction`` is a row of DIRECTIONS.

    Semi-implicit Euler: contacts are those of the old positions, and positions move with the new velocity.
    ``known``: what `apart` gives for these positions, if it is at hand.
    """
    shape, flat = position.shape, (len(position), -1)
    force = direction.reshape(flat) * bodies.drive
    if bodies.any_collides:
        add_contact_forces(bodies, apart(position) if known is None else known, force)
    force /= bodies.inertia
    force *= STEP_TIME
    moved = velocity.reshape(flat) * (1.0 - DAMPING)
    moved += force
    squared = moved * moved
    squared = squared[:, ::2] + squared[:, 1::2]
    if not np.maximum.reduce(squared, axis=None) <= bodies.surely_allowed:
        _slow_down(bodies, moved.reshape(shape), np.sqrt(squared))
    place = moved * STEP_TIME
    place += position.reshape(flat)
    place, moved = place.reshape(shape), moved.reshape(shape)
    if not bodies.all_move:
        place[:, ~bodies.movable] = position[:, ~bodies.movable]
        moved[:, ~bodies.movable] = velocity[:, ~bodies.movable]
    return place, moved


def _slow_down(bodies: Bodies, moved: FloatArray, speed: FloatArray) -> None:
    """Give those who are too fast their greatest speed: ``moved [B, A, 2]`` at ``speed [B, A]``."""
    fast = speed > bodies.max_speed
    clipped = moved / np.where(fast, speed, 1.0)[..., None] * bodies.max_speed[:, None]
    np.copyto(moved, clipped, where=fast[..., None])


def add_contact_forces(bodies: Bodies, near: Apart, force: FloatArray) -> None:
    """Add to each agent's force, contiguous ``[B, 2 A]``, the pushes of all others in their order.

    With d = p_i - p_j, r = abs(d) and k the margin, i takes from j the force 100 d/r k log(1 + exp(-(r - s_i
    - s_j) / k)), times ``push_share``. Two agents in the very same place give NaN, as in the original; that
    has probability 0.
    """
    n_agents = len(bodies.size)
    pair = (near.distance < bodies.reach).reshape(-1).nonzero()[0]
    if not len(pair):
        return
    pushed = pair // n_agents
    cell = pair % n_agents**2
    distance = near.distance.take(pair)
    overlap = bodies.touch_distance.take(cell)
    overlap -= distance
    overlap /= CONTACT_MARGIN
    penetration = np.logaddexp(0.0, overlap)
    penetration *= CONTACT_MARGIN
    push = near.offset.take(pair)
    x_y = push.view(np.float64).reshape(-1, 2)
    x_y *= -CONTACT_FORCE
    x_y /= distance[:, None]
    x_y *= penetration[:, None]
    x_y *= bodies.push_share.take(cell)[:, None]
    np.add.at(force.view(np.complex128).reshape(-1), pushed, push)
