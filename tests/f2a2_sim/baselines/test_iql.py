"""Independent Q-learning in float64 against autograd of its formula, and its exploration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from f2a2_sim.baselines.iql import Iql, IqlConfig
from tests.f2a2_sim.baselines.plain import ACTIONS, BATCH, SIZES, N, batch_of, by_agent, close, gradients, mlp

CHANGES: dict[str, Any] = {"hidden_size": 8, "batch_size": BATCH, "policy_clip": 1e9}


def make(**changes: Any) -> Iql:
    config = IqlConfig.model_validate(CHANGES | changes)
    learner = Iql(config, SIZES, ACTIONS, np.random.default_rng(1), dtype=torch.float64)
    rng = np.random.default_rng(2)
    for group in learner.networks.groups:
        for rows in (group.parameters, group.targets):
            rows.add_(torch.from_numpy(0.3 * rng.standard_normal(tuple(rows.shape))))
    return learner


def test_networks_take_the_written_step() -> None:
    learner, batch = make(), batch_of()
    groups = learner.networks.groups
    shapes = [group.shape for group in groups for _ in range(group.group.count)]
    rows = [row.clone().requires_grad_() for group in groups for row in group.parameters]
    targets = [row.clone() for group in groups for row in group.targets]
    shown = learner.update(batch)

    now, later, losses = by_agent(batch.observations), by_agent(batch.next_observations), []
    for i in range(N):
        best = mlp(shapes[i], rows[i], later[i]).argmax(dim=1)
        ahead = mlp(shapes[i], targets[i], later[i])[torch.arange(BATCH), best]
        y = batch.rewards[i] + 0.99 * (1 - batch.ended[i]) * ahead
        q = mlp(shapes[i], rows[i], now[i])[torch.arange(BATCH), batch.actions[i]]
        losses.append(((q - y.detach()) ** 2).mean())
    found = [row for group in groups for row in group.gradient]
    close(torch.nn.utils.rnn.pad_sequence(found, batch_first=True), gradients(sum(losses), rows))
    np.testing.assert_allclose(shown["critic_loss"], torch.stack(losses).detach(), rtol=1e-9)


def test_actions_are_greedy_but_for_a_falling_share() -> None:
    learner = make(first_epsilon=0.4, last_epsilon=0.1, epsilon_transitions=40_000)
    observations = [np.ones((20_000, 2, 6), np.float32), np.ones((20_000, 1, 4), np.float32)]
    greedy = learner.networks.acting_logits(observations)[:, 0].argmax(dim=-1).numpy()
    for epsilon in (0.4, 0.25, 0.1, 0.1):
        assert learner.epsilon == epsilon or abs(learner.epsilon - epsilon) < 1e-12
        actions = learner.act(observations, np.random.default_rng(0).random((N, 20_000)))
        for i in range(N):
            shares = np.bincount(actions[:, i], minlength=ACTIONS) / 20_000
            expected = np.full(ACTIONS, epsilon / ACTIONS)
            expected[greedy[i]] += 1 - epsilon
            np.testing.assert_allclose(shares, expected, atol=0.012)
