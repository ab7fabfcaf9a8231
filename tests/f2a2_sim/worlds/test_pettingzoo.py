from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.worlds.pettingzoo import PettingZooWorld


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def world(name: str = "Leavers", steps: int = 100, **env_args: Any) -> PettingZooWorld:
    return PettingZooWorld(f"tiny_envs:{name}", env_args, steps)


def lists(observations: Any) -> list[list[float]]:
    return [row.tolist() for row in observations]


def test_spaces_become_vectors_and_numbers() -> None:
    agents = world().agents
    assert [(a.name, a.observation_size, a.n_actions) for a in agents] == [
        ("a", 4, 3),
        ("b", 3, 4),
        ("c", 2, 3),
    ]


def test_agents_that_leave() -> None:
    """a is terminated at 1, b cut off at 2 (start of its actions: 1), c cut off with the episode at 5."""
    w = world()
    start = w.reset(seed=0)  # luck is 1
    assert lists(start.observations) == [[0] * 4, [1, 0, 0], [1, 1]]
    assert all(row.dtype == np.float32 for row in start.observations)
    one = w.step(np.array([2, 3, 1]))
    assert one.rewards.tolist() == [2.0, 4.0, 1.0]
    assert one.terminated.tolist() == [True, False, False]
    assert one.alive.tolist() == [False, True, True]
    assert lists(one.observations) == [[0] * 4, [0, 1, 0], [1, 1]]
    two = w.step(np.array([9, 0, 0]))
    assert two.rewards.tolist() == [0.0, 1.0, 0.0]
    assert two.terminated.tolist() == [False, False, False]
    assert two.alive.tolist() == [False, False, True]
    assert lists(two.observations) == [
        [0] * 4,
        [0, 0, 1],
        [1, 1],
    ]  # cut off, not ended: b's last view is there
    three = w.step(np.array([0, 0, 2]))
    assert lists(three.observations) == [[0] * 4, [0] * 3, [1, 1]]
    w.step(np.array([0, 0, 2]))
    last = w.step(np.array([0, 0, 2]))
    assert (last.done, last.truncated) == (True, True)
    assert not last.alive.any()
    assert not last.terminated.any()


def test_leaving_without_a_word_is_the_end_of_it() -> None:
    w = world(silent=True)
    w.reset(seed=0)
    step = w.step(np.array([2, 0, 0]))
    assert step.terminated.tolist() == [True, False, False]
    assert step.rewards.tolist() == [0.0, 1.0, 0.0]


def test_episode_steps_ends_an_episode_too() -> None:
    w = world(steps=2)
    w.reset(seed=0)
    assert not w.step(np.zeros(3, dtype=np.int64)).done
    last = w.step(np.zeros(3, dtype=np.int64))
    assert (last.done, last.truncated) == (True, True)
    assert last.alive.tolist() == [False, False, True]
    assert w.episode_summary() == {"alive": 1.0}


def test_one_size_is_one_array() -> None:
    w = world("Same")
    start = w.reset(seed=1)
    assert isinstance(start.observations, np.ndarray)
    assert start.observations.shape == (2, 2)


def test_restore_replays() -> None:
    w, again = world(), world()
    for seed in (0, 3):
        w.reset(seed)
        actions = np.array([[2, 3, 1], [0, 2, 0], [0, 0, 1]])
        steps = [w.step(row) for row in actions]
        back = again.restore(seed, actions)
        assert lists(back.observations) == lists(steps[-1].observations)
        assert back.rewards.tolist() == steps[-1].rewards.tolist()
        assert again.step(actions[0]).rewards.tolist() == w.step(actions[0]).rewards.tolist()
    assert lists(again.restore(0, np.zeros((0, 3), dtype=np.int64)).observations)[0] == [0] * 4


def test_pictures() -> None:
    w = world(render_mode="rgb_array")
    w.reset(0)
    w.step(np.zeros(3, dtype=np.int64))
    assert w.render().shape == (4, 6, 3)
    assert w.render().max() == 1
    with pytest.raises(UsageError, match=r"draws no picture.*render_mode"):
        world().render()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere_at_all:x", r"'nowhere_at_all' cannot be imported.*Install"),
        ("tiny_envs", r"expected 'battle', .* or 'package.module:callable'"),
        ("tiny_envs:", r"expected 'battle', .* or 'package.module:callable'"),
        ("tiny_envs:Leaver", r"no 'Leaver'.*Did you mean 'Leavers'"),
        ("tiny_envs:NOT_CALLABLE", r"'NOT_CALLABLE' is a int; expected a callable"),
        ("tiny_envs:not_an_environment", r"makes a dict, which lacks reset"),
        ("magent2.environments.battle_v4:env", r"move in turn.*parallel_env"),
    ],
)
def test_paths_that_lead_to_no_parallel_environment(path: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as told:
        PettingZooWorld(path, {})
    assert str(told.value).startswith(f"world.env = {path!r}")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("dict", r"agent 'a': its observation space is Dict.*expected Box, Discrete or MultiBinary"),
        ("continuous", r"agent 'a': its action space is Box.*expected Discrete.*continuous_actions"),
        ("many", r"its action space is MultiDiscrete.*expected Discrete"),
        ("nobody", r"has no possible_agents"),
        ("refuses", r"world\.env_args = {'wrong': 'refuses'} \(RuntimeError: no licence\)"),
    ],
)
def test_environments_that_do_not_fit(wrong: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        world("Odd", wrong=wrong)


def test_arguments_that_the_callable_does_not_take() -> None:
    with pytest.raises(UsageError, match=r"world\.env_args = {'colour': 1}.*colour.*Mend world\.env_args"):
        world(colour=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("stranger", r"agents \['z'\] are not among its possible_agents"),
        ("shape", r"agent 'c' observed 5 numbers, its observation space holds 2"),
        ("blind", r"gave no observation for 'c'"),
        ("falls", r"its step failed \(ZeroDivisionError: oops\)"),
    ],
)
def test_environments_that_fail_on_the_way(wrong: str, message: str) -> None:
    w = world("Odd", wrong=wrong)
    w.reset(0)
    with pytest.raises(RunError, match=message):
        w.step(np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize(
    ("path", "env_args"),
    [
        ("magent2.environments.battle_v4:parallel_env", {"map_size": 16, "max_cycles": 30}),
        ("mpe2.simple_spread_v3:parallel_env", {"N": 4, "max_cycles": 25}),
        ("mpe2.simple_tag_v3:parallel_env", {"max_cycles": 25}),
    ],
)
def test_published_environments(path: str, env_args: dict[str, Any]) -> None:
    """Whole episodes, twice the same from the same seed, another from another, and restored half way."""
    module = path.partition(":")[0]
    pytest.importorskip(module)
    w, again = PettingZooWorld(path, env_args, 60), PettingZooWorld(path, env_args, 60)
    n = len(w.agents)
    rng = np.random.default_rng(0)
    most = np.array([agent.n_actions for agent in w.agents])
    steps = [w.reset(seed=3)]
    actions = []
    while not steps[-1].done:
        actions.append(rng.integers(0, most))
        steps.append(w.step(actions[-1]))
    assert steps[-1].truncated
    assert len(actions) == env_args["max_cycles"]
    half = len(actions) // 2
    again.reset(seed=4)
    back = again.restore(3, np.array(actions[:half]))
    for t in range(half, len(actions)):
        for got, want in zip(back.observations, steps[t].observations, strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(back.rewards, steps[t].rewards)
        assert np.shape(back.rewards) == (n,)
        back = again.step(actions[t])
    assert module in sys.modules
