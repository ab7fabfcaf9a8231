"""Rover Tower: rovers that see no map are talked to their goals by towers. MAAC's ``multi_speaker_listener``.

Four rovers (agents 0 to 3) move, four towers (4 to 7) speak one of five symbols a step, and six landmarks
stand about. In each episode tower j leads one rover to one landmark. A rover hears its own tower only,
without delay, and sees nothing but itself; a tower sees its rover and the goal. Nobody collides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from f2a2_sim.worlds.particle.base import (
    HALF_SIDE,
    NONE,
    Discs,
    Draws,
    Observations,
    choose,
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


class _Guidance(NamedTuple):
    """What follows from pairing and goals, and so holds for an episode.

    Numbers of rovers, towers and messages are those in a batch's flat list of ``4 B``. rover_of: the rover of
    each tower, ``[B, 4]``. heard: the message for each rover, ``[B, 4]``. paid: the rover that each agent is
    paid for, ``[B, 8]``. goal: where each rover should go, ``[B, 4, 2]``. rovers, towers: observations, so
    far as they do not change.
    """

    rover_of: IntArray
    heard: IntArray
    paid: IntArray
    goal: FloatArray
    rovers: FloatArray
    towers: FloatArray


def _guidance(state: RoverTowerState) -> _Guidance:
    batch = len(state.goal)
    tower_of, first = state.tower_of, N_PAIRS * np.arange(batch)[:, None]
    rovers, towers = np.zeros((batch, N_PAIRS, 13)), np.zeros((batch, N_PAIRS, 8))
    rovers[..., :4] = _PARTNER[tower_of]
    towers[..., :4] = _PARTNER[state.rover_of]
    towers[..., 6:] = state.goal_position
    rover_of = state.rover_of + first
    return _Guidance(
        rover_of=rover_of,
        heard=tower_of + first,
        paid=np.concatenate([np.broadcast_to(np.arange(N_PAIRS) + first, rover_of.shape), rover_of], axis=1),
        goal=np.take_along_axis(state.goal_position, tower_of[..., None], axis=1),
        rovers=rovers,
        towers=towers,
    )


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

    def __init__(self) -> None:
        self._rovers = self.bodies.first(N_PAIRS)
        self._guidance_of = b""
        self._guidance: _Guidance

    def reset(self, streams: Sequence[Draws]) -> Observations:
        batch = len(streams)
        self.state = state = RoverTowerState(
            position=np.empty((batch, N_AGENTS, 2)),
            velocity=np.zeros((batch, N_AGENTS, 2)),
            rover_of=np.empty((batch, N_PAIRS), dtype=np.int64),
            goal=np.empty((batch, N_PAIRS), dtype=np.int64),
            landmark_position=np.empty((batch, N_LANDMARKS, 2)),
            message=np.full((batch, N_PAIRS), NONE),
        )
        for rollout, draws in enumerate(streams):  # in the order of the original's draws
            pairing = list(range(N_PAIRS))
            draws.shuffle(pairing)
            state.rover_of[rollout] = pairing
            state.goal[rollout] = choose(draws, N_LANDMARKS, N_PAIRS)
            places = draws.uniform(-HALF_SIDE, HALF_SIDE, (N_AGENTS + N_LANDMARKS, 2))
            state.position[rollout] = places[:N_AGENTS]
            state.landmark_position[rollout] = places[N_AGENTS:]
        return self._observe()

    def step(self, actions: IntArray) -> tuple[Observations, FloatArray]:
        state = self.state
        direction = DIRECTIONS.take(actions, axis=0)
        rovers = slice(0, N_PAIRS)
        state.position[:, rovers], state.velocity[:, rovers] = move(
            self._rovers, state.position[:, rovers], state.velocity[:, rovers], direction[:, rovers]
        )
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
        of_episode = state.rover_of.tobytes() + state.goal.tobytes() + state.landmark_position.tobytes()
        if of_episode != self._guidance_of:
            self._guidance_of, self._guidance = of_episode, _guidance(state)
        guidance = self._guidance
        position = state.position[:, :N_PAIRS]
        rovers, towers = guidance.rovers.copy(), guidance.towers.copy()
        rovers[..., 4:9] = _SYMBOL.take(state.message.take(guidance.heard), axis=0)
        rovers[..., 9:11] = position
        rovers[..., 11:] = state.velocity[:, :N_PAIRS]
        towers[..., 4:6] = position.reshape(-1, 2).take(guidance.rover_of, axis=0)
        return rovers, towers

    def _rewards(self) -> FloatArray:
        """Both of a pair get -q, and 10 more where q, the squared distance of rover and goal, is small."""
        way = self.state.position[:, :N_PAIRS] - self._guidance.goal
        way *= way
        squared = way[..., 0] + way[..., 1]
        of_rover = BONUS * (squared < BONUS_SQUARED_DISTANCE)
        of_rover -= squared
        return np.asarray(of_rover.take(self._guidance.paid))
