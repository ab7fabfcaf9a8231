"""Rover Tower: rovers that see no map are talked to their goals by towers. MAAC's ``multi_speaker_listener``.

Four rovers (agents 0 to 3) move, four towers (4 to 7) speak one of five symbols a step, and six landmarks
stand about. In each episode tower j leads one rover to one landmark. A rover hears its own tower only,
without delay, and sees nothing but itself; a tower sees its rover and the goal. Nobody collides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from f2a2_sim.worlds.particle.base import (
    HALF_SIDE,
    NONE,
    Discs,
    Draws,
    Observations,
    one_hot_rows,
)
from f2a2_sim.worlds.particle.physics import DIRECTIONS, Bodies, FloatArray, IntArray, move

N_PAIRS = 4
N_AGENTS = 2 * N_PAIRS
N_LANDMARKS = 6
N_SYMBOLS = 5
ROVER_SIZE, LANDMARK_SIZE = 0.075, 0.04
BONUS = 10.0
BONUS_SQUARED_DISTANCE = 1.5 * (ROVER_SIZE + LANDMARK_SIZE)
"""The original holds the *squared* distance against 1.5 times the sizes: the bonus reaches 0.415 far."""

PALETTE = (
    np.array([[31, 119, 180], [255, 127, 14], [44, 160, 44], [214, 39, 40], [148, 103, 189], [140, 86, 75]])
    / 255.0
)
_TOWER_GREY = 0.25
_LIGHTER = 0.25
_SYMBOL = one_hot_rows(N_SYMBOLS)
_PARTNER = np.eye(N_PAIRS)


@dataclass
class RoverTowerState:
    """B rollouts between two steps.

    position, velocity: ``[B, 8, 2]``, rovers first. rover_of: ``[B, 4]``, the rover that tower j leads. goal:
    ``[B, 4]``, the landmark it leads it to. landmark_position: ``[B, 6, 2]``. message: ``[B, 4]``, the symbol
    that tower j sent in the last step, or NONE.
    """

    position: FloatArray
    velocity: FloatArray
    rover_of: IntArray
    goal: IntArray
    landmark_position: FloatArray
    message: IntArray

    @property
    def tower_of(self) -> IntArray:
        """The tower that leads rover i: ``[B, 4]``."""
        return np.argsort(self.rover_of, axis=1)

    @property
    def goal_position(self) -> FloatArray:
        """Where tower j leads its rover: ``[B, 4, 2]``."""
        return np.take_along_axis(self.landmark_position, self.goal[..., None], axis=1)

    @property
    def led_position(self) -> FloatArray:
        """Where the rover of tower j is: ``[B, 4, 2]``."""
        return np.take_along_axis(self.position, self.rover_of[..., None], axis=1)


class RoverTower:
    """The rules of Rover Tower for a batch of rollouts; see ``Rules``.

    Observations: rovers ``[B, 4, 13]`` = tower's number one-hot (4), its message one-hot (5), own position
    (2), own velocity (2); towers ``[B, 4, 8]`` = rover's number one-hot (4), its position (2), the goal's
    position (2).
    """

    name = "rover_tower"
    agents = tuple(f"rover_{i}" for i in range(N_PAIRS)) + tuple(f"tower_{i}" for i in range(N_PAIRS))
    observation_sizes = (13,) * N_PAIRS + (8,) * N_PAIRS
    n_actions = N_SYMBOLS
    episode_steps = 25
    bodies = Bodies(
        size=np.full(N_AGENTS, ROVER_SIZE),
        mass=np.ones(N_AGENTS),
        accel=np.full(N_AGENTS, 1.5),
        max_speed=np.ones(N_AGENTS),
        movable=np.arange(N_AGENTS) < N_PAIRS,
        collide=np.zeros(N_AGENTS, dtype=np.bool_),
    )
    state: RoverTowerState

    def reset(self, streams: Sequence[Draws]) -> Observations:
        starts = [_draw_episode(draws) for draws in streams]
        rover_of, goal, position, landmarks = (np.array(part) for part in zip(*starts, strict=True))
        self.state = RoverTowerState(
            position=position,
            velocity=np.zeros_like(position),
            rover_of=rover_of,
            goal=goal,
            landmark_position=landmarks,
            message=np.full_like(goal, NONE),
        )
        return self._observe()

    def step(self, actions: IntArray) -> tuple[Observations, FloatArray]:
        state = self.state
        direction = DIRECTIONS[actions]
        state.position, state.velocity = move(self.bodies, state.position, state.velocity, direction)
        state.message = actions[:, N_PAIRS:]
        return self._observe(), self._rewards()

    def discs(self, rollout: int = 0) -> Discs:
        state = self.state
        rovers = np.empty((N_PAIRS, 3))
        rovers[state.rover_of[rollout]] = PALETTE[state.goal[rollout]] + _LIGHTER
        return Discs(
            position=np.vstack([state.landmark_position[rollout], state.position[rollout]]),
            radius=np.concatenate([np.full(N_LANDMARKS, LANDMARK_SIZE), self.bodies.size]),
            colour=np.vstack([PALETTE, rovers, np.full((N_PAIRS, 3), _TOWER_GREY)]),
        )

    def _observe(self) -> Observations:
        state = self.state
        tower_of = state.tower_of
        heard = _SYMBOL[np.take_along_axis(state.message, tower_of, axis=1)]
        own = (state.position[:, :N_PAIRS], state.velocity[:, :N_PAIRS])
        rovers = np.concatenate([_PARTNER[tower_of], heard, *own], axis=2)
        towers = np.concatenate([_PARTNER[state.rover_of], state.led_position, state.goal_position], axis=2)
        return rovers, towers

    def _rewards(self) -> FloatArray:
        """Both of a pair get -q, and 10 more where q, the squared distance of rover and goal, is small."""
        state = self.state
        x, y = np.moveaxis(state.led_position - state.goal_position, 2, 0)
        squared = np.square(x) + np.square(y)
        of_pair = -squared + BONUS * (squared < BONUS_SQUARED_DISTANCE)
        of_rover = np.take_along_axis(of_pair, state.tower_of, axis=1)
        return np.concatenate([of_rover, of_pair], axis=1)


def _draw_episode(draws: Draws) -> tuple[list[int], list[int], FloatArray, FloatArray]:
    """Pairing, goals, agents' places, landmarks' places, in the order of the original's draws."""
    rover_of = list(range(N_PAIRS))
    draws.shuffle(rover_of)
    goal = [int(draws.choice(N_LANDMARKS)) for _ in range(N_PAIRS)]
    agents = draws.uniform(-HALF_SIDE, HALF_SIDE, (N_AGENTS, 2))
    landmarks = draws.uniform(-HALF_SIDE, HALF_SIDE, (N_LANDMARKS, 2))
    return rover_of, goal, agents, landmarks
