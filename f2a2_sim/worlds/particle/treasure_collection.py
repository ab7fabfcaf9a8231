"""Cooperative Treasure Collection: collectors carry treasures to deposits. MAAC's
``fullobs_collect_treasure``.

Six collectors (agents 0 to 5) pick up treasures of two types by touching them, one at a time, and bring each
to the deposit of its type (agents 6 and 7, which move too). A treasure that was taken comes back two steps
later, somewhere and of some type. All see everything, and agents push each other.

Within a step: agents move; observations and rewards follow from where they are then; only after that
treasures are taken, brought and put out anew, which is seen one step later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from f2a2_sim.worlds.particle.base import HALF_SIDE, NONE, Discs, Draws, Observations, one_hot_rows
from f2a2_sim.worlds.particle.physics import (
    DIRECTIONS,
    Bodies,
    BoolArray,
    FloatArray,
    IntArray,
    distances,
    lengths,
    move,
)

N_COLLECTORS = 6
N_TYPES = 2  # and as many deposits: deposit d takes treasures of type d
N_AGENTS = N_COLLECTORS + N_TYPES
N_TREASURES = 6
TREASURE_SIZE = 0.025
TREASURE_HALF_SIDE = 0.95  # treasures lie within this on both axes
AWAY = -999.0  # both coordinates of a treasure that was taken
RESPAWN_PROBABILITY = 1.0

TOUCH_REWARD = 5.0
COLLISION_PENALTY = 5.0
DISTANCE_PENALTY = 0.1

PALETTE = np.array([[31, 119, 180], [255, 127, 14]]) / 255.0
_COLLECTOR_GREY = 0.85
_CARRYING = 0.85  # of the treasure's colour
_DEPOSIT = 0.35

_CHUNK = 32  # rollouts whose observations are put in order at once: the work arrays stay in the cache

_TYPE = one_hot_rows(N_TYPES)
_NOT_ONESELF = np.diag(np.full(N_AGENTS, np.inf))
_DEPOSIT_TYPE = np.array([NONE] * N_COLLECTORS + list(range(N_TYPES)))
_COLLECTORS, _DEPOSITS = slice(0, N_COLLECTORS), slice(N_COLLECTORS, N_AGENTS)


@dataclass
class TreasureState:
    """B rollouts between two steps.

    position, velocity: ``[B, 8, 2]``, collectors first. holding: ``[B, 6]``, type of the treasure that a
    collector carries, or NONE. treasure_position ``[B, 6, 2]``, treasure_type ``[B, 6]``, treasure_alive
    ``[B, 6]``: a treasure that was taken is not alive, and AWAY with its old type until it is put out anew.
    """

    position: FloatArray
    velocity: FloatArray
    holding: IntArray
    treasure_position: FloatArray
    treasure_type: IntArray
    treasure_alive: BoolArray


class _Distances(NamedTuple):
    """From agent to agent ``[B, 8, 8]`` and from agent to treasure ``[B, 8, 6]``."""

    agent: FloatArray
    treasure: FloatArray


class TreasureCollection:
    """The rules of Cooperative Treasure Collection for a batch of rollouts; see ``Rules``.

    Observations: collectors ``[B, 6, 86]``, deposits ``[B, 2, 84]`` = own position (2), own velocity (2),
    collectors only: own holding one-hot (2); the 7 others, nearest first, each with offset (2), velocity (2),
    deposit's type one-hot (2), holding one-hot (2); the 6 treasures, nearest first, each with offset (2),
    type one-hot (2).
    """

    name = "ctc"
    agents = tuple(f"collector_{i}" for i in range(N_COLLECTORS)) + tuple(
        f"deposit_{i}" for i in range(N_TYPES)
    )
    observation_sizes = (86,) * N_COLLECTORS + (84,) * N_TYPES
    n_actions = len(DIRECTIONS)
    episode_steps = 100
    bodies = Bodies(
        size=np.array([0.05] * N_COLLECTORS + [0.075] * N_TYPES),
        mass=np.array([1.0] * N_COLLECTORS + [2.25] * N_TYPES),
        accel=np.full(N_AGENTS, 1.5),
        max_speed=np.ones(N_AGENTS),
        movable=np.ones(N_AGENTS, dtype=np.bool_),
        collide=np.ones(N_AGENTS, dtype=np.bool_),
    )
    state: TreasureState
    streams: Sequence[Draws]

    def reset(self, streams: Sequence[Draws]) -> Observations:
        self.streams = streams
        batch = len(streams)
        self.state = TreasureState(
            position=np.empty((batch, N_AGENTS, 2)),
            velocity=np.zeros((batch, N_AGENTS, 2)),
            holding=np.full((batch, N_COLLECTORS), NONE),
            treasure_position=np.empty((batch, N_TREASURES, 2)),
            treasure_type=np.empty((batch, N_TREASURES), dtype=np.int64),
            treasure_alive=np.ones((batch, N_TREASURES), dtype=np.bool_),
        )
        for rollout, draws in enumerate(streams):  # in the order of the original's draws
            self.state.position[rollout] = draws.uniform(-HALF_SIDE, HALF_SIDE, (N_AGENTS, 2))
            for treasure in range(N_TREASURES):
                self.state.treasure_type[rollout, treasure] = draws.choice(N_TYPES)
                self.state.treasure_position[rollout, treasure] = _draw_place(draws)
        return self._observe(self._distances())

    def step(self, actions: IntArray) -> tuple[Observations, FloatArray]:
        state = self.state
        direction = DIRECTIONS[actions]
        state.position, state.velocity = move(self.bodies, state.position, state.velocity, direction)
        apart = self._distances()
        observations = self._observe(apart)
        touches_treasure = apart.treasure[:, _COLLECTORS] < self.bodies.size[0] + TREASURE_SIZE
        reaches = self.bodies.size[_COLLECTORS, None] + self.bodies.size[None, _DEPOSITS]
        touches_deposit = apart.agent[:, _COLLECTORS, _DEPOSITS] < reaches
        rewards = self._rewards(apart, touches_treasure, touches_deposit)
        self._take_and_renew(touches_treasure)
        state.holding[(self._carries_to() & touches_deposit).any(axis=2)] = NONE
        return observations, rewards

    def discs(self, rollout: int = 0) -> Discs:
        state = self.state
        holding = state.holding[rollout]
        collectors = np.where(holding[:, None] == NONE, _COLLECTOR_GREY, _CARRYING * PALETTE[holding])
        there = state.treasure_alive[rollout]
        return Discs(
            position=np.vstack([state.treasure_position[rollout, there], state.position[rollout]]),
            radius=np.concatenate([np.full(int(there.sum()), TREASURE_SIZE), self.bodies.size]),
            colour=np.vstack([PALETTE[state.treasure_type[rollout, there]], collectors, _DEPOSIT * PALETTE]),
        )

    def _distances(self) -> _Distances:
        position = self.state.position
        return _Distances(distances(position, position), distances(position, self.state.treasure_position))

    def _observe(self, apart: _Distances) -> Observations:
        state = self.state
        batch = len(state.holding)
        holding = np.full((batch, N_AGENTS), NONE)
        holding[:, _COLLECTORS] = state.holding
        agents = np.empty((batch, N_AGENTS, 4 + 2 * N_TYPES))
        agents[..., 0:2] = state.position
        agents[..., 2:4] = state.velocity
        agents[..., 4:-N_TYPES] = _TYPE[_DEPOSIT_TYPE]
        agents[..., -N_TYPES:] = _TYPE.take(holding, axis=0, mode="wrap")
        treasures = np.empty((batch, N_TREASURES, 2 + N_TYPES))
        treasures[..., 0:2] = state.treasure_position
        treasures[..., 2:] = _TYPE.take(state.treasure_type, axis=0)

        # A deposit's row lacks what a collector holds, so it starts two numbers later.
        rows = np.empty((batch, N_AGENTS, self.observation_sizes[0]))
        rows[:, _COLLECTORS, 0:4] = agents[:, _COLLECTORS, 0:4]
        rows[:, _COLLECTORS, 4:6] = agents[:, _COLLECTORS, -N_TYPES:]
        rows[:, _DEPOSITS, 2:6] = agents[:, _DEPOSITS, 0:4]
        others = rows[..., 6:62].reshape(batch, N_AGENTS, N_AGENTS - 1, -1)
        _write_nearest_first(others, state.position, agents, apart.agent + _NOT_ONESELF)
        seen_treasures = rows[..., 62:].reshape(batch, N_AGENTS, N_TREASURES, -1)
        _write_nearest_first(seen_treasures, state.position, treasures, apart.treasure)
        return rows[:, _COLLECTORS], rows[:, _DEPOSITS, 2:]

    def _rewards(
        self, apart: _Distances, touches_treasure: BoolArray, touches_deposit: BoolArray
    ) -> FloatArray:
        """Shared: 5 for each touch of a free collector and a treasure, or of a carrier and its deposit.

        Own: a collector loses 5 for each collector it touches, and 0.1 times the way to the nearest treasure,
        or to its deposit if it carries one; a deposit 0.1 times the way to the nearest collector with a
        treasure of its type, or to the middle of all collectors if there is none.
        """
        state = self.state
        free = state.holding == NONE
        carries_to = self._carries_to()
        picks = np.count_nonzero(touches_treasure & free[..., None], axis=(1, 2))
        shared = TOUCH_REWARD * (picks + np.count_nonzero(carries_to & touches_deposit, axis=(1, 2)))
        to_deposit = apart.agent[:, _COLLECTORS, _DEPOSITS]

        among = apart.agent[:, _COLLECTORS, _COLLECTORS]
        touched = np.count_nonzero(among < 2 * self.bodies.size[0], axis=2) - 1  # all but oneself
        to_own_deposit = np.where(carries_to, to_deposit, 0.0).sum(axis=2)
        way = np.where(free, apart.treasure[:, _COLLECTORS].min(axis=2), to_own_deposit)
        collectors = shared[:, None] - COLLISION_PENALTY * touched - DISTANCE_PENALTY * way

        to_carrier = np.where(carries_to, to_deposit, np.inf).min(axis=1)
        middle = state.position[:, _COLLECTORS].mean(axis=1, keepdims=True)
        to_middle = lengths(middle - state.position[:, _DEPOSITS])
        way = np.where(carries_to.any(axis=1), to_carrier, to_middle)
        deposits = shared[:, None] - DISTANCE_PENALTY * way
        return np.concatenate([collectors, deposits], axis=1)

    def _take_and_renew(self, touches_treasure: BoolArray) -> None:
        """Treasures in order: one that lies there goes to the first free collector that touches it; one that
        was taken in an earlier step is put out anew."""
        state = self.state
        gone = np.argwhere(~state.treasure_alive).tolist()
        can_take = touches_treasure & (state.holding == NONE)[..., None] & state.treasure_alive[:, None]
        for rollout, treasure, collector in np.argwhere(can_take.transpose(0, 2, 1)).tolist():
            if state.treasure_alive[rollout, treasure] and state.holding[rollout, collector] == NONE:
                state.holding[rollout, collector] = state.treasure_type[rollout, treasure]
                state.treasure_position[rollout, treasure] = AWAY
                state.treasure_alive[rollout, treasure] = False
        for rollout, treasure in gone:
            draws = self.streams[rollout]
            if draws.uniform(0.0, 1.0) <= RESPAWN_PROBABILITY:
                state.treasure_position[rollout, treasure] = _draw_place(draws)
                state.treasure_type[rollout, treasure] = draws.choice(N_TYPES)
                state.treasure_alive[rollout, treasure] = True

    def _carries_to(self) -> BoolArray:
        """Which deposit each collector's treasure belongs to: ``[B, 6, 2]``."""
        return np.asarray(self.state.holding[..., None] == np.arange(N_TYPES))


def _write_nearest_first(
    seen: FloatArray, here: FloatArray, things: FloatArray, distance: FloatArray
) -> None:
    """Write to ``seen [B, 8, n, k]`` the n nearest of m things, ties by index, as seen from ``here [B, 8,
    2]``.

    things ``[B, m, k]``: a thing's place, seen as an offset, and what all see alike; distance ``[B, 8, m]``.
    """
    m, k = things.shape[1:]
    nearest = np.argsort(distance, axis=2, kind="stable")[:, :, : seen.shape[2]]
    nearest = nearest + m * np.arange(len(things))[:, None, None]
    for first in range(0, len(things), _CHUNK):
        part = slice(first, first + _CHUNK)
        rows = things.reshape(-1, k).take(nearest[part], axis=0)
        for axis in (0, 1):
            rows[..., axis] -= here[part, :, axis, None]
        seen[part] = rows


def _draw_place(draws: Draws) -> FloatArray:
    return np.asarray(draws.uniform(-TREASURE_HALF_SIDE, TREASURE_HALF_SIDE, 2))
