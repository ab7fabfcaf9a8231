"""A fleet of ISAC agents: acting, independence of rows, blocks, state, costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.learners.base import Batch, FleetSetup, learner_names, make_fleet
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac import IsacFleet

MakeFleet = Callable[..., IsacFleet]


def rounds(fleet: IsacFleet, count: int, seed: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    rows = np.arange(fleet.n_agents)
    return [
        fleet.update(rows, fleet.draw_batch(rows, rng.random((fleet.n_agents, fleet.draws_per_update))))
        for _ in range(count)
    ]


def test_actions_follow_each_rows_policy(make_small: MakeFleet) -> None:
    """Evenly spread uniforms give each action its probability's share, from the row's own weights."""
    fleet = make_small()
    fleet.parameters.mul_(4)  # policies that differ
    observation = np.random.default_rng(0).standard_normal((1, 7)).astype(np.float32)
    uniforms = (np.arange(2000) + 0.5) / 2000
    for row in range(3):
        first, w2, b2, w3, b3 = (
            v[0] for v in fleet.actor.views(fleet.parameters[row : row + 1, : fleet.actor.size])
        )
        inputs = torch.from_numpy(observation).double()
        hidden = torch.nn.functional.leaky_relu(inputs @ first[:-1] + first[-1], 0.01)
        hidden = torch.nn.functional.leaky_relu(hidden @ w2[0] + b2[0], 0.01)
        expected = (hidden @ w3[0] + b3[0])[0]
        counts = np.zeros(5)
        for u in uniforms:
            actions, logits = fleet.act(np.array([row]), observation, np.array([u]))
            counts[actions[0]] += 1
        np.testing.assert_allclose(logits[0], expected.numpy(), rtol=1e-6)
        np.testing.assert_allclose(counts / 2000, torch.softmax(expected, 0).numpy(), atol=1e-3)


def test_act_on_any_rows_in_any_order_equals_act_on_all(make_small: MakeFleet) -> None:
    fleet = make_small(agents=7)
    rng = np.random.default_rng(1)
    observations, uniforms = rng.standard_normal((7, 7)).astype(np.float32), rng.random(7)
    actions, logits = fleet.act(np.arange(7), observations, uniforms)
    some = np.array([6, 1, 0, 3])
    some_actions, some_logits = fleet.act(some, observations[some], uniforms[some])
    assert some_actions.tolist() == actions[some].tolist()
    np.testing.assert_allclose(some_logits, logits[some], rtol=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_extreme_uniforms_choose_possible_actions(make_small: MakeFleet, uniform: float) -> None:
    """An action of probability 0 is never taken, whichever end of the table it stands at."""
    fleet = make_small(agents=1)
    fleet.parameters.zero_()
    bias = fleet.actor.views(fleet.parameters[:, : fleet.actor.size])[-1]
    bias.copy_(torch.tensor([-2000.0, 0.0, 0.0, 0.0, -2000.0]))
    action, _ = fleet.act(np.array([0]), np.zeros((1, 7), dtype=np.float32), np.array([uniform]))
    assert action[0] == (1 if uniform == 0 else 3)


def test_block_size_changes_nothing_but_rounding(make_small: MakeFleet) -> None:
    fleets = [make_small(agents=7, block_agents=block, beta=0.1) for block in (1, 3, 7)]
    statistics = [rounds(fleet, 4)[-1] for fleet in fleets]
    for fleet, values in zip(fleets[1:], statistics[1:], strict=True):
        torch.testing.assert_close(fleet.parameters, fleets[0].parameters, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(fleet.targets, fleets[0].targets, rtol=1e-10, atol=1e-12)
        for name, array in values.items():
            np.testing.assert_allclose(array, statistics[0][name], rtol=1e-9)


def test_rows_may_come_in_any_order(make_small: MakeFleet) -> None:
    one, other = make_small(agents=5, block_agents=1), make_small(agents=5, block_agents=1)
    rows = np.array([4, 1, 2])
    batch = one.draw_batch(rows, np.random.default_rng(2).random((3, one.draws_per_update)))
    order = np.array([1, 2, 0])
    first = one.update(rows, batch)
    second = other.update(rows[order], batch.take(order))
    assert torch.equal(one.parameters, other.parameters)
    for name in first:
        np.testing.assert_array_equal(first[name][order], second[name])


def test_agents_share_nothing(make_small: MakeFleet) -> None:
    """Other data for one agent leaves every other agent's rows bit-identical, neighbours in its block too."""
    one, other = (
        make_small(agents=5, block_agents=4, beta=0.1),
        make_small(agents=5, block_agents=4, beta=0.1),
    )
    other.replay.rewards[2] += 1.0
    other.replay.observations[2] *= 1.5
    rounds(one, 3)
    rounds(other, 3)
    others = [0, 1, 3, 4]
    assert not torch.equal(one.parameters[2], other.parameters[2])
    for name, tensor in one.state().items():
        if name != "replay":
            assert torch.equal(tensor[others], other.state()[name][others]), name


def test_an_agent_that_does_not_update_stays_as_it_is(make_small: MakeFleet) -> None:
    fleet = make_small(agents=4)
    before = fleet.parameters.clone()
    rows = np.array([0, 3])
    fleet.update(rows, fleet.draw_batch(rows, np.full((2, fleet.draws_per_update), 0.4)))
    assert torch.equal(fleet.parameters[1:3], before[1:3])
    assert not torch.equal(fleet.parameters[[0, 3]], before[[0, 3]])
    assert fleet.adam.steps.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("exact", [True, False])
def test_state_continues_bit_for_bit(make_small: MakeFleet, exact: bool) -> None:
    changes: dict[str, Any] = {
        "beta": 0.1,
        "dtype": torch.float32,
        "exact_expectation": exact,
        "normalise_td": True,
    }
    fleet = make_small(**changes)
    rounds(fleet, 2)
    fleet.take_consensus(np.arange(3), fleet.shared_parameters().mean(dim=0, keepdim=True).expand(3, -1))
    saved = copied(fleet.state())
    twin = make_small(**changes, seed=99)
    twin.load_state(saved)
    for one in (fleet, twin):
        rounds(one, 2, seed=6)
    assert_equal_states(fleet.state(), twin.state())
    rng = np.random.default_rng(3)
    observations = rng.standard_normal((3, 7)).astype(np.float32)
    for mine, theirs in zip(
        *(one.act(np.arange(3), observations, np.full(3, 0.3)) for one in (fleet, twin)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        k: copied(v) if isinstance(v, dict) else v.clone() if torch.is_tensor(v) else v.copy()
        for k, v in state.items()
    }


def assert_equal_states(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_equal_states(value, other[name])
        else:
            np.testing.assert_array_equal(np.asarray(value), np.asarray(other[name]), err_msg=name)


def test_state_of_another_shape_is_refused(make_small: MakeFleet) -> None:
    with pytest.raises(CheckpointError, match="parameters"):
        make_small(agents=2).load_state(make_small(agents=3).state())


def test_reset_forgets_one_agent(make_small: MakeFleet) -> None:
    fleet = make_small(beta=0.1)
    initial = fleet.parameters.clone()
    rounds(fleet, 2)
    others = fleet.parameters[[0, 2]].clone()
    fleet.reset(np.array([1]), [1])
    assert torch.equal(fleet.parameters[1], initial[1])
    assert torch.equal(fleet.targets[1], initial[1, fleet.actor.size :])
    assert torch.equal(fleet.parameters[[0, 2]], others)
    assert not fleet.can_update(np.array([1]))[0] and fleet.can_update(np.array([0]))[0]
    assert fleet.adam.steps.tolist() == [2, 0, 2]
    assert not fleet.adam.first_moment[1].any() and not fleet.dual[1].any()


def test_equal_seeds_are_equal_weights() -> None:
    config = LearnerConfig(hidden_size=16, batch_size=4, replay_transitions=100)
    fleet = IsacFleet(config, FleetSetup(7, 5, [3, 4, 3], 3))
    assert torch.equal(fleet.parameters[0], fleet.parameters[2])
    assert not torch.equal(fleet.parameters[0], fleet.parameters[1])
    twins = fleet.critics.views(fleet.parameters[:, fleet.actor.size :])[3]
    assert not torch.equal(twins[:, 0], twins[:, 1])


def test_adopt_sets_only_the_shared_columns(make_small: MakeFleet) -> None:
    fleet = make_small(shared="critic")
    before = fleet.parameters.clone()
    values = torch.ones(2, fleet.shared_parameters().shape[1], dtype=torch.float64)
    fleet.adopt(np.array([2, 0]), values * torch.tensor([[2.0], [5.0]]))
    assert torch.equal(fleet.parameters[:, : fleet.actor.size], before[:, : fleet.actor.size])
    assert fleet.shared_parameters()[:, 0].tolist() == [5.0, float(before[1, fleet.actor.size]), 2.0]


def test_float16_replay_stays_close_to_float32(make_small: MakeFleet) -> None:
    """One gradient of each agent differs by less than a percent of its length."""
    exact, half = make_small(replay_dtype="float32"), make_small(replay_dtype="float16")
    rounds(exact, 1)
    rounds(half, 1)
    gap = (exact.adam.first_moment - half.adam.first_moment).norm(dim=1)
    assert bool((gap < 0.01 * exact.adam.first_moment.norm(dim=1)).all()) and bool((gap > 0).all())


def test_updates_wait_for_batch_and_warmup(make_small: MakeFleet) -> None:
    """The fixture gives every agent 12 transitions."""
    rows = np.array([0, 1])
    assert make_small().can_update(rows).all()
    assert make_small(batch_size=12).can_update(rows).all()
    assert not make_small(batch_size=13).can_update(rows).any()
    assert not make_small(warmup_transitions=13).can_update(rows).any()


def test_work_is_counted_on_the_code_and_equals_the_closed_form() -> None:
    config = LearnerConfig()
    fleet = make_fleet(config, FleetSetup(845, 21, [0], 256))
    layers = 846 * 128 + 128 * 128 + 128 * 21  # the first layer's bias is a row of its matrix
    upstream = 128 * 128 + 128 * 21
    assert fleet.act_work().flops == 2 * layers
    # Forward: actor at o and o', target and present critics, new critics; backward: actor, both critics.
    forward = 2 + 2 + 2 + 2
    assert fleet.update_work().flops == 2 * 128 * (forward * layers + 3 * (layers + upstream))
    parameters = 3 * (layers + 128 + 21)
    assert fleet.act_work().bytes >= 4 * parameters / 3
    assert fleet.update_work().bytes >= 4 * 7 * parameters
    assert 5 < fleet.act_work().kernels < 30
    assert 60 < fleet.update_work().kernels < 250
    assert fleet.memory_bytes()["optimiser"] == pytest.approx(8 * parameters, rel=1e-3)


def test_counting_leaves_the_fleet_alone(make_small: MakeFleet) -> None:
    fleet, twin = make_small(beta=0.1), make_small(beta=0.1)
    fleet.update_work()
    assert_equal_states(fleet.state(), twin.state())


def test_too_small_a_replay_is_an_error_that_names_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"replay_transitions: 1000 over 8 agents is 125.*256.*2048"):
        make_fleet(LearnerConfig(replay_transitions=1000), FleetSetup(7, 5, [0], 8))


def test_unknown_learner_is_an_error_that_names_the_known() -> None:
    assert learner_names() == ["f2a2_coma", "f2a2_ddpg", "f2a2_isac", "f2a2_sac", "f2a2_td3"]
    with pytest.raises(UsageError, match=r"learner\.name: 'f2a2_sca'.*f2a2_isac.*did you mean 'f2a2_sac'"):
        make_fleet(LearnerConfig(name="f2a2_sca"), FleetSetup(7, 5, [0], 1))


def test_batch_take() -> None:
    batch = Batch(np.arange(6).reshape(3, 2), np.arange(12.0).reshape(3, 4))
    part = batch.take(np.array([2, 0]))
    assert part.indices.tolist() == [[4, 5], [0, 1]]
    assert part.resample is not None and part.resample[:, 0].tolist() == [8.0, 0.0]
