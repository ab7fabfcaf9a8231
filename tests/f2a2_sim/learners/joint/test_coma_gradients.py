"""One F2A2-COMA agent at a time, from the formulas as written, and TD(lambda) from its definition."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.joint.coma_objective import td_lambda
from tests.f2a2_sim.learners.joint.conftest import ACTIONS, ROLLOUTS, SIZES, make_joint, random_observations
from tests.f2a2_sim.learners.joint.test_ddpg_gradients import seen_by_critics, with_ages
from tests.f2a2_sim.learners.joint.test_mlp_critic import plain
from tests.f2a2_sim.learners.joint.test_sac_gradients import Reference, standard
from tests.f2a2_sim.learners.test_attention import written_out

N = len(SIZES)
TERMS: dict[str, dict[str, Any]] = {
    "all terms": {},
    "one sampled action": {"exact_expectation": False},
    "alpha1 alone": {"alpha2": 0.0},
    "alpha1 alone, one sampled action": {"alpha2": 0.0, "exact_expectation": False},
    "alpha2 alone": {"alpha1": 0.0},
    "not joint": {"joint": False},
    "not joint, one sampled action": {"joint": False, "exact_expectation": False},
    "one step": {"td_lambda": 0.0},
    "whole returns": {"td_lambda": 1.0},
    "raw rewards": {"normalise_rewards": False},
    "clipped error": {"td_clip": 0.05},
    "entropy bonus": {"entropy_bonus": 0.2},
    "logit decay": {"logit_decay": 0.3},
    "l2": {"l2": 0.05},
    "actor's own rate": {"actor_learning_rate": 3e-4},
    "another l2 for critics": {"l2": 0.05, "critic_l2": 0.4},
    "gradient clip": {"grad_clip": 0.05},
    "one block": {"block_agents": 3},
    "three layers": {"hidden_layers": 3},
    "returns": {"advantage": "return"},
    "returns, truncated weights": {"advantage": "return", "truncation": 0.7, "joint": False},
    "standardised": {"standardise_advantage": True, "alpha2": 0.0},
    "standardised, one sampled action": {"standardise_advantage": True, "exact_expectation": False},
    "returns, standardised": {"advantage": "return", "standardise_advantage": True, "td_clip": 0.5},
    "baseline of the error": {"td_baseline": True, "alpha1": 0.0},
    "baseline of the clipped error": {"td_baseline": True, "td_clip": 0.5},
    "attention": {"critic": "attention"},
    "attention, one block": {"critic": "attention", "block_agents": 3, "attention_decay": 0.05},
    "attention, returns": {"critic": "attention", "advantage": "return", "td_baseline": True},
    "attention by message": {"critic": "attention", "information": "network"},
    "others' steps by message": {"information": "network"},
}


class ComaReference(Reference):
    def values(self, row: Tensor, seen: list[Tensor], actions: Tensor) -> Tensor:  # type: ignore[override]
        """Q^i(o, (., a^-i)) ``[batch, actions]``."""
        if self.config.critic == "attention":
            return self.attention_values(row, seen, actions)[0]
        batch = seen[0].shape[0]
        number = torch.nn.functional.one_hot(torch.tensor(self.agent), N).double().expand(batch, N)
        taken = torch.nn.functional.one_hot(actions, ACTIONS).double()
        taken[self.agent] = 0.0
        x = torch.cat([number, *seen, *taken, torch.ones(batch, 1, dtype=torch.float64)], dim=-1)
        return plain(self.fleet.critic_shape, row[: self.fleet.critic_columns.stop], x)[0]

    def attention_values(self, row: Tensor, seen: list[Tensor], actions: Tensor) -> tuple[Tensor, list]:
        """The same by MAAC's critic, and the attention's logits."""
        groups = []
        one_hot = torch.nn.functional.one_hot(actions, ACTIONS).double()
        for group in self.fleet.critic_shape.groups:
            theirs = torch.stack(seen[group.agents])
            joined = torch.cat([standard(one_hot[group.agents]), theirs], dim=-1)
            groups.append(torch.nn.functional.pad(joined, (0, 1), value=1.0)[None])
        arrays = self.fleet.critic_shape.arrays(row[None, self.fleet.critic_columns])
        return written_out(self.fleet.critic_shape, arrays, groups, 0, self.agent)

    def regulariser(self, row: Tensor, seen: list[Tensor], actions: Tensor) -> Tensor | float:
        """Of the attention's logits."""
        if self.config.critic != "attention":
            return 0.0
        logits = self.attention_values(row, seen, actions)[1]
        squares = sum(x.square().sum() for x in logits)
        return self.config.attention_decay * squares / (actions.shape[1] * (N - 1))

    def update(self, indices: np.ndarray, uniforms: np.ndarray) -> tuple[Tensor, Tensor]:
        c, i, n = self.config, self.agent, len(indices)
        read = self.fleet.replay.gather(slice(i, i + 1), indices[None])
        o, following = read.observations[0].double(), read.next_observations[0].double()
        seen = seen_by_critics(read.observations, read.fresh)
        next_seen = seen_by_critics(read.next_observations, read.next_fresh)
        r, ended, a = self.rewards(read.rewards[0].double()), read.ended[0], read.actions[0]
        others_next = self.sample(following, torch.from_numpy(uniforms).view(2, N, n)[1])
        critic = self.row[i].clone().requires_grad_()
        actor = self.row[i].clone().requires_grad_()
        each = torch.arange(n)
        with torch.no_grad():
            v_next = self.values(self.targets[i], next_seen, others_next)
            v_next = (self.policy(i, following[i]).exp() * v_next).sum(dim=-1)
            y = torch.empty(n, dtype=torch.float64)
            for t in reversed(range(n)):
                after = t + ROLLOUTS
                goes_on = after < n and torch.equal(
                    read.next_observations[0, i, t], read.observations[0, i, after]
                )
                trace = c.td_lambda if goes_on else 0.0
                rest = y[after] if goes_on else 0.0
                y[t] = r[t] + (0.0 if ended[t] else c.discount * ((1 - trace) * v_next[t] + trace * rest))
            log_pi = self.policy(i, o[i])

        taken = torch.nn.functional.one_hot(a[i], ACTIONS).double()
        weight = log_pi.exp() if c.exact_expectation else taken
        q = self.values(critic, seen, a)
        delta = (q[each, a[i]] - y).detach()
        loss = (2 * c.alpha2 * delta * q[each, a[i]]).mean()
        if c.joint:
            loss = loss - c.alpha1 * (weight * q).sum(dim=-1).mean()
        loss = loss + self.regulariser(critic, seen, a)
        new_row = self.stepped(critic, loss, self.fleet.critic_columns)
        new_critic = new_row[self.fleet.critic_columns]
        new_targets = (1 - c.tau) * self.targets[i] + c.tau * new_critic

        with torch.no_grad():
            q = self.values(new_row, seen, a)
            baseline = (log_pi.exp() * q).sum(dim=-1, keepdim=True)
            advantage = q - baseline
            if c.advantage == "return":
                weight = taken
                advantage = (y[:, None] - baseline).expand(n, ACTIONS)
            if c.standardise_advantage:
                mean = (weight * advantage).sum() / n
                variance = (weight * (advantage - mean) ** 2).sum() / n
                advantage = (advantage - mean) / variance.sqrt()
            if c.advantage == "return":
                pi0 = torch.softmax(read.logits[0].double(), dim=-1)
                advantage = advantage * (log_pi.exp() / pi0).clamp_max(c.truncation)
            limit = inf if c.td_clip is None else c.td_clip
            squared = (q[each, a[i]] - y).abs().clamp_max(limit) ** 2 if c.joint else torch.zeros(n)
            if c.td_baseline:
                squared = squared - squared.mean()
        log_new = self.policy(i, o[i], actor)
        ascended = c.alpha1 * (weight * advantage * log_new).sum(dim=-1).mean()
        ascended = ascended - c.alpha2 * (squared * log_new[each, a[i]]).mean()
        ascended = ascended - c.entropy_bonus * (log_new.exp() * log_new).sum(dim=-1).mean()
        ascended = ascended - c.logit_decay * self.logits(i, o[i], actor).square().mean()
        new_actor = self.stepped(actor, -ascended, self.fleet.actor_columns)
        return torch.cat([new_critic, new_actor[self.fleet.actor_columns]]), new_targets


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("name", TERMS)
def test_update_is_the_formula(name: str) -> None:
    fleet = with_ages(make_joint("f2a2_coma", **{"batch_size": 13, **TERMS[name]}))
    rows = np.arange(N)
    uniforms = np.random.default_rng(3).random((N, fleet.draws_per_update))
    batch = fleet.draw_batch(rows, uniforms)
    assert batch.indices.shape == (N, 14), "whole steps of two rollouts"
    references = [ComaReference(fleet, i) for i in range(N)]
    expected = [
        reference.update(indices, drawn)
        for reference, indices, drawn in zip(references, batch.indices, batch.resample, strict=True)
    ]
    fleet.update(rows, batch)
    for i, (parameters, targets) in enumerate(expected):
        torch.testing.assert_close(fleet.gradient[i], torch.cat(references[i].gradients))
        trained = fleet.parameters[i, : fleet.actor_columns.stop]
        torch.testing.assert_close(trained, parameters, rtol=0, atol=1e-7)
        torch.testing.assert_close(fleet.targets[i], targets, rtol=0, atol=1e-7)


def test_learns_from_the_newest_whole_steps_alone() -> None:
    """Whatever lay further back in the replay, the gradients are the same."""
    fleets: list[Any] = [make_joint("f2a2_coma", normalise_rewards=False) for _ in range(2)]
    fleets[1].replay.clear(np.arange(N))
    rng = np.random.default_rng(5)
    for _ in range(3):
        seen, following = random_observations(rng), random_observations(rng)
        step = (
            rng.integers(0, ACTIONS, (N, ROLLOUTS)),
            rng.standard_normal((N, ROLLOUTS, ACTIONS)).astype(np.float32),
            rng.standard_normal((N, ROLLOUTS)).astype(np.float32),
        )
        assert fleets[1].can_update(np.arange(N)).tolist() == [False] * N
        for fleet in fleets:
            fleet.remember(np.arange(N), seen, *step, following, np.zeros(N, dtype=np.bool_))
    assert fleets[0].config.batch_size == 5  # and so three steps of two rollouts
    uniforms = rng.random((N, fleets[0].draws_per_update))
    for fleet in fleets:
        fleet.update(np.arange(N), fleet.draw_batch(np.arange(N), uniforms))
    assert torch.equal(fleets[0].gradient, fleets[1].gradient)


def test_errors_that_are_all_clipped_push_nowhere_with_a_baseline() -> None:
    """Without one they push the policy away from what was done, the same at every transition."""
    norms = []
    for baseline in (False, True):
        fleet = make_joint("f2a2_coma", alpha1=0.0, td_clip=1e-3, td_baseline=baseline)
        rows = np.arange(N)
        fleet.update(rows, fleet.draw_batch(rows, np.zeros((N, fleet.draws_per_update))))
        norms.append(float(fleet.gradient[:, fleet.actor_columns].norm()))
    assert norms[0] > 1e-8
    assert norms[1] < 1e-6 * norms[0]


def test_attention_block_may_be_what_is_shared() -> None:
    fleet = make_joint("f2a2_coma", setup={"shared": "attention"}, critic="attention")
    assert fleet.shared_columns() == fleet.critic_shape.attention_columns
    with pytest.raises(UsageError, match="has no attention"):
        make_joint("f2a2_coma", setup={"shared": "attention"})


@st.composite
def rollouts(draw: st.DrawFn) -> dict[str, Tensor]:
    """Random steps ``[2, time, rollouts]``; the last time is followed by nothing."""
    shape = (2, draw(st.integers(1, 9)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    followed = torch.from_numpy(rng.random(shape) < 0.8)
    followed[:, -1] = False
    return {
        "rewards": torch.from_numpy(rng.standard_normal(shape)),
        "ended": torch.from_numpy(rng.random(shape) < 0.1),
        "next_values": torch.from_numpy(rng.standard_normal(shape)),
        "followed": followed,
    }


def config_with(trace: float) -> LearnerConfig:
    return LearnerConfig(name="f2a2_coma", td_lambda=trace, discount=0.9)


@settings(max_examples=30)
@given(data=rollouts(), trace=st.floats(0, 1))
def test_td_lambda_is_the_mean_of_n_step_returns(data: dict[str, Tensor], trace: float) -> None:
    """(1 - lambda) sum_n lambda^(n-1) G^(n), what is cut off going to the longest return there is."""
    returns = td_lambda(config_with(trace), **data)
    agents, times, parallel = returns.shape
    r, ended, v, followed = (data[k] for k in ("rewards", "ended", "next_values", "followed"))
    for b in range(agents):
        for rollout in range(parallel):
            for t in range(times):
                expected, weight, reward_sum, discount, k = 0.0, 1.0, 0.0, 1.0, t
                while True:
                    at = (b, k, rollout)
                    reward_sum += discount * float(r[at])
                    discount *= 0.9
                    n_step = reward_sum + (0.0 if ended[at] else discount * float(v[at]))
                    if ended[at] or not followed[at]:
                        expected += weight * n_step
                        break
                    expected += weight * (1 - trace) * n_step
                    weight *= trace
                    k += 1
                assert float(returns[b, t, rollout]) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30)
@given(data=rollouts())
def test_td_lambda_at_its_ends(data: dict[str, Tensor]) -> None:
    """lambda = 0: the one-step target; lambda = 1: the sum of rewards, and a bootstrap at the cut."""
    goes_on = (~data["ended"]).double()
    one_step = data["rewards"] + 0.9 * goes_on * data["next_values"]
    torch.testing.assert_close(td_lambda(config_with(0.0), **data), one_step)
    whole = td_lambda(config_with(1.0), **{**data, "ended": torch.zeros_like(data["ended"])})
    last = data["rewards"].shape[1] - 1
    for t in range(last + 1):
        for b, rollout in np.ndindex(2, data["rewards"].shape[2]):
            stop = t
            while data["followed"][b, stop, rollout]:
                stop += 1
            rewards = data["rewards"][b, t : stop + 1, rollout]
            expected = sum(0.9**k * float(reward) for k, reward in enumerate(rewards))
            expected += 0.9 ** (stop - t + 1) * float(data["next_values"][b, stop, rollout])
            assert float(whole[b, t, rollout]) == pytest.approx(expected, abs=1e-9)
