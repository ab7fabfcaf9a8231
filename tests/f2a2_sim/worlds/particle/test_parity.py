"""The rules against recordings of the original environments; see ``records``."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.f2a2_sim.worlds.particle import records
from tests.f2a2_sim.worlds.particle.records import TOLERANCE, Steps

TRAJECTORIES = records.files(records.folder(), probes=False)
PROBES = records.files(records.folder(), probes=True)


def names(path: Path) -> str:
    return path.stem


def assert_near(got: Any, wanted: Any, what: str) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0.0, atol=TOLERANCE, err_msg=what)


def assert_state(got: records.State, wanted: records.State) -> None:
    """Whole numbers, and places that were drawn or are fixed, exactly; what moves within the tolerance."""
    for field in fields(wanted):
        ours, theirs = getattr(got, field.name), getattr(wanted, field.name)
        if field.name in ("position", "velocity"):
            assert_near(ours, theirs, field.name)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


def assert_steps(steps: Steps) -> None:
    """Play all steps at once, as one batch, and compare everything that they give."""
    rules = records.new_rules(steps.world)
    rules.state = copy.deepcopy(steps.before)  # type: ignore[assignment]
    rules.streams = steps.streams  # type: ignore[union-attr]
    observations, rewards = rules.step(steps.actions)
    for role, ours, theirs in zip(records.ROLES[steps.world], observations, steps.observations, strict=True):
        assert_near(ours, theirs, f"observations of {role}")
    assert_near(rewards, steps.rewards, "rewards")
    assert_state(rules.state, steps.after)


def assert_generator(draws: np.random.RandomState, data: records.Arrays, moment: int) -> None:
    state: Any = draws.get_state()
    np.testing.assert_array_equal(state[1], data["mt_key"][moment])
    assert state[2] == int(data["mt_pos"][moment])


def test_there_are_recordings() -> None:
    assert TRAJECTORIES or PROBES, f"F2A2_PARITY_DIR = {records.folder()}: holds no recordings"
    assert {records.world_of(path) for path in records.files(records.SHIPPED, probes=False)} == {"ctc", "rt"}


@pytest.mark.parametrize("path", TRAJECTORIES, ids=names)
def test_every_single_step(path: Path) -> None:
    data = records.load(path)
    steps = records.trajectory_steps(records.world_of(path), data)
    assert_steps(steps)
    for moment, draws in enumerate(steps.streams, start=1):
        if records.world_of(path) == "ctc":
            assert_generator(draws, data, moment)


@pytest.mark.parametrize("path", TRAJECTORIES, ids=names)
def test_an_episode_from_its_seed_alone(path: Path) -> None:
    data, world = records.load(path), records.world_of(path)
    recorded = records.trajectory_steps(world, data)
    rules, draws = records.new_rules(world), np.random.RandomState(int(data["meta_seed"]))
    observations = rules.reset([draws])
    np.testing.assert_array_equal(rules.state.position[0], data["agent_pos"][0])
    assert_generator(draws, data, 0)
    for t, actions in enumerate(data["actions"]):
        assert_seen(world, observations, data, t)
        assert_state(rules.state, at(recorded.before, t))
        observations, rewards = rules.step(actions[None])
        assert_near(rewards[0], data["rewards"][t], f"rewards of step {t}")
        assert_generator(draws, data, t + 1)
    assert_seen(world, observations, data, len(data["actions"]))


def assert_seen(world: str, observations: Any, data: records.Arrays, moment: int) -> None:
    for role, ours in zip(records.ROLES[world], observations, strict=True):
        assert_near(ours[0], data[f"obs_{role}"][moment], f"{role} after {moment} steps")


def at(state: records.State, moment: int) -> records.State:
    """One moment of a batch of moments, as a batch of one."""
    parts = {field.name: getattr(state, field.name)[moment : moment + 1] for field in fields(state)}
    return type(state)(**parts)


@pytest.mark.parametrize("path", TRAJECTORIES, ids=names)
def test_what_was_recorded_of_the_bodies(path: Path) -> None:
    data, rules = records.load(path), records.new_rules(records.world_of(path))
    for name in ("size", "mass", "accel", "max_speed", "movable", "collide"):
        np.testing.assert_array_equal(getattr(rules.bodies, name), data[f"agent_{name}"], err_msg=name)
    np.testing.assert_array_equal([rules.n_actions] * 8, data["action_n"])


@pytest.mark.parametrize("path", TRAJECTORIES, ids=names)
def test_colours(path: Path) -> None:
    """Things first, agents last, as in pictures; a treasure that was taken is not drawn."""
    data, world = records.load(path), records.world_of(path)
    steps = records.trajectory_steps(world, data)
    rules = records.new_rules(world)
    rules.state = steps.after  # type: ignore[assignment]
    for rollout in range(len(steps.rewards)):
        discs = rules.discs(rollout)
        assert_near(discs.colour[-8:], data["agent_color"][rollout + 1], "agents")
        things = data["treasure_color" if world == "ctc" else "landmark_color"][rollout + 1]
        there = data["treasure_alive"][rollout + 1] if world == "ctc" else np.ones(6, dtype=np.bool_)
        assert_near(discs.colour[:-8], things[there], "things")


@pytest.mark.parametrize("path", PROBES, ids=names)
def test_probes(path: Path) -> None:
    assert_steps(records.probe_steps(records.world_of(path), records.load(path)))


@pytest.mark.parametrize("world", ["ctc", "rt"])
def test_probe_files_are_read_as_described(world: str, tmp_path: Path) -> None:
    """Recorded steps, written as probes and read back, hold; and a file that is off by a little does not.

    The seed of a recorded step is not known, so only steps without draws are taken.
    """
    path = next(p for p in records.files(records.SHIPPED, probes=False) if records.world_of(p) == world)
    data = records.load(path)
    steps = records.trajectory_steps(world, data)
    still = np.flatnonzero(data["treasure_alive"][:-1].all(axis=1)) if world == "ctc" else np.arange(60)
    assert len(still) > 20
    whole = records.probes_of(steps, np.zeros(60, dtype=np.int64))
    assert_probes_hold(world, {name: value[still] for name, value in whole.items()}, tmp_path)


@pytest.mark.parametrize("world", ["ctc", "rt"])
def test_probes_with_draws_of_their_own(world: str, tmp_path: Path) -> None:
    """Crowded random states of our own, some or all treasures gone, played one by one."""
    rng = np.random.default_rng(5)
    seeds = np.arange(40, dtype=np.int64) + 100
    probes = [one_probe(world, int(seed), rng) for seed in seeds]
    data = {name: np.concatenate([probe[name] for probe in probes]) for name in probes[0]}
    if world == "rt":
        del data["pre_landmark_pos"], data["post_landmark_pos"]  # they follow from the seed
    assert_probes_hold(world, data, tmp_path)


def one_probe(world: str, seed: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    rules = records.new_rules(world)
    rules.reset([np.random.RandomState(seed)])
    state = rules.state
    state.position[0] = rng.uniform(-0.3, 0.3, (8, 2))
    state.velocity[0] = rng.uniform(-0.7, 0.7, (8, 2))
    if not hasattr(state, "goal"):
        state.holding[0] = rng.integers(-1, 2, 6)
        state.treasure_position[0] = rng.uniform(-0.3, 0.3, (6, 2))
        state.treasure_alive[0] = rng.random(6) < rng.choice([0.0, 0.5, 1.0])
        state.treasure_position[~state.treasure_alive] = -999.0
    else:
        state.velocity[0, 4:] = 0.0
    before, actions = copy.deepcopy(state), rng.integers(5, size=(1, 8))
    rules.streams = [np.random.RandomState(seed)]  # type: ignore[union-attr]
    observations, rewards = rules.step(actions)
    steps = Steps(world, before, rules.state, actions, observations, rewards, [])
    return records.probes_of(steps, np.array([seed]))


def assert_probes_hold(world: str, data: dict[str, NDArray[Any]], folder: Path) -> None:
    path = folder / f"{world}_probes.npz"
    np.savez(path, **data)
    assert records.files(folder, probes=True) == [path]
    assert_steps(records.probe_steps(world, records.load(path)))
    for name in ("rewards", "post_agent_vel", f"obs_{records.ROLES[world][1]}"):
        wrong = records.load(path)
        wrong[name].flat[-1] += 1e-6
        with pytest.raises(AssertionError):
            assert_steps(records.probe_steps(world, wrong))
