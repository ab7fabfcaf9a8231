"""The policy in the package: what it says of itself, and that it fights."""

from __future__ import annotations

import importlib.resources
import json

import numpy as np
import pytest
from safetensors import safe_open

from f2a2_sim.opponents import make_opponent
from f2a2_sim.opponents.self_play import TrainSettings
from f2a2_sim.worlds.battle import BattleWorld

SHIPPED = importlib.resources.files("f2a2_sim.opponents") / "battle_iql.safetensors"


def test_it_says_how_it_was_made() -> None:
    with importlib.resources.as_file(SHIPPED) as path:
        assert path.stat().st_size < 1_000_000
        with safe_open(path, framework="numpy") as file:
            told = file.metadata()
    assert (told["rounds"], told["seed"]) == ("2000", "1")
    assert TrainSettings(**json.loads(told["settings"])) == TrainSettings()  # the command's defaults make it
    assert (
        told["command"] == "python -m f2a2_sim.opponents.train --rounds 2000 --agents 64 --seed 1 --steps 200"
    )


@pytest.mark.parametrize(("agents", "fewest_kills"), [(12, 9), (64, 60), (256, 150)])
def test_it_destroys_a_random_army(agents: int, fewest_kills: int) -> None:
    world = BattleWorld(agents, make_opponent("iql", 845, 21))
    rng = np.random.default_rng(0)
    step = world.reset(0)
    while not step.done:
        step = world.step(rng.integers(0, 21, agents))
    summary = world.episode_summary()
    assert summary["deaths"] >= fewest_kills
    assert summary["kills"] <= 1
    assert summary["win"] == 0.0


def test_it_is_no_stronger_on_one_side_than_on_the_other() -> None:
    """Playing itself, the left army loses about as many as it kills."""
    opponent = make_opponent("iql", 845, 21)
    kills = deaths = 0.0
    for seed in range(6):
        world = BattleWorld(36, opponent)
        step = world.reset(seed)
        rng = np.random.default_rng(seed)
        while not step.done:
            actions = np.full(36, world.default_action)
            rows = np.flatnonzero(step.alive)
            actions[rows] = opponent.act(np.asarray(step.observations)[rows], rng.random((len(rows), 2)))
            step = world.step(actions)
        summary = world.episode_summary()
        kills, deaths = kills + summary["kills"], deaths + summary["deaths"]
    assert kills + deaths > 6 * 36
    assert abs(kills - deaths) < 0.25 * (kills + deaths)
