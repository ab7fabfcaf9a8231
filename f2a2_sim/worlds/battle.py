"""The battle world: an army of N learners against N opponents on MAgent2's battle engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.opponents.base import Opponent
from f2a2_sim.worlds.base import AgentSpec, WorldStep
from f2a2_sim.worlds.battle_engine import (
    LEFT,
    N_ACTIONS,
    OBSERVATION_SIZE,
    RIGHT,
    STAY,
    ArmyStep,
    BattleEngine,
)
from f2a2_sim.worlds.battle_view import draw_battle
from f2a2_sim.worlds.battlefield import check_agents, smallest_map

_UNIFORMS = 2  # per opponent and step; see Opponent.act


class BattleWorld:
    """``agents`` learners (left, red) against as many opponents (right, blue), for ``episode_steps`` steps.

    Observations, rewards and rules are those of the stock ``battle_v4``; see ``battle_engine``. An agent that
    dies is ``terminated`` in the step of its death, with that step's reward, and its observation is zeros
    from then on. When one army is gone the episode is over, and all still standing are ``terminated`` too.

    ``counts``: hits (attacks of ours that landed on an enemy, killing ones included), kills, deaths.
    """

    default_action = STAY
    rollouts = 1

    def __init__(
        self, agents: int, opponent: Opponent, map_size: int | None = None, episode_steps: int = 200
    ) -> None:
        check_agents(agents)
        self.agents = [AgentSpec(f"red_{i}", OBSERVATION_SIZE, N_ACTIONS) for i in range(agents)]
        self.map_size = smallest_map(agents) if map_size is None else map_size
        self.episode_steps = episode_steps
        self._opponent = opponent
        self._engine = BattleEngine(agents, self.map_size)
        self._draws = np.random.default_rng(0)
        self._step = 0
        self._totals = {"hits": 0.0, "kills": 0.0, "deaths": 0.0}

    def reset(self, seed: int) -> WorldStep:
        self._engine.reset(seed)
        self._draws = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0x6F70])))
        self._step = 0
        self._totals = dict.fromkeys(self._totals, 0.0)
        n = len(self.agents)
        return WorldStep(
            observations=self._engine.observations(LEFT),
            rewards=np.zeros(n, dtype=np.float32),
            terminated=np.zeros(n, dtype=np.bool_),
            alive=self._engine.alive(LEFT),
            counts=dict.fromkeys(self._totals, 0.0),
        )

    def step(self, actions: NDArray[np.int64]) -> WorldStep:
        alive_before = self._engine.alive(LEFT)
        ours = self._advance(actions)
        victory = not (len(self._engine.rows(LEFT)) and len(self._engine.rows(RIGHT)))
        truncated = self._step >= self.episode_steps and not victory
        return WorldStep(
            observations=self._engine.observations(LEFT),
            rewards=ours.rewards,
            terminated=alive_before if victory else ours.died,
            alive=ours.alive,
            done=victory or truncated,
            truncated=truncated,
            counts=_counts(ours),
        )

    def restore(self, seed: int, actions: NDArray[np.int64]) -> WorldStep:
        start = self.reset(seed)
        if not len(actions):
            return start
        for row in actions[:-1]:
            self._advance(row)
        return self.step(actions[-1])

    def episode_summary(self) -> dict[str, float]:
        """Totals of the episode so far and ``win``: 1 if more of us stand than of them, 0 if fewer, or 0.5.

        An annihilated enemy is thus a win; ``enemy_alive`` = 0 tells it from a win on numbers.
        """
        alive, enemy = len(self._engine.rows(LEFT)), len(self._engine.rows(RIGHT))
        win = 0.5 if alive == enemy else float(alive > enemy)
        return {"win": win, **self._totals, "alive": float(alive), "enemy_alive": float(enemy)}

    def render(self, scale: int = 8) -> NDArray[np.uint8]:
        """The map as RGB, uint8 ``[side, side, 3]``, side = map_size * scale; see ``battle_view``."""
        armies = [(self._engine.positions(side), self._engine.hit_points(side)) for side in (LEFT, RIGHT)]
        return draw_battle(self.map_size, armies, scale)

    def _advance(self, actions: NDArray[np.int64]) -> ArmyStep:
        """One step of the engine, without the learners' observations; returns the learners' share."""
        uniforms = self._draws.random((len(self.agents), _UNIFORMS))
        rows = self._engine.rows(RIGHT)
        seen = (
            self._engine.view(RIGHT)
            if self._opponent.needs_observations
            else np.zeros((len(rows), 0), dtype=np.float32)
        )
        enemy_actions = np.full(len(self.agents), STAY, dtype=np.int64)
        enemy_actions[rows] = self._opponent.act(seen, uniforms[rows])
        ours, _ = self._engine.step((np.asarray(actions, dtype=np.int64), enemy_actions))
        self._step += 1
        for name, value in _counts(ours).items():
            self._totals[name] += value
        return ours


def _counts(army: ArmyStep) -> dict[str, float]:
    deaths = float(np.count_nonzero(army.died))
    return {"hits": float(army.hits), "kills": float(army.kills), "deaths": deaths}
