from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from magent2.environments import battle_v4

from f2a2_sim.worlds.battle_engine import (
    ATTACKS,
    LEFT,
    MOVES,
    N_ACTIONS,
    OBSERVATION_SIZE,
    RIGHT,
    STAY,
    BattleEngine,
    _engine_seed,
)

from .conftest import Brawler

SIDES = (LEFT, RIGHT)


def full(engine: BattleEngine, side: int, chosen: np.ndarray | int) -> np.ndarray:
    actions = np.full(engine.agents, STAY, dtype=np.int64)
    actions[engine.rows(side)] = chosen
    return actions


def test_equals_battle_v4_step_by_step(brawl: Brawler) -> None:
    """Observations, rewards and deaths of both armies, through a fight to the death of one of them.

    All stay in the first step: battle_v4 then hands the right army the left one's actions (its ``team_sizes``
    are read before the map is filled), so no other first step can be equal.
    """
    engine = BattleEngine(64, 40)
    stock = battle_v4.parallel_env(map_size=40, max_cycles=400)
    engine.reset(7)
    seen, _ = stock.reset(seed=_engine_seed(7))
    names = [[f"{colour}_{i}" for i in range(64)] for colour in ("red", "blue")]
    deaths = 0
    for t in range(400):
        for side in SIDES:
            stock_view = [seen[names[side][i]] for i in engine.rows(side)]
            np.testing.assert_array_equal(engine.view(side).reshape(-1, 13, 13, 5), np.array(stock_view))
        actions = [full(engine, side, brawl(engine.view(side), side) if t else STAY) for side in SIDES]
        rows = [engine.rows(side) for side in SIDES]
        seen, rewards, ended, _, _ = stock.step(
            {names[side][i]: int(actions[side][i]) for side in SIDES for i in rows[side]}
        )
        steps = engine.step((actions[LEFT], actions[RIGHT]))
        over = not all(step.alive.any() for step in steps)
        for side in SIDES:
            want = np.zeros(64)
            want[rows[side]] = [rewards[names[side][i]] for i in rows[side]]
            np.testing.assert_array_equal(steps[side].rewards, want.astype(np.float32))
            if not over:  # then battle_v4 says terminated of everyone
                assert steps[side].died[rows[side]].tolist() == [ended[names[side][i]] for i in rows[side]]
            deaths += int(steps[side].died.sum())
        if over:
            assert all(ended.values())
            break
        seen = {name: view for name, view in seen.items() if not ended[name]}
    assert over
    assert deaths >= 64


@pytest.mark.parametrize(("agents", "size"), [(36, 36), (100, 50), (144, 100)])
def test_hits_kills_and_hit_points_follow_from_the_attacks_in_order(
    brawl: Brawler, agents: int, size: int
) -> None:
    """The engine tells every attack's target in the order of execution: replay the rules beside it."""
    engine = BattleEngine(agents, size)
    engine.reset(3)
    window = ((0, 0), (size, size))
    engine._grid._get_render_info(*window)  # from now on it records attacks
    rng = np.random.default_rng(0)
    health = np.full((2, agents), 10.0, dtype=np.float32)
    total_hits = total_kills = both = 0
    for _ in range(120):
        places = [
            dict(zip(map(tuple, engine.positions(s).tolist()), engine.rows(s), strict=True)) for s in SIDES
        ]
        rows = [engine.rows(side) for side in SIDES]
        actions = []
        for side in SIDES:
            chosen = brawl(engine.view(side), side)
            wild = rng.random(len(chosen)) < 0.2
            chosen[wild] = rng.integers(0, 21, int(wild.sum()))
            actions.append(full(engine, side, chosen))
        steps = engine.step((actions[LEFT], actions[RIGHT]))
        _, attacks = engine._grid._get_render_info(*window)
        hits, kills = [0, 0], [0, 0]
        for attacker, x, y in attacks.tolist():
            side, row = divmod(attacker, agents)
            victim = places[1 - side].get((x, y))
            assert health[side, row] >= 0.0
            if victim is None or health[1 - side, victim] < 0.0:
                continue
            hits[side] += 1
            health[1 - side, victim] -= np.float32(2.0)
            kills[side] += bool(health[1 - side, victim] < 0.0)
        up = health >= 0.0
        health[up] = np.minimum(np.float32(10.0), health[up] + np.float32(0.1))
        assert hits == [step.hits for step in steps]
        assert kills == [step.kills for step in steps]
        for side in SIDES:
            died = rows[side][health[side, rows[side]] < 0.0]
            assert np.flatnonzero(steps[side].died).tolist() == died.tolist()
            assert steps[1 - side].kills == len(died)
            np.testing.assert_allclose(engine.hit_points(side), health[side, engine.rows(side)], atol=1e-5)
        total_hits, total_kills = total_hits + sum(hits), total_kills + sum(kills)
        both += all(kills)
        if not all(step.alive.any() for step in steps):
            break
    assert total_hits > 6 * total_kills / 2
    assert total_kills > 10
    assert both > 0


def test_every_reward_is_one_that_the_rules_allow(brawl: Brawler) -> None:
    engine = BattleEngine(100, 50)
    engine.reset(1)
    living, dying = set(), set()
    for _ in range(80):
        actions = [full(engine, side, brawl(engine.view(side), side)) for side in SIDES]
        before = [engine.alive(side) for side in SIDES]
        steps = engine.step((actions[LEFT], actions[RIGHT]))
        for side in SIDES:
            rewards = steps[side].rewards
            assert not rewards[~before[side]].any()
            living |= set(np.round(rewards[steps[side].alive], 4).tolist())
            dying |= set(np.round(rewards[steps[side].died], 4).tolist())
        if not all(step.alive.any() for step in steps):
            break
    as_float32 = [float(np.round(np.float32(r), 4)) for r in (-0.005, -0.105, 0.095, 4.895, -0.1, 0.1)]
    assert living == set(as_float32[:4])
    assert dying == set(as_float32[4:])


def test_only_the_order_of_attacks_depends_on_the_seed(brawl: Brawler) -> None:
    def fight(seed: int, steps: int) -> list[np.ndarray]:
        engine = BattleEngine(49, 40)
        engine.reset(seed)
        trail = []
        for _ in range(steps):
            actions = [full(engine, side, brawl(engine.view(side), side)) for side in SIDES]
            result = engine.step((actions[LEFT], actions[RIGHT]))
            trail += [step.rewards for step in result] + [engine.observations(side) for side in SIDES]
        return trail

    same = [np.array_equal(a, b) for a, b in zip(fight(1, 30), fight(1, 30), strict=True)]
    assert all(same)
    different = [np.array_equal(a, b) for a, b in zip(fight(1, 30), fight(2, 30), strict=True)]
    assert all(different[:4])  # the charge, without an attack, is the same
    assert not all(different)
    assert not all(np.array_equal(a, b) for a, b in zip(fight(0, 30), fight(1, 30), strict=True))


def test_nobody_is_seen_when_nobody_is_left(brawl: Brawler) -> None:
    engine = BattleEngine(12, 18)
    engine.reset(0)
    for _ in range(300):
        actions = [full(engine, side, brawl(engine.view(side), side)) for side in SIDES]
        actions[RIGHT][:] = STAY
        engine.step((actions[LEFT], actions[RIGHT]))
        if not len(engine.rows(RIGHT)):
            break
    assert engine.view(RIGHT).shape == (0, OBSERVATION_SIZE)
    assert not engine.observations(RIGHT).any()
    assert not engine.alive(RIGHT).any()
    assert engine.hit_points(RIGHT).shape == (0,)


def test_actions_move_and_attack_where_the_tables_say() -> None:
    engine = BattleEngine(12, 40)
    for action, (dx, dy) in enumerate(MOVES):
        engine.reset(0)
        before = engine.positions(LEFT)
        foremost = int(np.argmax(before @ [dx, dy]))  # nobody stands in its way
        engine.step((np.where(np.arange(12) == foremost, action, STAY), np.full(12, STAY)))
        moved = engine.positions(LEFT) - before
        assert moved[foremost].tolist() == [dx, dy]
        assert not np.delete(moved, foremost, axis=0).any()
    base, table = engine._grid.get_view2attack(engine._handles[LEFT])
    assert base == len(MOVES)
    assert [int(table[6 + dy, 6 + dx]) for dx, dy in ATTACKS] == list(range(len(ATTACKS)))
    assert engine._grid.get_action_space(engine._handles[LEFT])[0] == N_ACTIONS


def test_importing_the_engine_leaves_the_number_of_threads_alone() -> None:
    code = (
        "import os; from f2a2_sim.worlds import make_world; make_world('battle', agents=12); "
        "print(os.environ.get('OMP_NUM_THREADS'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    for threads in (None, "3"):
        extra = {} if threads is None else {"OMP_NUM_THREADS": threads}
        told = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | extra,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == str(threads)
