from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.errors import UsageError
from f2a2_sim.worlds import make_world

SPREAD = "mpe2.simple_spread_v3:parallel_env"


def test_battle_by_its_keys() -> None:
    world = make_world(
        "battle", agents=20, map_size=40, opponent="random", episode_steps=7, default_action=13
    )
    assert len(world.agents) == 20
    assert world.reset(0).alive.all()
    assert (world.episode_steps, world.default_action) == (7, 13)
    assert world.render().shape[0] % 40 == 0


def test_the_shipped_opponent_is_one_that_fights() -> None:
    """Against an army that stands still for 100 steps it loses nobody and kills many."""
    world = make_world("battle", agents=36, opponent="iql", episode_steps=100)
    step = world.reset(0)
    while not step.done:
        step = world.step(np.full(36, world.default_action))
    assert world.episode_summary()["deaths"] > 18


def test_any_parallel_environment_by_its_path() -> None:
    world = make_world(SPREAD, env_args={"N": 2}, agents=2)
    assert [agent.name for agent in world.agents] == ["agent_0", "agent_1"]
    assert world.default_action == 0


@pytest.mark.parametrize(
    ("env", "steps", "kinds"),
    [
        ("ctc", 7, [("collector_", 86, 5)] * 6 + [("deposit_", 84, 5)] * 2),
        ("rover_tower", 30, [("rover_", 13, 5)] * 4 + [("tower_", 8, 5)] * 4),
    ],
)
def test_particle_worlds_by_their_names(env: str, steps: int, kinds: list[tuple[str, int, int]]) -> None:
    """Their own time limit is the scenario's, longer or shorter than MAAC's."""
    world = make_world(env, episode_steps=steps)
    assert [(a.name[:-1], a.observation_size, a.n_actions) for a in world.agents] == kinds
    step = world.reset(5)
    moves = np.random.default_rng(0).integers(5, size=(steps, 8))
    for taken in range(steps):
        assert not step.done
        step = world.step(moves[taken])
        assert not step.terminated.any()
    assert (step.done, step.truncated) == (True, True)
    assert world.render().shape == (512, 512, 3)
    again = world.restore(5, moves)
    assert again.rewards.tolist() == step.rewards.tolist()
    for ours, theirs in zip(again.observations, step.observations, strict=True):
        assert ours.any() and ours.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"env": "battle"}, r"world\.agents = null: battle needs"),
        ({"env": "battle", "agents": 11}, r"world\.agents = 11: expected 12 to 625"),
        (
            {"env": "battle", "agents": 12, "env_args": {"x": 1}},
            r"world\.env_args = {'x': 1}: battle takes none",
        ),
        (
            {"env": "battle", "agents": 12, "opponent": "alphazero"},
            r"world\.opponent = 'alphazero': expected",
        ),
        (
            {"env": "battle", "agents": 12, "default_action": 21},
            r"world\.default_action = 21: expected 0 to 20",
        ),
        ({"env": "battle", "agents": 12, "episode_steps": 0}, r"world\.episode_steps = 0"),
        ({"env": "Battle", "agents": 12}, r"world\.env = 'Battle': expected 'battle', 'ctc'"),
        ({"env": SPREAD, "env_args": {"N": 2}, "agents": 3}, r"world\.agents = 3: .* has 2 agents"),
        ({"env": "ctc", "agents": 6}, r"world\.agents = 6: 'ctc' .* has 8 agents"),
        ({"env": "ctc", "env_args": {"x": 1}}, r"world\.env_args = {'x': 1}: ctc takes none"),
        ({"env": "ctc", "default_action": 5}, r"world\.default_action = 5: expected 0 to 4"),
        ({"env": SPREAD, "map_size": 40}, r"world\.map_size = 40: only battle has a map"),
    ],
)
def test_what_cannot_be(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_world(**keys)  # type: ignore[arg-type]
