"""The PettingZoo environments, and batches against them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from f2a2_sim.worlds.particle import ParticleEnv, RoverTower, TreasureCollection, ctc, rover_tower
from f2a2_sim.worlds.particle.base import Discs
from f2a2_sim.worlds.particle.picture import draw_discs

Make = Callable[..., ParticleEnv]
both = pytest.mark.parametrize("make", [ctc, rover_tower])


@both
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_finds_no_fault(make: Make) -> None:
    parallel_api_test(make(), num_cycles=120)
    parallel_seed_test(make, num_cycles=60)


def test_names_and_sizes() -> None:
    env = ctc()
    assert env.possible_agents == [*(f"collector_{i}" for i in range(6)), "deposit_0", "deposit_1"]
    assert [env.observation_space(name).shape for name in env.possible_agents] == [(86,)] * 6 + [(84,)] * 2
    env = rover_tower()
    assert env.possible_agents == [*(f"rover_{i}" for i in range(4)), *(f"tower_{i}" for i in range(4))]
    assert [env.observation_space(name).shape for name in env.possible_agents] == [(13,)] * 4 + [(8,)] * 4
    assert {env.action_space(name).n for name in env.possible_agents} == {5}


@pytest.mark.parametrize(
    ("make", "args", "length"), [(ctc, {}, 100), (rover_tower, {}, 25), (ctc, {"max_cycles": 3}, 3)]
)
def test_the_time_limit_truncates_and_nothing_terminates(
    make: Make, args: dict[str, int], length: int
) -> None:
    env = make(**args)
    env.reset(seed=1)
    for step in range(1, length + 1):
        *_, ended, cut, _ = env.step(dict.fromkeys(env.agents, 0))
        assert list(ended) == list(cut) == env.possible_agents
        assert not any(ended.values())
        assert set(cut.values()) == {step == length}
    assert env.agents == []


@pytest.mark.parametrize(("key", "value"), [("max_cycles", 0), ("render_mode", "human")])
def test_what_cannot_be(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{key} = {value!r}: expected"):
        ctc(**{key: value})  # type: ignore[arg-type]


@both
def test_episodes_differ_without_a_seed_and_follow_from_one(make: Make) -> None:
    env = make()
    first, second = env.reset(seed=4)[0], env.reset()[0]
    again = env.reset(seed=4)[0]
    for name in env.agents:
        assert first[name].tolist() == again[name].tolist()
        assert first[name].tolist() != second[name].tolist()


@pytest.mark.parametrize(
    ("rules", "make", "steps"), [(TreasureCollection, ctc, 100), (RoverTower, rover_tower, 25)]
)
def test_a_batch_is_its_rollouts_bit_for_bit(
    rules: type[TreasureCollection] | type[RoverTower], make: Make, steps: int
) -> None:
    """Rollouts of a batch, some crowded so that there are contacts, against environments of their own.

    More of them than are put in order at once, and a number that no vector instruction divides.
    """
    n, crowded = 37, 11
    batch, singles = rules(), [make() for _ in range(n)]
    observations = batch.reset([np.random.default_rng(seed) for seed in range(n)])
    seen = [env.reset(seed=seed)[0] for seed, env in enumerate(singles)]
    for rollout in range(crowded):
        for state in (batch.state.position[rollout], singles[rollout]._rules.state.position[0]):
            state *= 0.2
    moves = np.random.default_rng(9).integers(5, size=(steps, n, 8))
    assert_same(observations, seen, range(n))
    touched = 0.0
    for actions in moves:
        observations, rewards = batch.step(actions)
        seen, gained = [], []
        for env, row in zip(singles, actions.tolist(), strict=True):
            result = env.step(dict(zip(env.possible_agents, row, strict=True)))
            seen.append(result[0])
            gained.append(list(result[1].values()))
        assert_same(observations, seen, range(n))
        assert rewards.tolist() == gained
        touched += np.count_nonzero(np.abs(rewards) > 3.0)
    assert touched > 100
    for name, value in vars(batch.state).items():
        theirs = np.concatenate([getattr(env._rules.state, name) for env in singles])
        assert value.tobytes() == np.ascontiguousarray(theirs).tobytes(), name


def assert_same(
    observations: tuple[np.ndarray, ...], seen: list[dict[str, np.ndarray]], which: range
) -> None:
    for rollout in which:
        rows = np.concatenate([of_role[rollout].reshape(-1) for of_role in observations])
        assert rows.tolist() == np.concatenate(list(seen[rollout].values())).tolist()


@both
def test_observations_already_given_do_not_change(make: Make) -> None:
    env = make()
    seen, _ = env.reset(seed=0)
    kept = {name: row.copy() for name, row in seen.items()}
    later = env.step(dict.fromkeys(env.agents, 1))[0]
    kept_later = {name: row.copy() for name, row in later.items()}
    env.step(dict.fromkeys(env.agents, 2))
    for given, copy in ((seen, kept), (later, kept_later)):
        for name, row in given.items():
            np.testing.assert_array_equal(row, copy[name])


@both
def test_pictures(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    assert env.render() is None
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first is not None and first.shape == (512, 512, 3) and first.dtype == np.uint8
    for _ in range(3):
        env.step(dict.fromkeys(env.agents, 1))
    second = env.render()
    assert second is not None and (first != second).any()


def test_a_disc_is_where_it_should_be() -> None:
    """At (0.5, 0.5) in a picture of 110 pixels for 2.2: column 80, row 30, 10 wide; brightness is cut."""
    discs = Discs(np.array([[0.5, 0.5]]), np.array([0.1]), np.array([[1.2, 0.0, 0.0]]))
    picture = draw_discs(discs, 110)
    assert (picture == (255, 0, 0)).all(axis=2).any()
    red = np.argwhere(picture[..., 1] < 128)
    assert red.mean(axis=0) == pytest.approx([29.5, 79.5], abs=0.6)
    assert len(red) == pytest.approx(np.pi * 5**2, rel=0.25)


def test_pictures_keep_everyone_in_sight() -> None:
    discs = Discs(np.array([[0.0, -7.0]]), np.array([0.5]), np.array([[0.0, 0.0, 1.0]]))
    picture = draw_discs(discs, 110)
    rows = np.argwhere((picture == (0, 0, 255)).all(axis=2))[:, 0]
    assert len(rows) and rows.max() < 109
