"""MADDPG's update in float64 against autograd of its formulas, agent by agent."""

from __future__ import annotations

import numpy as np
import torch

from f2a2_sim.baselines.maddpg import Maddpg, MaddpgConfig, gumbel_noise, straight_through
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


def test_critics_policies_and_targets_take_the_written_steps() -> None:
    learner, batch, choose = make(Maddpg, MaddpgConfig, gumbel_temperature=0.7), batch_of(), Fixed(4)
    noise = gumbel_noise(np.random.default_rng(5).random((N, BATCH, ACTIONS)))
    rows, targets, policies = (
        critic_rows(learner),
        critic_rows(learner, "targets"),
        policy_rows(learner),
    )
    target_policies = policy_rows(learner, "targets")
    shown = learner.update(batch, choose, noise)

    asked = policy_logits(learner, target_policies, batch.next_observations)
    close(choose.probabilities, torch.stack(asked).softmax(dim=-1))
    loss, squares = torch.zeros(()), []
    for i in range(N):
        next_q = q_of(learner, targets[i], batch.next_observations, hot(choose.actions))[:, 0]
        y = batch.rewards[i] + 0.99 * (1 - batch.ended[i]) * next_q
        q = q_of(learner, rows[i], batch.observations, hot(batch.actions))[:, 0]
        squares.append(((q - y.detach()) ** 2).mean())
        loss = loss + squares[-1]
    expected = gradients(loss, rows)
    close(learner.critics.gradient, expected)
    np.testing.assert_allclose(shown["critic_loss"], torch.stack(squares).detach(), rtol=1e-9)
    np.testing.assert_allclose(shown["critic_norm"], expected.norm(dim=1), rtol=1e-9)

    updated = critic_rows(learner)
    assert all((new - old).abs().max() > 1e-4 for new, old in zip(updated, rows, strict=True))
    loss = torch.zeros(())
    for i, z in enumerate(policy_logits(learner, policies, batch.observations)):
        soft = ((z + torch.from_numpy(noise[i])) / 0.7).softmax(dim=1)
        hard = torch.eye(ACTIONS, dtype=torch.float64)[soft.argmax(dim=1)]
        acts = hot(batch.actions)
        acts[i] = (hard - soft).detach() + soft
        loss = loss - q_of(learner, updated[i].detach(), batch.observations, acts).mean()
        loss = loss + 1e-3 * (z**2).mean()
    close(policy_gradients(learner), gradients(loss, policies))

    old = torch.stack(targets)
    close(learner.critics.targets, old + 0.005 * (learner.critics.parameters - old))
    now, old, followed = (
        torch.cat(rows)
        for rows in (policy_rows(learner), target_policies, policy_rows(learner, "targets"))
    )
    close(followed, old + 0.005 * (now - old))


def test_running_moments_follow_the_batch_that_policies_learn_from() -> None:
    learner, batch = make(Maddpg, MaddpgConfig), batch_of()
    learner.update(batch, Fixed(4), np.zeros((N, BATCH, ACTIONS)))
    for group, seen in zip(learner.actors.groups, batch.observations, strict=True):
        close(group.moments.mean, 0.1 * seen.mean(dim=1))
        close(group.moments.variance, 0.9 + 0.1 * seen.var(dim=1))


def test_a_sample_is_one_hot_and_its_gradient_that_of_the_soft_one() -> None:
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gumbel = torch.from_numpy(gumbel_noise(np.random.default_rng(0).random((3, 5, 4))))
    pull = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    sampled = straight_through(one, gumbel, 0.5)
    chosen = torch.nn.functional.one_hot((logits + gumbel).argmax(dim=-1), 4).double()
    torch.testing.assert_close(sampled.detach(), chosen, rtol=0, atol=1e-12)
    (sampled * pull).sum().backward()
    ((((other + gumbel) / 0.5).softmax(dim=-1)) * pull).sum().backward()
    assert one.grad is not None and other.grad is not None
    close(one.grad, other.grad)


def test_gumbel_samples_have_the_policys_shares() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    noise = torch.from_numpy(gumbel_noise(np.random.default_rng(0).random((20_000, 4))))
    shares = straight_through(logits.expand(20_000, 4), noise, 1.0).mean(dim=0)
    np.testing.assert_allclose(shares, logits.softmax(dim=0), atol=0.015)
    assert np.isfinite(gumbel_noise(np.array([0.0, 1.0]))).all()


def test_sizes_are_those_of_all() -> None:
    learner = make(Maddpg, MaddpgConfig)
    assert learner.critics.shape.inputs == sum(SIZES) + N * ACTIONS and learner.critics.shape.outputs == 1
