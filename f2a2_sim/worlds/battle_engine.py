"""Two armies on MAgent2's battle engine, both driven from outside: for the battle world and its trainer.

The engine is driven without its PettingZoo wrapper, which costs several milliseconds a step at 256 a side
where the engine takes a fraction of one; its configuration is the stock one (``battle.get_config``).

What the engine does in one step, read off MAgent2's source (``GridWorld::step``, ``Map::do_attack``,
``Agent::be_attack``) and held by the tests:

1. Attacks, in an order shuffled by the engine's random numbers: that order is all that the seed decides. An
   attacker already dead does nothing. An attack costs -0.1; on anything but a living enemy that is all. A hit
   takes 2 of 10 hit points; whoever brings them below zero has killed, is credited +5 and no +0.2, and the
   body is gone at once, so later attacks of this step on that cell hit nothing. A victim's reward so far is
   *replaced* by -0.1.
2. Every living unit regains 0.1 hit points; then moves, left army first, in the order of the units.
3. +0.2 to everyone who hit without killing, also to those who died after it.

So a unit that lives earns exactly -0.005, -0.105, 0.095 (hit) or 4.895 (kill), and one that dies -0.1 or 0.1
(had hit). Hits that landed = (rewards between 0 and 1) + (enemies lost), with no hit counted twice or missed:
one who killed and then died in the same step is found by its victim, not by its lost reward.

(``battle_v4`` itself plays the first step of an episode wrongly: it gives the right army the left one's
actions. That is its wrapper's doing and does not happen here.)

The wheels of MAgent2 are built without OpenMP, so a step does not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.worlds.battlefield import place_armies
from f2a2_sim.worlds.magent2_engine import new_grid

VIEW = 13
CHANNELS = 5
OBSERVATION_SIZE = VIEW * VIEW * CHANNELS
_NEAR = [(dx, dy) for dy in range(-2, 3) for dx in range(-2, 3)]
MOVES = tuple((dx, dy) for dx, dy in _NEAR if dx * dx + dy * dy <= 4)
ATTACKS = tuple((dx, dy) for dx, dy in _NEAR if 0 < dx * dx + dy * dy <= 2)
N_ACTIONS = len(MOVES) + len(ATTACKS)  # action k: move by MOVES[k], or attack the cell at ATTACKS[k - 13]
STAY = MOVES.index((0, 0))
FULL_HP = 10.0
LEFT, RIGHT = 0, 1
_OWN_HP = (VIEW // 2, VIEW // 2, 2)
_KILL_FLOOR = 1.0  # a reward above this holds a kill; above 0, a hit


@dataclass(frozen=True)
class ArmyStep:
    """One army's share of a step: rewards float32 ``[n]``, died and alive bool ``[n]``, hits that landed."""

    rewards: NDArray[np.float32]
    died: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    hits: int
    kills: int


class BattleEngine:
    """Two armies of ``agents`` units each on a square map of ``map_size`` cells a side."""

    def __init__(self, agents: int, map_size: int) -> None:
        self.agents = agents
        self.map_size = map_size
        self._places = place_armies(agents, map_size)
        self._grid = new_grid(map_size)
        self._handles = self._grid.get_handles()
        self._rows: list[NDArray[np.int64]] = [np.arange(agents), np.arange(agents)]

    def reset(self, seed: int) -> None:
        """Start a battle. ``seed`` (any non-negative integer) decides the order of attacks, nothing else."""
        self._grid.set_seed(_engine_seed(seed))
        self._grid.reset()
        for side in (LEFT, RIGHT):
            self._grid.add_agents(self._handles[side], method="custom", pos=self._places[side])
            self._rows[side] = np.arange(self.agents)

    def alive(self, side: int) -> NDArray[np.bool_]:
        """bool ``[agents]``."""
        mask = np.zeros(self.agents, dtype=np.bool_)
        mask[self._rows[side]] = True
        return mask

    def rows(self, side: int) -> NDArray[np.int64]:
        """Numbers of the living units of an army, ascending."""
        return self._rows[side]

    def view(self, side: int) -> NDArray[np.float32]:
        """What the living of an army see: float32 ``[living, 845]``, in the order of :meth:`rows`.

        A flattened 13 x 13 x 5 view centred on the unit: wall, own army, own army's hit points (as a share of
        10), enemy, enemy's hit points. Exactly ``battle_v4``'s observation with ``minimap_mode=False`` and
        ``extra_features=False``: there the wrapper passes on the engine's view and drops its feature vector
        (own id in binary, last action, last reward).
        """
        if not len(self._rows[side]):
            return np.zeros((0, OBSERVATION_SIZE), dtype=np.float32)
        view, _ = self._grid.get_observation(self._handles[side])
        return np.array(view, dtype=np.float32).reshape(len(self._rows[side]), OBSERVATION_SIZE)

    def observations(self, side: int) -> NDArray[np.float32]:
        """:meth:`view` for the whole army: float32 ``[agents, 845]``, zeros for the dead."""
        full = np.zeros((self.agents, OBSERVATION_SIZE), dtype=np.float32)
        full[self._rows[side]] = self.view(side)
        return full

    def positions(self, side: int) -> NDArray[np.int32]:
        """Cells (x, y) of the living of an army: int32 ``[living, 2]``."""
        return np.asarray(self._grid.get_pos(self._handles[side]), dtype=np.int32)

    def hit_points(self, side: int) -> NDArray[np.float32]:
        """Hit points of the living of an army, 0 to 10: float32 ``[living]``."""
        view = self.view(side).reshape(-1, VIEW, VIEW, CHANNELS)
        return np.asarray(view[(slice(None), *_OWN_HP)] * np.float32(FULL_HP))

    def step(self, actions: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[ArmyStep, ArmyStep]:
        """Play one step; each army's actions are int64 ``[agents]``, those of the dead are ignored."""
        before = list(self._rows)
        for side in (LEFT, RIGHT):
            chosen = np.ascontiguousarray(actions[side][before[side]], dtype=np.int32)
            self._grid.set_action(self._handles[side], chosen)
        self._grid.step()
        rewards = [np.asarray(self._grid.get_reward(handle)) for handle in self._handles]
        standing = [np.asarray(self._grid.get_alive(handle)) for handle in self._handles]
        self._grid.clear_dead()
        self._rows = [rows[alive] for rows, alive in zip(before, standing, strict=True)]
        lost = [int(np.count_nonzero(~alive)) for alive in standing]
        left, right = (
            self._army_step(side, before[side], rewards[side], standing[side], kills=lost[1 - side])
            for side in (LEFT, RIGHT)
        )
        return left, right

    def _army_step(
        self,
        side: int,
        before: NDArray[np.int64],
        rewards: NDArray[np.float32],
        standing: NDArray[np.bool_],
        kills: int,
    ) -> ArmyStep:
        all_rewards = np.zeros(self.agents, dtype=np.float32)
        all_rewards[before] = rewards
        died = np.zeros(self.agents, dtype=np.bool_)
        died[before] = ~standing
        grazed = int(np.count_nonzero((rewards > 0.0) & (rewards < _KILL_FLOOR)))
        return ArmyStep(all_rewards, died, self.alive(side), hits=grazed + kills, kills=kills)


def _engine_seed(seed: int) -> int:
    """The engine's generator takes 31 bits, and 0 for 1; spread any seed over what it can tell apart."""
    return 1 + int(np.random.SeedSequence([seed, 0x6261]).generate_state(1, np.uint32)[0]) % (2**31 - 3)
