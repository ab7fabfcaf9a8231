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
from numpy.typing import NDArray

from f2a2_sim.worlds.particle.base import (
    HALF_SIDE,
    NONE,
    Discs,
    Draws,
    Observations,
    choose,
    one_hot_rows,
)
from f2a2_sim.worlds.particle.physics import (
    DIRECTIONS,
    Apart,
    Bodies,
    BoolArray,
    ComplexArray,
    FloatArray,
    IntArray,
    complex_of,
    lengths,
    move,
)

N_COLLECTORS = 6
N_TYPES = 2  # and as many deposits: deposit d takes treasures of type d
N_AGENTS = N_COLLECTORS + N_TYPES
N_TREASURES = 6
COLLECTOR_SIZE, DEPOSIT_SIZE, TREASURE_SIZE = 0.05, 0.075, 0.025
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

_SLOTS = 8
"""Places are kept in two groups of as many: the agents, and the treasures with what follows."""
_MIDDLE = N_TREASURES
"""Slot behind the treasures: the middle of all collectors. The last slot is empty."""

_COLLECTORS = slice(0, N_COLLECTORS)
_TYPE = complex_of(one_hot_rows(N_TYPES))


def _table_of_touches() -> FloatArray:
    """How near collectors must be to touch what is in a slot: ``[2, 1, 8, 8]``. Nothing touches deposits."""
    near = np.zeros((2, 1, _SLOTS, _SLOTS))
    near[0, 0, :N_COLLECTORS, :N_COLLECTORS] = 2 * COLLECTOR_SIZE
    near[0, 0, :N_COLLECTORS, N_COLLECTORS:] = COLLECTOR_SIZE + DEPOSIT_SIZE
    near[1, 0, :N_COLLECTORS, :N_TREASURES] = COLLECTOR_SIZE + TREASURE_SIZE
    return near


def _table_of_wants() -> BoolArray:
    """Slots whose touch pays a collector, by what it holds, free last: ``[2, types + 1, 8]``.

    Free: the treasures. With a treasure: the deposit of its type.
    """
    wants = np.zeros((2, N_TYPES + 1, _SLOTS), dtype=np.bool_)
    for kind in range(N_TYPES):
        wants[0, kind, N_COLLECTORS + kind] = True
    wants[1, NONE, :N_TREASURES] = True
    return wants


_TOUCH = _table_of_touches()
_WANTS = _table_of_wants()
_WANTS_WORD = _WANTS.view(np.uint64)[..., 0]  # eight truths a word
_COLLECTORS_WORD = (np.arange(_SLOTS) < N_COLLECTORS).view(np.uint64)[0]

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


class _Hands(NamedTuple):
    """What follows from ``holding`` alone.

    wants: slots whose touch pays, a word of eight each, ``[2, B, 8]``. detour: 0 for the slots one of which
    an agent wants to be near, else infinite, ``[2, B, 8, 8]``.
    """

    wants: NDArray[np.uint64]
    detour: FloatArray


class _Sight:
    """What the agents of ``batch`` rollouts see, laid out so that one look-up gives all observations.

    An observation is a row of pairs of numbers, kept as complex ones: offsets, velocities, one-hots of two
    types. ``offset [2, B, 8, 8]``: from agent i to slot j; the other parts are of agents and treasures.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        sizes = {
            "offset": (2, batch, _SLOTS, _SLOTS),
            "place": (batch, N_AGENTS),
            "velocity": (batch, N_AGENTS),
            "holding": (batch, N_AGENTS),
            "deposit": (N_AGENTS,),
            "treasure": (batch, N_TREASURES),
        }
        counts = [int(np.prod(shape)) for shape in sizes.values()]
        starts = np.cumsum([0, *counts])
        self._pairs = np.zeros(starts[-1], dtype=np.complex128)
        part = {
            name: self._pairs[start : start + count].reshape(shape)
            for (name, shape), start, count in zip(sizes.items(), starts, counts, strict=False)
        }
        where = {
            name: np.arange(start, start + count).reshape(shape)
            for (name, shape), start, count in zip(sizes.items(), starts, counts, strict=False)
        }
        self.offset, self.place, self.velocity = part["offset"], part["place"], part["velocity"]
        self.holding, self.treasure = part["holding"], part["treasure"]
        part["deposit"][:] = _TYPE[[NONE] * N_COLLECTORS + list(range(N_TYPES))]

        # Where a row's pairs come from. A deposit's row lacks what a collector holds: it starts a pair later.
        own = np.stack([where["place"], where["velocity"], where["holding"]], axis=2)
        own[:, N_COLLECTORS:, 1:] = own[:, N_COLLECTORS:, :2].copy()
        n_others, n_parts = (N_AGENTS - 1) * 4, N_TREASURES * 2
        self._index = np.empty((batch, N_AGENTS, 3 + n_others + n_parts), dtype=np.int64)
        self._index[..., :3] = own
        self._of_others = self._index[..., 3 : 3 + n_others]
        self._of_treasures = self._index[..., 3 + n_others :]
        # For the first thing in order; the others lie behind it, one after the other.
        everyone = (batch, N_AGENTS)
        others = [where["offset"][0, ..., 0], *(where[name][..., :1] for name in ("velocity", "deposit", "holding"))]
        treasures = [where["offset"][1, ..., 0], where["treasure"][..., :1]]
        self._others = np.tile(np.stack([np.broadcast_to(p, everyone) for p in others], axis=2), N_AGENTS - 1)
        self._treasures = np.tile(np.stack([np.broadcast_to(p, everyone) for p in treasures], axis=2), N_TREASURES)

    def rows(self, distance: FloatArray) -> FloatArray:
        """All observations, ``[B, 8, 86]``: others and treasures nearest first, ties by index."""
        order = distance[0].argsort(axis=2, kind="stable")[:, :, : N_AGENTS - 1]
        np.add(_FOUR.take(order, axis=0).reshape(self._others.shape), self._others, out=self._of_others)
        order = distance[1, :, :, :N_TREASURES].argsort(axis=2, kind="stable")
        np.add(_TWO.take(order, axis=0).reshape(self._treasures.shape), self._treasures, out=self._of_treasures)
        return self._pairs.take(self._index).view(np.float64)


_FOUR, _TWO = (np.repeat(np.arange(_SLOTS)[:, None], n, axis=1) for n in (4, 2))


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
        size=np.array([COLLECTOR_SIZE] * N_COLLECTORS + [DEPOSIT_SIZE] * N_TYPES),
        mass=np.array([1.0] * N_COLLECTORS + [2.25] * N_TYPES),
        accel=np.full(N_AGENTS, 1.5),
        max_speed=np.ones(N_AGENTS),
        movable=np.ones(N_AGENTS, dtype=np.bool_),
        collide=np.ones(N_AGENTS, dtype=np.bool_),
    )
    state: TreasureState
    streams: Sequence[Draws]

    def __init__(self) -> None:
        self._sight = _Sight(0)
        self._places = np.zeros((2, 0, 1, _SLOTS), dtype=np.complex128)
        self._distance = np.zeros((2, 0, _SLOTS, _SLOTS))
        self._known_places = self._known_hands = b""
        self._hands: _Hands

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
                self.state.treasure_type[rollout, treasure] = choose(draws, N_TYPES)
                self.state.treasure_position[rollout, treasure] = _draw_place(draws)
        self._measure()
        return self._observe()

    def step(self, actions: IntArray) -> tuple[Observations, FloatArray]:
        state = self.state
        direction = DIRECTIONS.take(actions, axis=0)
        if state.position.tobytes() != self._known_places:  # a state from elsewhere
            self._measure()
        known = Apart(self._sight.offset[0], self._distance[0])
        state.position, state.velocity = move(self.bodies, state.position, state.velocity, direction, known)
        self._measure()
        observations = self._observe()
        touches = self._distance < _TOUCH
        words = touches.view(np.uint64)[..., 0]
        paid = (words & self._hands.wants).view(np.bool_).reshape(-1).nonzero()[0]
        rewards = self._rewards(words[0] & _COLLECTORS_WORD, paid)
        self._take_and_renew(touches, paid)
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

    def _measure(self) -> None:
        """Offsets and distances of all that there is, from the places of now."""
        state = self.state
        batch = len(state.holding)
        if batch != self._sight.batch:
            self._sight = _Sight(batch)
            self._places = np.zeros((2, batch, 1, _SLOTS), dtype=np.complex128)
        places, offset = self._places, self._sight.offset
        own = complex_of(state.position)
        places[0, :, 0] = own
        places[1, :, 0, :N_TREASURES] = complex_of(state.treasure_position)
        middle = np.add.reduce(state.position[:, _COLLECTORS], axis=1)
        middle /= N_COLLECTORS
        places[1, :, 0, _MIDDLE] = complex_of(middle)
        np.subtract(places, own[:, :, None], out=offset)
        self._distance = lengths(offset)
        self._distance[0].reshape(batch, -1)[:, :: _SLOTS + 1] = np.inf
        self._known_places = state.position.tobytes()

    def _observe(self) -> Observations:
        state, sight = self.state, self._sight
        known = state.holding.tobytes() + state.treasure_type.tobytes()
        if known != self._known_hands:
            self._known_hands = known
            self._hands = _hands(state.holding)
            sight.holding[:, _COLLECTORS] = _TYPE[state.holding]
            sight.treasure[:] = _TYPE[state.treasure_type]
        sight.place[:] = self._places[0, :, 0]
        sight.velocity[:] = complex_of(state.velocity)
        rows = sight.rows(self._distance)
        return rows[:, _COLLECTORS], rows[:, N_COLLECTORS:, 2:]

    def _rewards(self, touched: NDArray[np.uint64], paid: IntArray) -> FloatArray:
        """Shared: 5 for each touch of a free collector and a treasure, or of a carrier and its deposit.

        Own: a collector loses 5 for each collector it touches, and 0.1 times the way to the nearest treasure,
        or to its deposit if it carries one; a deposit 0.1 times the way to the nearest collector with a
        treasure of its type, or to the middle of all collectors if there is none.
        """
        way = self._distance + self._hands.detour
        way = np.minimum(way[0], way[1])
        while way.shape[2] > 1:
            half = way.shape[2] // 2
            way = np.minimum(way[:, :, :half], way[:, :, half:])
        way = way[:, :, 0]
        rewards = np.bitwise_count(touched) * -COLLISION_PENALTY
        if len(paid):
            rollout = paid // _SLOTS**2 % len(rewards)
            rewards += TOUCH_REWARD * np.bincount(rollout, minlength=len(rewards))[:, None]
        way *= DISTANCE_PENALTY
        rewards -= way
        return np.asarray(rewards)

    def _take_and_renew(self, touches: BoolArray, paid: IntArray) -> None:
        """Treasures in order: one that lies there goes to the first free collector that touches it; one that
        was taken in an earlier step is put out anew. Then what is at its deposit is brought."""
        state = self.state
        holding, alive = state.holding, state.treasure_alive
        gone = (~alive).reshape(-1).nonzero()[0].tolist()
        carriers, takers = [], []
        for at in paid.tolist():
            group_and_rollout, cell = divmod(at, _SLOTS**2)
            group, rollout = divmod(group_and_rollout, len(alive))
            collector, slot = divmod(cell, _SLOTS)
            if group:
                takers.append((rollout, slot, collector))
            else:
                carriers.append((rollout, collector))
        for rollout, treasure, collector in sorted(takers):
            if alive[rollout, treasure] and holding[rollout, collector] == NONE:
                kind = state.treasure_type[rollout, treasure]
                holding[rollout, collector] = kind
                state.treasure_position[rollout, treasure] = AWAY
                alive[rollout, treasure] = False
                if touches[0, rollout, collector, N_COLLECTORS + kind]:
                    carriers.append((rollout, collector))
        for rollout, collector in carriers:
            holding[rollout, collector] = NONE
        for at in gone:
            rollout, treasure = divmod(at, N_TREASURES)
            draws = self.streams[rollout]
            if draws.uniform(0.0, 1.0) <= RESPAWN_PROBABILITY:
                state.treasure_position[rollout, treasure] = _draw_place(draws)
                state.treasure_type[rollout, treasure] = choose(draws, N_TYPES)
                alive[rollout, treasure] = True


def _hands(holding: IntArray) -> _Hands:
    holds = np.full((len(holding), N_AGENTS), NONE)
    holds[:, _COLLECTORS] = holding
    wanted = _WANTS.take(holds, axis=1, mode="wrap")
    carried = wanted[0, :, :, N_COLLECTORS:].transpose(0, 2, 1).copy()  # to deposits, by all
    wanted[:, :, N_COLLECTORS:] = False
    detour = np.where(wanted, 0.0, np.inf)
    detour[0, :, N_COLLECTORS:] = np.where(carried, 0.0, np.inf)
    detour[1, :, N_COLLECTORS:, _MIDDLE] = np.where(carried.any(axis=2), np.inf, 0.0)
    return _Hands(_WANTS_WORD.take(holds, axis=1, mode="wrap"), detour)


def _draw_place(draws: Draws) -> FloatArray:
    return np.asarray(draws.uniform(-TREASURE_HALF_SIDE, TREASURE_HALF_SIDE, 2))
