"""MA-AC's update in float64 against autograd of its formulas, and its consensus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.baselines.ma_ac import MaAc, MaAcConfig, consensus_weights
from tests.f2a2_sim.baselines.plain import (
    ACTIONS,
    BATCH,
    SIZES,
    Fixed,
    N,
    batch_of,
    close,
    critic_rows,
    gradients,
    hot,
    make,
    policy_gradients,
    policy_logits,
    policy_rows,
    q_of,
)


def test_critics_and_policies_take_the_written_steps() -> None:
    learner, batch = make(MaAc, MaAcConfig), batch_of()
    choose_next, choose = Fixed(4), Fixed(5)
    rows, targets, policies = critic_rows(learner), critic_rows(learner, "targets"), policy_rows(learner)
    learner.update(batch, choose_next, choose)

    for asked, observations in ((choose_next, batch.next_observations), (choose, batch.observations)):
        logits = torch.stack(policy_logits(learner, policies, observations))
        close(asked.probabilities, logits.softmax(dim=-1))
    loss = torch.zeros(())
    for i in range(N):
        next_q = q_of(learner, targets[i], batch.next_observations, hot(choose_next.actions))[:, 0]
        y = batch.rewards[i] + 0.99 * (1 - batch.ended[i]) * next_q
        q = q_of(learner, rows[i], batch.observations, hot(batch.actions))[:, 0]
        loss = loss + ((q - y.detach()) ** 2).mean()
    close(learner.critics.gradient, gradients(loss, rows))

    loss, actions = torch.zeros(()), choose.actions
    for i, z in enumerate(policy_logits(learner, policies, batch.observations)):
        row, values = learner.critics.parameters[i], []  # after consensus
        for a in range(ACTIONS):
            acts = hot(actions)
            acts[i] = torch.eye(ACTIONS, dtype=torch.float64)[a].expand(BATCH, ACTIONS)
            values.append(q_of(learner, row, batch.observations, acts)[:, 0].detach())
        q, pi = torch.stack(values, dim=1), z.softmax(dim=1)
        taken = torch.arange(BATCH), actions[i]
        advantage = (q[taken] - (pi * q).sum(dim=1)).detach()
        objective = pi.log()[taken] * advantage - 0.01 * (pi * pi.log()).sum(dim=1)
        loss = loss - objective.mean() + 1e-3 * (z**2).mean()
    close(policy_gradients(learner), gradients(loss, policies))


def updated(**changes: Any) -> Any:
    learner = make(MaAc, MaAcConfig, **changes)
    learner.shown = learner.update(batch_of(), Fixed(4), Fixed(5))
    return learner


def test_consensus_is_the_weighted_mean_of_the_critics_after_their_steps() -> None:
    alone, complete = updated(graph="empty"), updated(graph="complete")
    mean = alone.critics.parameters.mean(dim=0)
    close(complete.critics.parameters, mean.expand_as(alone.critics.parameters))
    assert complete.shown["disagreement"].max() < 1e-12 < alone.shown["disagreement"].min()
    apart = (alone.critics.parameters - mean).norm(dim=1)
    np.testing.assert_allclose(alone.shown["disagreement"], apart, rtol=1e-9)


@pytest.mark.parametrize("graph", ["ring", "complete", "empty"])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_weights_are_doubly_stochastic(graph: Any, n: int) -> None:
    weights = consensus_weights(graph, n)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(weights, weights.T)
    assert (weights >= 0).all()


def test_weights_of_a_ring_and_a_complete_graph() -> None:
    third = np.eye(8) / 3 + np.roll(np.eye(8), 1, axis=0) / 3 + np.roll(np.eye(8), -1, axis=0) / 3
    np.testing.assert_allclose(consensus_weights("ring", 8), third)
    np.testing.assert_allclose(consensus_weights("complete", 8), np.full((8, 8), 1 / 8))
    np.testing.assert_array_equal(consensus_weights("empty", 8), np.eye(8))


def test_critics_begin_equal() -> None:
    learner = MaAc(MaAcConfig(hidden_size=8), SIZES, ACTIONS, np.random.default_rng(0))
    rows = learner.critics.parameters
    assert bool((rows == rows[0]).all()) and torch.equal(rows, learner.critics.targets)
