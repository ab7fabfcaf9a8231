"""COMA's update in float64 against autograd of its formulas, and TD(lambda) against the n-step returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from f2a2_sim.baselines.coma import Coma, ComaConfig, lambda_returns
from tests.f2a2_sim.baselines.plain import (
    ACTIONS,
    BATCH,
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

STEPS, ROLLOUTS = 6, BATCH // 6
FOLLOWED = np.array([True, True, False, True, True, False])


def n_step_mixture(
    r: np.ndarray, d: np.ndarray, q: np.ndarray, followed: list[bool], decay: float
) -> np.ndarray:
    """G of one rollout: (1 - lambda) sum_m lambda^(m-1) G^(m), the longest G^(m) with all that is left."""
    returns = np.zeros(len(r))
    for t in range(len(r)):
        end = t
        while followed[end]:
            end += 1
        left, total = 1.0, 0.0
        for last in range(t, end + 1):
            n_step, weight = 0.0, 1.0
            for k in range(t, last + 1):
                n_step += weight * r[k]
                weight *= d[k]
            n_step += weight * q[last]
            share = left if last == end else (1 - decay) * left
            total += share * n_step
            left *= decay
        returns[t] = total
    return returns


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_lambda_returns_are_the_mixture_of_n_step_returns(decay: float) -> None:
    rng = np.random.default_rng(0)
    r, q = rng.standard_normal((2, N, STEPS, ROLLOUTS))
    d = 0.9 * (rng.random((N, STEPS, ROLLOUTS)) > 0.2)
    flat = [torch.from_numpy(x.reshape(N, -1)) for x in (r, d, q)]
    found = lambda_returns(*flat, FOLLOWED.tolist(), decay).view(N, STEPS, ROLLOUTS).numpy()
    for i in range(N):
        for k in range(ROLLOUTS):
            expected = n_step_mixture(r[i, :, k], d[i, :, k], q[i, :, k], FOLLOWED.tolist(), decay)
            np.testing.assert_allclose(found[i, :, k], expected, rtol=1e-12, atol=1e-12)


def test_critics_and_policies_take_the_written_steps() -> None:
    learner, batch, choose = make(Coma, ComaConfig, trace_decay=0.6), batch_of(), Fixed(4)
    rows, targets, policies = critic_rows(learner), critic_rows(learner, "targets"), policy_rows(learner)
    learner.update(batch, FOLLOWED, choose)

    asked = policy_logits(learner, policies, batch.next_observations)
    close(choose.probabilities, torch.stack(asked).softmax(dim=-1))
    then = choose.actions.clone()
    for t in np.flatnonzero(FOLLOWED):
        now, later = slice(t * ROLLOUTS, (t + 1) * ROLLOUTS), slice((t + 1) * ROLLOUTS, (t + 2) * ROLLOUTS)
        then[:, now] = batch.actions[:, later]

    def without_own(actions: torch.Tensor, i: int) -> list[torch.Tensor]:
        acts = hot(actions)
        acts[i] = torch.zeros_like(acts[i])
        return acts

    def of(values: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return values[torch.arange(BATCH), actions]

    loss = torch.zeros(())
    for i in range(N):
        later = of(q_of(learner, targets[i], batch.next_observations, without_own(then, i)), then[i])
        y = np.zeros((STEPS, ROLLOUTS))
        r, d, q = (
            x.detach().view(STEPS, ROLLOUTS).numpy()
            for x in (batch.rewards[i], 0.99 * (1 - batch.ended[i]), later)
        )
        for k in range(ROLLOUTS):
            y[:, k] = n_step_mixture(r[:, k], d[:, k], q[:, k], FOLLOWED.tolist(), 0.6)
        values = q_of(learner, rows[i], batch.observations, without_own(batch.actions, i))
        loss = loss + ((of(values, batch.actions[i]) - torch.from_numpy(y.reshape(-1))) ** 2).mean()
    close(learner.critics.gradient, gradients(loss, rows))

    loss = torch.zeros(())
    for i, z in enumerate(policy_logits(learner, policies, batch.observations)):
        row = learner.critics.parameters[i]
        q = q_of(learner, row, batch.observations, without_own(batch.actions, i)).detach()
        pi = z.softmax(dim=1)
        advantage = (of(q, batch.actions[i]) - (pi * q).sum(dim=1)).detach()
        entropy = -(pi * pi.log()).sum(dim=1)
        objective = of(pi.log(), batch.actions[i]) * advantage + 0.01 * entropy
        loss = loss - objective.mean() + 1e-3 * (z**2).mean()
    close(policy_gradients(learner), gradients(loss, policies))


def test_a_critic_does_not_see_its_own_agents_action() -> None:
    learner, batch = make(Coma, ComaConfig), batch_of()
    critics, seen = learner.critics, learner.actors.look(batch.observations)
    other = batch.actions.clone()
    other[1] = (other[1] + 1) % ACTIONS
    before, after = (
        critics.values(critics.parameters, critics.inputs(seen, actions), -critics.one_hot(actions))
        for actions in (batch.actions, other)
    )
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=1e-12)
    assert (before[0] - after[0]).abs().max() > 1e-3
