"""Cooperative Treasure Collection: collectors carry treasures to deposits. MAAC's
``fullobs_collect_treasure``.

Six collectors (agents 0 to 5) pick up treasures of two types by touching them, one at a time, and bring each
to the deposit of its type (agents 6 and 7, which move too). A treasure that was taken comes back two steps
later, somewhere and of some type. All see everything, and agents push each other.

Within a step: agents move; observations and rewards follow from where they are then; only after that
treasures are taken, brought and put out anew, which is seen one step later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    FloatArray,
    IntArray,
    complex_of,
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

_TYPE = complex_of(one_hot_rows(N_TYPES))

_FREE, _DEPOSIT_ROW = N_TYPES, N_TYPES + 1
"""Rows behind those of the types in the tables of what is wanted: of the free, and of deposits."""


def _table_of_touches() -> FloatArray:
    """How near collectors must be to touch what is in a slot: ``[2, 1, 8, 8]``. Nothing touches deposits."""
    near = np.zeros((2, 1, _SLOTS, _SLOTS))
    near[0, 0, :N_COLLECTORS, :N_COLLECTORS] = 2 * COLLECTOR_SIZE
    near[0, 0, :N_COLLECTORS, N_COLLECTORS:] = COLLECTOR_SIZE + DEPOSIT_SIZE
    near[1, 0, :N_COLLECTORS, :N_TREASURES] = COLLECTOR_SIZE + TREASURE_SIZE
    return near


def _table_of_wants() -> BoolArray:
    """Slots that an agent wants to be near, by what it holds: ``[2, types + 2, 8]``.

    Free: the treasures. With a treasure: the deposit of its type. What deposits want depends on others.
    """
    wants = np.zeros((2, N_TYPES + 2, _SLOTS), dtype=np.bool_)
    for kind in range(N_TYPES):
        wants[0, kind, N_COLLECTORS + kind] = True
    wants[1, _FREE, :N_TREASURES] = True
    return wants


_TOUCH = _table_of_touches()
_WANTS = _table_of_wants()
_WANTS_WORD = _WANTS.view(np.uint64)[..., 0]  # eight truths a word
_DETOUR = np.where(_WANTS, 0.0, np.inf)
_COLLECTORS_WORD = (np.arange(_SLOTS) < N_COLLECTORS).view(np.uint64)[0]
_LAST = np.iinfo(np.int64).max
_FAR = 2.0**60  # farther than anything, and yet a number that can be put in order by its bits
_TO_SMALL = 2.0**-320

_OF_AGENT, _OF_TREASURE = 4, 2  # pairs of numbers that are seen of another agent, and of a treasure
_OF_OTHERS, _OF_TREASURES = (N_AGENTS - 1) * _OF_AGENT, N_TREASURES * _OF_TREASURE
_SLOT_BY_AGENT_PAIR, _SLOT_BY_TREASURE_PAIR = (
    np.repeat(np.arange(_SLOTS)[:, None], pairs, axis=1) for pairs in (_OF_AGENT, _OF_TREASURE)
)


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


class _Scene:
    """Work arrays for ``batch`` rollouts: how all lie to one another, and what agents see and want.

    An observation is a row of pairs of numbers, kept as complex ones: places, velocities, offsets, one-hots
    of two types. All that can be seen lies in one array, so that one look-up gives all observations.
    ``offset`` and ``distance``, ``[2, B, 8, 8]``, go from agent i to slot j; to oneself it is very far.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        shapes = {
            "place": (2, batch, _SLOTS),
            "offset": (2, batch, _SLOTS, _SLOTS),
            "velocity": (batch, N_AGENTS),
            "holding": (batch, N_AGENTS),
            "deposit": (N_AGENTS,),
            "treasure": (batch, N_TREASURES),
        }
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()]).tolist()
        self._pairs = np.zeros(ends[-1], dtype=np.complex128)
        numbers = np.arange(ends[-1])
        part, at = {}, {}
        for (name, shape), start, end in zip(shapes.items(), [0, *ends], ends, strict=False):
            part[name], at[name] = self._pairs[start:end].reshape(shape), numbers[start:end].reshape(shape)
        part["deposit"][N_COLLECTORS:] = _TYPE[:N_TYPES]
        self.holding, self.treasure = part["holding"], part["treasure"]
        self.velocity = part["velocity"].view(np.float64)
        place, self.offset = part["place"], part["offset"]
        self.agents, others = place.view(np.float64)  # x and y of all, in one flat axis
        self._treasures, self._middle = others[:, : 2 * N_TREASURES], others[:, 2 * _MIDDLE : 2 * _MIDDLE + 2]
        self._there, self._here = place[:, :, None], place[0, :, :, None]
        self._offset_xy = self.offset.view(np.float64)
        self._squares = np.empty_like(self._offset_xy)
        self._squares_x, self._squares_y = self._squares[..., ::2], self._squares[..., 1::2]
        self.distance = np.empty((2, batch, _SLOTS, _SLOTS))
        self._to_oneself = self.distance[0].reshape(batch, -1)[:, :: _SLOTS + 1]

        self._keys = np.empty((2, batch, _SLOTS, _SLOTS), dtype=np.int64)
        self._keys_as_floats = self._keys.view(np.float64)
        self._slots = np.broadcast_to(np.arange(_SLOTS), self._keys.shape).copy()
        self._slots[0, :, range(N_AGENTS), range(N_AGENTS)] = _LAST
        self._slots[1, ..., N_TREASURES:] = _LAST

        self._ways = np.empty((2 * _SLOTS, batch, N_AGENTS))
        self._ways_by_agent = self._ways.reshape(2, _SLOTS, batch, N_AGENTS).transpose(0, 2, 3, 1)
        self._holds = np.full((batch, N_AGENTS), _DEPOSIT_ROW)
        self._known_holding = self._known_types = b""
        self.wants: NDArray[np.uint64]
        self._detour: FloatArray

        # Where a row's pairs come from. A deposit's row lacks what a collector holds: it starts a pair later.
        own = np.stack([at["place"][0], at["velocity"], at["holding"]], axis=2)
        own[:, N_COLLECTORS:, 1:] = own[:, N_COLLECTORS:, :2].copy()
        self._index = np.empty((batch, N_AGENTS, 3 + _OF_OTHERS + _OF_TREASURES), dtype=np.int64)
        self._index[..., :3] = own
        self._index_others = self._index[..., 3 : 3 + _OF_OTHERS]
        self._index_treasures = self._index[..., 3 + _OF_OTHERS :]
        of_agent = [at["offset"][0, ..., 0], at["velocity"][:, :1], at["deposit"][:1], at["holding"][:, :1]]
        of_treasure = [at["offset"][1, ..., 0], at["treasure"][:, :1]]
        # Those of the first in its group; the others' lie behind, one after the other.
        self._first_agent, self._first_treasure = (
            np.tile(np.stack(np.broadcast_arrays(*parts), axis=2), n)
            for parts, n in ((of_agent, N_AGENTS - 1), (of_treasure, N_TREASURES))
        )

    def __reduce__(self) -> tuple[type[_Scene], tuple[int]]:
        """A copy is a new one: copied arrays would no longer share their memory."""
        return _Scene, (self.batch,)

    def measure(self, state: TreasureState) -> None:
        """Offsets and distances from the places of now."""
        self.agents[:] = state.position.reshape(self.batch, -1)
        self._treasures[:] = state.treasure_position.reshape(self.batch, -1)
        np.add.reduce(state.position[:, :N_COLLECTORS], axis=1, out=self._middle)
        self._middle /= N_COLLECTORS
        np.subtract(self._there, self._here, out=self.offset)
        np.multiply(self._offset_xy, self._offset_xy, out=self._squares)
        np.add(self._squares_x, self._squares_y, out=self.distance)
        np.sqrt(self.distance, out=self.distance)
        self._to_oneself.fill(_FAR)

    def look_at_hands(self, state: TreasureState) -> None:
        """Take in what is held and what treasures are, which seldom changes.

        ``wants``: slots whose touch pays, a word of eight each, ``[2, B, 8]``.
        """
        known = state.holding.tobytes()
        if known != self._known_holding:
            self._known_holding = known
            self.holding[:, :N_COLLECTORS] = _TYPE[state.holding]
            self._holds[:, :N_COLLECTORS] = np.where(state.holding == NONE, _FREE, state.holding)
            self.wants = _WANTS_WORD.take(self._holds, axis=1)
            # What is 0 for the slots one of which an agent wants to be near, else infinite. A deposit's are
            # those who bring it something, or the middle of all.
            self._detour = _DETOUR.take(self._holds, axis=1)
            brings = self._detour[0, :, :N_COLLECTORS, N_COLLECTORS:]
            self._detour[0, :, N_COLLECTORS:, :N_COLLECTORS] = brings.transpose(0, 2, 1)
            nobody = np.isinf(brings.min(axis=1))
            self._detour[1, :, N_COLLECTORS:, _MIDDLE] = np.where(nobody, 0.0, np.inf)
        known = state.treasure_type.tobytes()
        if known != self._known_types:
            self._known_types = known
            self.treasure[:] = _TYPE[state.treasure_type]

    def observations(self) -> FloatArray:
        """Of all agents, ``[B, 8, 86]``: others and treasures nearest first, ties by index."""
        agents, treasures = self._nearest_first()
        shape = (self.batch, N_AGENTS, -1)
        slots = _SLOT_BY_AGENT_PAIR.take(agents, axis=0).reshape(shape)
        np.add(slots[..., :_OF_OTHERS], self._first_agent, out=self._index_others)
        slots = _SLOT_BY_TREASURE_PAIR.take(treasures, axis=0).reshape(shape)
        np.add(slots[..., :_OF_TREASURES], self._first_treasure, out=self._index_treasures)
        return self._pairs.take(self._index).view(np.float64)

    def _nearest_first(self) -> IntArray:
        """Slots in the order of their distances, ties by index, and unused ones last: ``[2, B, 8, 8]``.

        A stable argsort, done as a sort of whole numbers, which takes a third of the time. The bits of floats
        are in the order of the floats; those of floats from 2^-511 to 2 begin with 001, so that there is room
        for the slot if distances are brought to that range. (Zero stays zero.)
        """
        keys = self._keys
        np.multiply(self.distance, _TO_SMALL, out=self._keys_as_floats)
        np.left_shift(keys, 3, out=keys)
        np.bitwise_or(keys, self._slots, out=keys)
        keys.sort(axis=3)
        np.bitwise_and(keys, 7, out=keys)
        return keys

    def ways(self) -> FloatArray:
        """From each agent to the nearest of what it wants to be near: ``[B, 8]``."""
        np.add(self.distance, self._detour, out=self._ways_by_agent)
        return np.asarray(np.minimum.reduce(self._ways, axis=0))


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
        self._scene = _Scene(1)

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
        return self._observe()

    def step(self, actions: IntArray) -> tuple[Observations, FloatArray]:
        state = self.state
        direction = DIRECTIONS.take(actions, axis=0)
        scene = self._scene
        if state.position.tobytes() != scene.agents.tobytes():  # a state from elsewhere
            scene = self._measured()
        known = Apart(scene.offset[0], scene.distance[0])
        state.position, state.velocity = move(self.bodies, state.position, state.velocity, direction, known)
        observations = self._observe()
        touches = scene.distance < _TOUCH
        words = touches.view(np.uint64)[..., 0]
        paid = (words & scene.wants).view(np.bool_).reshape(-1).nonzero()[0]
        rewards = self._rewards(words[0], paid)
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

    def _measured(self) -> _Scene:
        batch = len(self.state.position)
        if batch != self._scene.batch:
            self._scene = _Scene(batch)
        self._scene.measure(self.state)
        return self._scene

    def _observe(self) -> Observations:
        state, scene = self.state, self._measured()
        scene.look_at_hands(state)
        scene.velocity[:] = state.velocity.reshape(scene.batch, -1)
        rows = scene.observations()
        return rows[:, :N_COLLECTORS], rows[:, N_COLLECTORS:, 2:]

    def _rewards(self, touched: NDArray[np.uint64], paid: IntArray) -> FloatArray:
        """Shared: 5 for each touch of a free collector and a treasure, or of a carrier and its deposit.

        Own: a collector loses 5 for each collector it touches, and 0.1 times the way to the nearest treasure,
        or to its deposit if it carries one; a deposit 0.1 times the way to the nearest collector with a
        treasure of its type, or to the middle of all collectors if there is none.
        """
        rewards = np.bitwise_count(touched & _COLLECTORS_WORD) * -COLLISION_PENALTY
        if len(paid):
            rollout = paid // _SLOTS**2 % len(rewards)
            rewards += TOUCH_REWARD * np.bincount(rollout, minlength=len(rewards))[:, None]
        way = self._scene.ways()
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


def _draw_place(draws: Draws) -> FloatArray:
    return np.asarray(draws.uniform(-TREASURE_HALF_SIDE, TREASURE_HALF_SIDE, 2))
