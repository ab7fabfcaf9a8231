from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.errors import UsageError
from f2a2_sim.opponents.random import RandomOpponent
from f2a2_sim.worlds import WorldStep
from f2a2_sim.worlds.battle import BattleWorld

from .conftest import Brawler


def battle(agents: int = 36, **keys: int) -> BattleWorld:
    return BattleWorld(agents, RandomOpponent(21), **keys)


def same(a: WorldStep, b: WorldStep) -> bool:
    arrays = ("observations", "rewards", "terminated", "alive")
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in arrays) and (
        (a.done, a.truncated, a.counts) == (b.done, b.truncated, b.counts)
    )


@pytest.mark.parametrize(
    ("agents", "size"), [(12, 18), (13, 19), (100, 50), (255, 80), (256, 80), (625, 125)]
)
def test_exactly_n_agents_on_both_sides(agents: int, size: int) -> None:
    world = battle(agents)
    start = world.reset(0)
    assert world.map_size == size
    assert len(world.agents) == agents
    assert {(agent.observation_size, agent.n_actions) for agent in world.agents} == {(845, 21)}
    assert np.shape(start.observations) == (agents, 845)
    assert start.alive.all()
    assert not start.terminated.any()
    summary = world.episode_summary()
    assert (summary["alive"], summary["enemy_alive"]) == (agents, agents)


def test_the_default_action_stays() -> None:
    world = battle()
    start = world.reset(0)
    later = world.step(np.full(36, world.default_action))
    own = np.asarray(start.observations).reshape(36, 13, 13, 5)[..., 1]
    np.testing.assert_array_equal(own, np.asarray(later.observations).reshape(36, 13, 13, 5)[..., 1])
    np.testing.assert_allclose(later.rewards, -0.005)


def test_an_episode_is_a_function_of_its_seed_and_its_actions(brawl: Brawler) -> None:
    world, again, other = battle(), battle(), battle()
    steps = [world.reset(5)]
    actions = []
    while not steps[-1].done:
        actions.append(brawl(np.asarray(steps[-1].observations), 0))
        steps.append(world.step(actions[-1]))
    assert steps[-1].counts.keys() == {"hits", "kills", "deaths"}
    other.reset(4)
    for action in actions[:20]:
        other.step(action)
    assert same(other.reset(5), steps[0])  # whatever was played before
    for action, step in zip(actions, steps[1:], strict=True):
        assert same(other.step(action), step)
    assert other.episode_summary() == world.episode_summary()
    again.reset(6)
    assert not all(same(again.step(a), s) for a, s in zip(actions[:60], steps[1:61], strict=True))


@pytest.mark.parametrize("played", [0, 1, 57])
def test_restore_goes_on_as_if_never_stopped(brawl: Brawler, played: int) -> None:
    world, restored = battle(49), battle(49)
    steps = [world.reset(9)]
    actions = np.zeros((90, 49), dtype=np.int64)
    for t in range(90):
        actions[t] = brawl(np.asarray(steps[-1].observations), 0)
        steps.append(world.step(actions[t]))
    restored.reset(1)
    assert same(restored.restore(9, actions[:played]), steps[played])
    for t in range(played, 90):
        assert same(restored.step(actions[t]), steps[t + 1])
    assert restored.episode_summary() == world.episode_summary()


def test_what_the_dead_do_changes_nothing_and_they_end_once(brawl: Brawler) -> None:
    """Against an army that charges too, so that ours die."""

    class Charging:
        needs_observations = True

        def act(self, observations: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
            return brawl(observations, 1)

    world, twin = (BattleWorld(49, Charging(), episode_steps=400) for _ in range(2))
    step, mirror = world.reset(2), twin.reset(2)
    ended = np.zeros(49, dtype=int)
    kills = deaths = 0.0
    while not step.done:
        before = step.alive
        actions = brawl(np.asarray(step.observations), 0)
        scrambled = np.where(before, actions, 13)
        step, mirror = world.step(actions), twin.step(scrambled)
        assert same(step, mirror)
        ended += step.terminated
        assert not step.rewards[~before].any()
        assert not np.asarray(step.observations)[~step.alive].any()
        assert np.asarray(step.observations)[step.alive].any(axis=1).all()
        kills, deaths = kills + step.counts["kills"], deaths + step.counts["deaths"]
        assert np.count_nonzero(before & ~step.alive) == step.counts["deaths"]
    summary = world.episode_summary()
    assert not step.truncated
    assert (ended == 1).all()  # the survivors of a victory end with it
    assert (summary["kills"], summary["deaths"]) == (kills, deaths)
    assert summary["alive"] == 49 - deaths
    assert summary["enemy_alive"] == 49 - kills
    assert summary["win"] == float(summary["alive"] > 0)
    assert deaths > 0


def test_the_time_limit_truncates() -> None:
    world = battle(episode_steps=3)
    world.reset(0)
    steps = [world.step(np.full(36, 6)) for _ in range(3)]
    assert [(s.done, s.truncated) for s in steps] == [(False, False), (False, False), (True, True)]
    assert not steps[-1].terminated.any()
    assert world.episode_summary()["win"] == 0.5


def test_a_picture_shows_the_living_where_they_stand(brawl: Brawler) -> None:
    world = battle(36, map_size=30 + 2)
    world.reset(0)
    picture = world.render(scale=1)
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    red = picture[..., 0].astype(int) - picture[..., 2] > 100
    blue = picture[..., 2].astype(int) - picture[..., 0] > 100
    assert (red.sum(), blue.sum()) == (36, 36)
    middle = 32 // 2 - 1
    mirrored = {(y, 2 * middle - x) for y, x in np.argwhere(red).tolist()}
    assert mirrored == {(y, x) for y, x in np.argwhere(blue).tolist()}
    assert world.render(scale=5).shape == (160, 160, 3)
    step = world.step(np.full(36, 6))
    while not (step.done or world.episode_summary()["kills"]):
        step = world.step(brawl(np.asarray(step.observations), 0))
    after = world.render(scale=1).reshape(-1, 3)
    ground = (after == (250, 248, 243)).all(axis=1).sum()
    walls = 4 * 32 - 4
    summary = world.episode_summary()
    assert summary["kills"] > 0
    assert ground == 32 * 32 - walls - summary["alive"] - summary["enemy_alive"]


def test_a_map_too_small() -> None:
    with pytest.raises(UsageError, match=r"world\.map_size = 12"):
        battle(36, map_size=12)
