"""One F2A2-DDPG or F2A2-TD3 agent at a time, from the formulas as written, with autograd and torch's Adam.

The losses are scalars whose autograd gradient is the written one: a no-gradient coefficient times Q; the
actor's goes through Q's own input, and through a straight-through sample. The fleet must find the same
gradients and arrive at the same parameters.
"""

from __future__ import annotations

from math import inf
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac_objective import Policy
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.joint.ddpg_objective import StraightThrough, add_entropy_bonus, smoothed
from tests.f2a2_sim.learners.joint.conftest import ACTIONS, SIZES, make_joint
from tests.f2a2_sim.learners.joint.test_mlp_critic import plain
from tests.f2a2_sim.learners.joint.test_sac_gradients import Reference, standard
from tests.f2a2_sim.learners.test_attention import written_out

N = len(SIZES)
TERMS: dict[str, dict[str, Any]] = {
    "all terms": {},
    "alpha1 alone": {"alpha2": 0.0},
    "alpha2 alone": {"alpha1": 0.0},
    "not joint": {"joint": False},
    "not joint, alpha2 alone": {"joint": False, "alpha1": 0.0},
    "truncation bites": {"truncation": 0.3},
    "truncation never bites": {"truncation": 1e6},
    "raw rewards": {"normalise_rewards": False},
    "clipped error": {"td_clip": 0.05},
    "entropy bonus": {"entropy_bonus": 0.2},
    "logit decay": {"logit_decay": 0.3},
    "cold samples": {"gumbel_temperature": 0.5},
    "l2": {"l2": 0.05},
    "actor's own rate": {"actor_learning_rate": 3e-4},
    "another l2 for critics": {"l2": 0.05, "critic_l2": 0.4},
    "gradient clip": {"grad_clip": 0.05},
    "blocks of two": {"block_agents": 2},
    "one block": {"block_agents": 3},
    "others' steps by message": {"information": "network"},
    "attention": {"critic": "attention"},
    "attention, not joint": {"critic": "attention", "joint": False},
    "attention, one block": {"critic": "attention", "block_agents": 3, "attention_decay": 0.05},
    "attention, clipped error": {"critic": "attention", "td_clip": 0.05, "entropy_bonus": 0.2},
    "attention by message": {"critic": "attention", "information": "network"},
}
ONE_PACE = {"policy_delay": [1], "smoothing_noise": [0.5, 1.0], "smoothing_clip": [0.3, 0.8, 9.0]}
"""TD3 whose actors learn at every update; noise and clip of the three are (.5, .3), (1, .8), (.5, 9)."""


def straight_through(log_pi: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The sample's numbers, and its one-hot vectors with the gradient of the relaxed ones."""
    relaxed = torch.softmax((log_pi - torch.log(-torch.log(uniforms))) / temperature, dim=-1)
    chosen = relaxed.argmax(dim=-1)
    one_hot = torch.nn.functional.one_hot(chosen, ACTIONS).double()
    return chosen, one_hot + relaxed - relaxed.detach()


def seen_by_critics(observations: Tensor, fresh: Tensor | None) -> list[Tensor]:
    """Standardised, ``[batch, size]`` of each agent, and whether it is fresh if it may not be."""
    seen = [observations[0, j, :, :size].double() for j, size in enumerate(SIZES)]
    if fresh is not None:
        seen = [torch.cat([x, is_fresh[:, None]], dim=1) for x, is_fresh in zip(seen, fresh[0], strict=True)]
    return [standard(x) for x in seen]


def with_ages(fleet: Any) -> Any:
    """If others' steps come by message, they are now 0 to 2 steps old, or unknown; the own one is not."""
    if fleet.config.information == "network":
        ages = np.random.default_rng(7).integers(-1, 3, fleet.replay._ages.shape)
        ages[..., np.arange(N), np.arange(N)] = 0
        fleet.replay._ages[...] = ages
    return fleet


class DdpgReference(Reference):
    def values(self, row: Tensor, seen: list[Tensor], actions: Tensor) -> Tensor:  # type: ignore[override]
        """Q_j^i(o, a) ``[twins, batch]`` for actions ``[n, batch, actions]``."""
        if self.config.critic == "attention":
            answers = [self.attention_values(row, j, seen, actions)[0] for j in range(self.fleet.twins)]
            return torch.stack([(q * actions[self.agent]).sum(dim=-1) for q in answers])
        batch = seen[0].shape[0]
        number = torch.nn.functional.one_hot(torch.tensor(self.agent), N).double().expand(batch, N)
        x = torch.cat([number, *seen, *actions, torch.ones(batch, 1, dtype=torch.float64)], dim=-1)
        return plain(self.fleet.critic_shape, row[self.fleet.critic_columns], x)[..., 0]

    def attention_values(self, row: Tensor, twin: int, seen: list[Tensor], actions: Tensor) -> Any:
        """Q_j^i(o, (., a^-i)) ``[batch, actions]`` by MAAC's critic, and the attention's logits."""
        twins = self.fleet.critic_shape
        groups = []
        for group in twins.shape.groups:
            theirs = torch.stack(seen[group.agents])
            joined = torch.cat([standard(actions[group.agents].detach()), theirs], dim=-1)
            groups.append(torch.nn.functional.pad(joined, (0, 1), value=1.0)[None])
        arrays = twins.arrays(row[None, self.fleet.critic_columns], twin)
        return written_out(twins.shape, arrays, groups, 0, self.agent)

    def regulariser(self, row: Tensor, seen: list[Tensor], variants: list[Tensor]) -> Tensor | float:
        """Of the attention's logits in all variants."""
        if self.config.critic != "attention":
            return 0.0
        squares = torch.zeros((), dtype=torch.float64)
        for actions in variants:
            for j in range(self.fleet.twins):
                logits = self.attention_values(row, j, seen, actions)[1]
                squares = squares + sum(x.square().sum() for x in logits)
        rows = len(variants) * len(seen[0])
        return self.config.attention_decay * squares / (rows * (N - 1))

    def with_own(self, actions: Tensor, own: Tensor) -> Tensor:
        """One-hot ``[n, batch, actions]`` with the own agent's replaced."""
        one_hot = torch.nn.functional.one_hot(actions, ACTIONS).double()
        return torch.stack([own if j == self.agent else one_hot[j] for j in range(N)])

    def smoothed_sample(self, observations: Tensor, uniforms: Tensor, gauss: np.ndarray) -> Tensor:
        """Everybody's a~' ``[n, batch]``, logits perturbed as the agent does it."""
        c, i = self.config, self.agent
        sigma = c.smoothing_noise[i % len(c.smoothing_noise)]
        clip = c.smoothing_clip[i % len(c.smoothing_clip)]
        noise = np.vectorize(lambda u: np.clip(sigma * NormalDist().inv_cdf(u), -clip, clip))(gauss)
        chosen = []
        for j in range(N):
            pi = torch.softmax(self.policy(j, observations[j]) + torch.from_numpy(noise[:, j]), dim=-1)
            cumulated = pi.cumsum(dim=-1)
            chosen.append((cumulated <= uniforms[j][:, None]).sum(dim=-1).clamp_max(ACTIONS - 1))
        return torch.stack(chosen)

    def update(self, indices: np.ndarray, uniforms: np.ndarray) -> tuple[Tensor, Tensor]:
        c, i, n = self.config, self.agent, len(indices)
        twins = self.fleet.twins
        read = self.fleet.replay.gather(slice(i, i + 1), indices[None])
        o, following = read.observations[0].double(), read.next_observations[0].double()
        seen = seen_by_critics(read.observations, read.fresh)
        next_seen = seen_by_critics(read.next_observations, read.next_fresh)
        a, pi0 = read.actions[0], torch.softmax(read.logits[0].double(), dim=-1)
        r, ended = self.rewards(read.rewards[0].double()), read.ended[0]
        drawn = torch.from_numpy(uniforms[: 2 * N * n]).view(2, N, n)
        noise = uniforms[2 * N * n :].reshape(n, -1)
        gumbel = torch.from_numpy(noise[:, :ACTIONS])
        others = self.sample(o, drawn[0])
        if twins == 2:
            gauss = noise[:, ACTIONS:].reshape(n, N, ACTIONS)
            others_next = self.smoothed_sample(following, drawn[1], gauss)
        else:
            others_next = self.sample(following, drawn[1])

        critic = self.row[i].clone().requires_grad_()
        actor = self.row[i].clone().requires_grad_()
        one_hot = torch.nn.functional.one_hot(a, ACTIONS).double()
        with torch.no_grad():
            next_one_hot = torch.nn.functional.one_hot(others_next, ACTIONS).double()
            q_next = self.values(self.targets[i], next_seen, next_one_hot)
            y = r + c.discount * torch.where(ended, 0.0, q_next.min(dim=0).values)
            log_pi = self.policy(i, o[i])
            chosen, sampled = straight_through(log_pi, gumbel, c.gumbel_temperature)
            each = torch.arange(n)
            ratio = log_pi.exp() / pi0
            rho = ratio[each, a[i]].clamp_max(c.truncation)
            rho_resampled = (1 / ratio[each, chosen]).clamp_max(c.truncation)

        q, q_resampled = (
            self.values(critic, seen, x) for x in (one_hot, self.with_own(others, sampled.detach()))
        )
        loss = torch.zeros((), dtype=torch.float64)
        for j in range(twins):
            alpha1 = c.alpha1 if c.joint and j == 0 else 0.0
            delta = (q[j] - y).detach()
            loss = loss + ((-alpha1 * rho + 2 * c.alpha2 * delta) * q[j]).mean()
            if c.joint:
                delta = (q_resampled[j] - y).detach()
                coefficient = -alpha1 + 2 * c.alpha2 * delta * rho_resampled
                loss = loss + (coefficient * q_resampled[j]).mean()
        variants = [one_hot, self.with_own(others, sampled.detach())] if c.joint else [one_hot]
        loss = loss + self.regulariser(critic, seen, variants)
        new_row = self.stepped(critic, loss, self.fleet.critic_columns)
        new_critic = new_row[self.fleet.critic_columns]
        new_targets = (1 - c.tau) * self.targets[i] + c.tau * new_critic

        log_new = self.policy(i, o[i], actor)
        _, sampled = straight_through(log_new, gumbel, c.gumbel_temperature)
        q_new = self.values(new_row, seen, self.with_own(others, sampled))
        limit = inf if c.td_clip is None else c.td_clip
        delta = (q_new - y).detach().clamp(-limit, limit)
        pull = 2 * c.alpha2 * delta * rho_resampled if c.joint else torch.zeros_like(delta)
        ascended = ((c.alpha1 - pull[0]) * q_new[0]).mean()
        if twins == 2:
            ascended = ascended - (pull[1] * q_new[1]).mean()
        ascended = ascended - c.entropy_bonus * (log_new.exp() * log_new).sum(dim=-1).mean()
        ascended = ascended - c.logit_decay * self.logits(i, o[i], actor).square().mean()
        new_actor = self.stepped(actor, -ascended, self.fleet.actor_columns)
        return torch.cat([new_critic, new_actor[self.fleet.actor_columns]]), new_targets


def updated(fleet: JointFleet, rows: np.ndarray | None = None, seed: int = 3) -> dict[str, np.ndarray]:
    """One update of ``rows``, with random numbers that are each agent's own."""
    rows = np.arange(N) if rows is None else rows
    uniforms = np.random.default_rng(seed).random((N, fleet.draws_per_update))[rows]
    return fleet.update(rows, fleet.draw_batch(rows, uniforms))


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("name", ["f2a2_ddpg", "f2a2_td3"])
@pytest.mark.parametrize("term", TERMS)
def test_update_is_the_formula(term: str, name: str) -> None:
    fleet = with_ages(make_joint(name, **ONE_PACE, **TERMS[term]))
    assert fleet.twins == (2 if name == "f2a2_td3" else 1)
    rows = np.arange(N)
    uniforms = np.random.default_rng(3).random((N, fleet.draws_per_update))
    batch = fleet.draw_batch(rows, uniforms)
    references = [DdpgReference(fleet, i) for i in range(N)]
    expected = [
        reference.update(indices, drawn)
        for reference, indices, drawn in zip(references, batch.indices, batch.resample, strict=True)
    ]
    before = fleet.parameters.clone()
    fleet.update(rows, batch)
    assert bool((fleet.parameters != before).any())
    for i, (parameters, targets) in enumerate(expected):
        torch.testing.assert_close(fleet.gradient[i], torch.cat(references[i].gradients))
        trained = fleet.parameters[i, : fleet.actor_columns.stop]
        torch.testing.assert_close(trained, parameters, rtol=0, atol=1e-7)
        torch.testing.assert_close(fleet.targets[i], targets, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["f2a2_ddpg", "f2a2_td3", "f2a2_coma"])
def test_an_agent_depends_on_its_own_row_alone(name: str) -> None:
    """Not on whether the others update in the same call, nor on their critics, targets and rewards."""
    together, alone = make_joint(name, block_agents=3), make_joint(name)
    alone.parameters[[0, 2], : alone.critic_columns.stop] += 1.0
    alone.targets[[0, 2]] -= 1.0
    alone.replay._rewards[:, :, [0, 2]] += 1.0
    updated(together)
    updated(alone, np.array([1]))
    torch.testing.assert_close(together.parameters[1], alone.parameters[1], rtol=0, atol=1e-12)
    assert not torch.equal(together.parameters[0], alone.parameters[0])


def test_actors_learn_at_their_own_pace() -> None:
    """Actor i at every (i + 1)th update; each of its steps is Adam's next, whatever lies between."""
    fleet: Any = make_joint("f2a2_td3", policy_delay=[1, 2, 3], block_agents=3)
    single: Any = make_joint("f2a2_td3", policy_delay=[1, 2, 3], block_agents=1)
    columns = fleet.actor_columns
    for update in range(1, 7):
        before = fleet.parameters.clone()
        moments = fleet.actors.moments.mean.clone()
        updated(fleet, seed=update)
        updated(single, seed=update)
        moved = (fleet.parameters != before)[:, columns].any(dim=1)
        assert moved.tolist() == [update % (i + 1) == 0 for i in range(N)]
        assert (fleet.actors.moments.mean != moments).any(dim=1).tolist() == moved.tolist()
        assert bool((fleet.parameters != before)[:, fleet.critic_columns].any(dim=1).all())
        torch.testing.assert_close(fleet.parameters, single.parameters, rtol=0, atol=1e-9)
        if update == 3:  # Adam's first step is as long as its rate in every trained number
            step = (fleet.parameters - before)[2, columns].abs()
            assert float(step.max()) == pytest.approx(fleet.config.learning_rate, rel=1e-3)


@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.1, 5.0))
def test_straight_through_gradient(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (2, 4, ACTIONS))).requires_grad_()
    uniforms, upstream = (torch.from_numpy(rng.random((2, 4, ACTIONS))) for _ in range(2))
    chosen, one_hot = straight_through(logits, uniforms, temperature)
    (one_hot * upstream).sum().backward()
    sample = StraightThrough.of(logits.detach(), uniforms, temperature)
    assert torch.equal(sample.chosen, chosen)
    torch.testing.assert_close(sample.logit_gradient(upstream), logits.grad)


def test_a_sample_is_of_the_policy() -> None:
    """Frequencies within four standard errors; noise at its ends is survived."""
    draws = 40_000
    uniforms = torch.from_numpy(np.random.default_rng(0).random((1, draws, 3)))
    pi = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    sample = StraightThrough.of(pi.log().expand(1, draws, 3), uniforms, 0.7)
    frequencies = torch.bincount(sample.chosen.flatten(), minlength=3) / draws
    assert bool(((frequencies - pi).abs() < 4 * (pi * (1 - pi) / draws).sqrt()).all())
    for end in (0.0, 1.0 - 2**-53):
        uniforms = torch.full((1, 1, 3), end, dtype=torch.float64)
        at_end = StraightThrough.of(torch.zeros(1, 1, 3), uniforms, 0.1)
        assert at_end.relaxed.dtype == torch.float32
        assert bool(at_end.relaxed.isfinite().all())


def test_smoothing_noise_is_each_agents_own_and_clipped() -> None:
    uniforms = torch.from_numpy(np.random.default_rng(0).random((3, 2, 20_000)))
    uniforms[0, 0, 0] = 0.0
    deviation, clip = torch.tensor([0.5, 2.0, 0.0]), torch.tensor([10.0, 1.0, 1.0])
    noise = smoothed(torch.ones(3, 2, 20_000), uniforms, deviation, clip) - 1.0
    assert noise.dtype == torch.float32
    assert float(noise[0, 1].std()) == pytest.approx(0.5, rel=0.02)
    assert float(noise[0].min()) == -10.0
    assert float(noise[1].abs().max()) == 1.0
    outside = 2 * NormalDist().cdf(-0.5)
    assert float((noise[1].abs() == 1.0).float().mean()) == pytest.approx(outside, abs=0.01)
    assert not noise[2].any()


def test_entropy_bonus_is_the_gradient_of_the_entropy() -> None:
    logits = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    log = torch.log_softmax(logits, dim=-1)
    (0.3 * (log.exp() * log).sum(dim=-1).mean(dim=1).sum()).backward()
    gradient = torch.zeros_like(logits.detach())
    config = LearnerConfig(name="f2a2_ddpg", entropy_bonus=0.3)
    add_entropy_bonus(config, Policy.of(logits.detach()), gradient)
    torch.testing.assert_close(gradient, logits.grad)


def test_what_they_cannot_do_is_said() -> None:
    for name in ("f2a2_ddpg", "f2a2_td3", "f2a2_coma"):
        with pytest.raises(UsageError, match=rf"normalise_td = true: {name}.*set it to false"):
            make_joint(name, normalise_td=True)
        with pytest.raises(UsageError, match=rf"{name} has no attention; use critic"):
            make_joint(name, {"shared": "attention"})
        with pytest.raises(UsageError, match=r"replay_transitions: 9 keeps 8, .*waits for 1[01] .*at least"):
            make_joint(name, replay_transitions=9, batch_size=10)
        with pytest.raises(UsageError, match=r"replay_transitions: 60 keeps 60.*waits for 61 "):
            make_joint(name, warmup_transitions=61)
    for name in ("f2a2_ddpg", "f2a2_td3"):
        fleet: Any = make_joint(name, {"shared": "attention"}, critic="attention")
        assert fleet.shared_columns() == fleet.critic_shape.attention_columns
        assert 0 < fleet.shared_columns().stop < fleet.critic_columns.stop
    with pytest.raises(ValueError, match="policy_delay"):
        LearnerConfig(name="f2a2_td3", policy_delay=[])
