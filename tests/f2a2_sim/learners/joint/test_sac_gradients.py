"""One F2A2-SAC agent at a time, from the formulas as written, with autograd and torch.optim.Adam.

The losses are scalars whose autograd gradient is the written one: a no-gradient coefficient times Q or
log pi. The fleet must arrive at the same parameters.
"""

from __future__ import annotations

import threading
from collections import Counter
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from f2a2_sim.learners import lone
from f2a2_sim.learners.joint import own_attention
from f2a2_sim.learners.joint.actors import FrozenActors
from f2a2_sim.learners.joint.sac import SacFleet
from tests.f2a2_sim.learners.joint.conftest import ACTIONS, SIZES, make_joint
from tests.f2a2_sim.learners.test_attention import written_out

TERMS: dict[str, dict[str, Any]] = {
    "all terms": {},
    "alpha1 alone": {"alpha2": 0.0},
    "alpha2 alone": {"alpha1": 0.0},
    "not joint": {"joint": False},
    "not joint, alpha1 alone": {"joint": False, "alpha2": 0.0},
    "not joint, alpha2 alone": {"joint": False, "alpha1": 0.0},
    "truncation bites": {"truncation": 0.3},
    "truncation never bites": {"truncation": 1e6},
    "no entropy": {"temperature": 0.0},
    "sampled expectations": {"exact_expectation": False},
    "raw rewards": {"normalise_rewards": False},
    "clipped error": {"td_clip": 0.05},
    "logit decay": {"logit_decay": 0.3},
    "no attention regulariser": {"attention_decay": 0.0},
    "l2": {"l2": 0.05},
    "another l2 for critics": {"l2": 0.05, "critic_l2": 0.4},
    "l2 for critics alone": {"critic_l2": 0.4},
    "actor's own rate": {"actor_learning_rate": 3e-4},
    "gradient clip": {"grad_clip": 0.05},
    "blocks of two": {"block_agents": 2},
    "one block": {"block_agents": 3},
}
TWINS = (0, 1)


class Reference:
    """Agent i of a fleet, computed plainly from what the fleet holds before its update."""

    def __init__(self, fleet: SacFleet, agent: int) -> None:
        self.fleet, self.agent, self.config = fleet, agent, fleet.config
        self.row = fleet.parameters.clone()
        self.targets = fleet.targets.clone()
        self.gradients: list[Tensor] = []  # of critics and actor, clipped
        self.mean, self.variance = fleet.actors.moments.mean.clone(), fleet.actors.moments.variance.clone()

    def policy(self, agent: int, observations: Tensor, row: Tensor | None = None) -> Tensor:
        """log pi^agent ``[batch, actions]`` of raw observations ``[batch, padded size]``."""
        return torch.log_softmax(self.logits(agent, observations, row), dim=-1)

    def logits(self, agent: int, observations: Tensor, row: Tensor | None = None) -> Tensor:
        own = self.row[agent] if row is None else row
        first, *rest = self.fleet.actor_shape.views(own[self.fleet.actor_columns][None])
        x = (observations - self.mean[agent]) / torch.sqrt(self.variance[agent] + 1e-5)
        x = x @ first[0, :-1] + first[0, -1]
        for weight, bias in zip(rest[0::2], rest[1::2], strict=True):
            x = torch.nn.functional.leaky_relu(x, 0.01) @ weight[0, 0] + bias[0, 0]
        return x

    def values(self, row: Tensor, twin: int, observations: Tensor, actions: Tensor) -> tuple[Tensor, list]:
        """Q^i_twin(o, (., a^-i)) ``[batch, actions]`` and the attention's logits."""
        groups = []
        one_hot = torch.nn.functional.one_hot(actions, ACTIONS).double()
        for group in self.fleet.attention_shape.groups:
            seen = observations[group.agents, :, : group.observation_size]
            joined = torch.cat([standard(one_hot[group.agents]), standard(seen)], dim=-1)
            groups.append(torch.nn.functional.pad(joined, (0, 1), value=1.0)[None])
        arrays = self.fleet.critic_shape.arrays(row[None], twin)
        return written_out(self.fleet.attention_shape, arrays, groups, 0, self.agent)

    def sample(self, observations: Tensor, uniforms: Tensor) -> Tensor:
        """Everybody's action ``[n, batch]`` by cumulated probabilities."""
        chosen = []
        for j in range(len(SIZES)):
            cumulated = self.policy(j, observations[j]).exp().cumsum(dim=-1)
            chosen.append((cumulated <= uniforms[j][:, None]).sum(dim=-1).clamp_max(ACTIONS - 1))
        return torch.stack(chosen)

    def update(self, indices: np.ndarray, uniforms: np.ndarray) -> tuple[Tensor, Tensor]:
        """The agent's parameters and target critics after one update with those transitions."""
        c, i, n = self.config, self.agent, len(indices)
        read = self.fleet.replay.gather(slice(i, i + 1), indices[None])
        o, following = read.observations[0].double(), read.next_observations[0].double()
        a, pi0 = read.actions[0], torch.softmax(read.logits[0].double(), dim=-1)
        r, ended = self.rewards(read.rewards[0].double()), read.ended[0]
        drawn = torch.from_numpy(uniforms).view(2, len(SIZES), n)
        others, others_next = self.sample(o, drawn[0]), self.sample(following, drawn[1])

        critic = self.row[i][self.fleet.critic_columns].clone().requires_grad_()
        actor = self.row[i].clone().requires_grad_()
        with torch.no_grad():
            log_next = self.policy(i, following[i])
            weight_next = self.weight(log_next.exp(), others_next[i])
            q_next = torch.minimum(
                *(self.values(self.targets[i], j, following, others_next)[0] for j in TWINS)
            )
            soft = (weight_next * (q_next - c.temperature * log_next)).sum(dim=-1)
            y = (r + c.discount * torch.where(ended, 0.0, soft))[:, None]
            log_pi = self.policy(i, o[i])
            pi = log_pi.exp()
            weight = self.weight(pi, others[i])
            rho, rho_resampled = (pi / pi0).clamp_max(c.truncation), (pi0 / pi).clamp_max(c.truncation)
        taken = torch.nn.functional.one_hot(a[i], ACTIONS).double()

        loss = torch.zeros((), dtype=torch.float64)
        for j in TWINS:
            q, logits = self.values(critic, j, o, a)
            alpha1 = c.alpha1 if c.joint and j == 0 else 0.0
            delta = (q - y).detach()
            loss = loss + ((-alpha1 * rho + 2 * c.alpha2 * delta) * taken * q).sum() / n
            rows = n
            if c.joint:
                q, logits_resampled = self.values(critic, j, o, others)
                delta = (q - y).detach()
                loss = loss + (weight * (-alpha1 + 2 * c.alpha2 * delta * rho_resampled) * q).sum() / n
                logits, rows = logits + logits_resampled, 2 * n
            regulariser = sum(x.square().sum() for x in logits) / (rows * (len(SIZES) - 1))
            loss = loss + c.attention_decay * regulariser
        new_critic = self.stepped(critic, loss)
        new_targets = (1 - c.tau) * self.targets[i] + c.tau * new_critic

        with torch.no_grad():
            replayed, resampled = ([self.values(new_critic, j, o, x)[0] for j in TWINS] for x in (a, others))
        log_new = self.policy(i, o[i], actor)
        ascended = (c.alpha1 * rho * taken * log_new * self.advantage(replayed[0], log_pi)).sum() / n
        ascended = ascended + (weight * c.alpha1 * log_new * self.advantage(resampled[0], log_pi)).sum() / n
        if c.joint:
            limit = inf if c.td_clip is None else c.td_clip
            squared = sum((q - y).abs().clamp_max(limit) ** 2 for q in resampled)
            ascended = ascended - (weight * c.alpha2 * rho_resampled * log_new * squared).sum() / n
        ascended = ascended - c.logit_decay * self.logits(i, o[i], actor).square().mean()
        new_actor = self.stepped(actor, -ascended, self.fleet.actor_columns)
        return torch.cat([new_critic, new_actor[self.fleet.actor_columns]]), new_targets

    def rewards(self, raw: Tensor) -> Tensor:
        """As the learner sees them: standardised by all that the agent's replay holds, or not."""
        if not self.config.normalise_rewards:
            return raw
        mine, i = self.fleet.replay, self.agent
        steps = mine._steps[i][(mine._first[i] + np.arange(mine._held[i])) % mine.steps_kept]
        held = mine._rewards[torch.from_numpy(steps % mine._frames), :, i].double()
        return (raw - held.mean()) / held.std(correction=0)

    def weight(self, pi: Tensor, sampled: Tensor) -> Tensor:
        if self.config.exact_expectation:
            return pi
        return torch.nn.functional.one_hot(sampled, ACTIONS).double()

    def advantage(self, q: Tensor, log_pi: Tensor) -> Tensor:
        return q - self.config.temperature * log_pi - (log_pi.exp() * q).sum(dim=-1, keepdim=True)

    def stepped(self, values: Tensor, loss: Tensor, columns: slice = slice(None)) -> Tensor:
        loss.backward()
        assert values.grad is not None
        gradient = values.grad[columns]
        if self.config.grad_clip is not None:
            gradient *= min(1.0, self.config.grad_clip / float(gradient.norm().clamp_min(1e-30)))
        self.gradients.append(gradient.clone())
        gradient += self.decay(columns) * values.detach()[columns]
        c = self.config
        slower = columns == self.fleet.actor_columns and c.actor_learning_rate is not None
        torch.optim.Adam([values], lr=c.actor_learning_rate if slower else c.learning_rate).step()
        return values.detach()

    def decay(self, columns: slice) -> float:
        c = self.config
        return c.l2 if columns == self.fleet.actor_columns or c.critic_l2 is None else c.critic_l2


def standard(values: Tensor) -> Tensor:
    mean = values.mean(dim=-2, keepdim=True)
    return (values - mean) / torch.sqrt(((values - mean) ** 2).mean(dim=-2, keepdim=True) + 1e-5)


@pytest.mark.parametrize(
    ("name", "part", "alone"),
    [*((name, 2048, True) for name in TERMS), ("all terms", 3, True), ("one block", 2048, False)],
)
def test_update_is_the_formula(name: str, part: int, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_attention, "PART", part)
    monkeypatch.setattr(lone, "computed_alone", lambda like: alone)  # False: as on a GPU
    fleet = make_joint("f2a2_sac", **TERMS[name])
    assert isinstance(fleet, SacFleet)
    rows = np.arange(3)
    uniforms = np.random.default_rng(3).random((3, fleet.draws_per_update))
    batch = fleet.draw_batch(rows, uniforms)
    assert batch.resample is not None
    references = [Reference(fleet, i) for i in range(3)]
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


@pytest.mark.parametrize("name", ["f2a2_sac", "f2a2_ddpg", "f2a2_td3"])
def test_blocks_do_not_wait_for_each_others_samples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads have to be computing what they sample from at the same time, or the barrier breaks."""
    barrier, logits = threading.Barrier(2), FrozenActors.logits
    calls: Counter[int] = Counter()

    def met(self: FrozenActors, observations: Tensor) -> Tensor:
        barrier.wait(timeout=20)
        calls[threading.get_ident()] += 1
        return logits(self, observations)

    monkeypatch.setattr(FrozenActors, "logits", met)
    fleet, rows = make_joint(name, block_agents=1), np.arange(2)
    uniforms = np.random.default_rng(3).random((2, fleet.draws_per_update))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fleet.update(rows, fleet.draw_batch(rows, uniforms))
    finally:
        torch.set_num_threads(before)
    assert sorted(calls.values()) == [2, 2], "at o' and at o"


def test_others_may_update_or_not() -> None:
    """An agent's update does not depend on whether the others' happen in the same call."""
    together, alone = make_joint("f2a2_sac"), make_joint("f2a2_sac")
    uniforms = np.random.default_rng(3).random((3, together.draws_per_update))
    together.update(np.arange(3), together.draw_batch(np.arange(3), uniforms))
    one = np.array([1])
    alone.update(one, alone.draw_batch(one, uniforms[one]))
    assert torch.equal(together.parameters[1], alone.parameters[1])
    assert not torch.equal(together.parameters[0], alone.parameters[0])


@pytest.mark.parametrize("penalty_step", [None, 0.3])
@pytest.mark.parametrize("shared", ["critic", "attention"])
def test_penalty_is_on_what_is_shared(shared: str, penalty_step: float | None) -> None:
    """With w far away the shared columns are pulled there, and no others."""
    keys = {"shared": shared, "beta": 50.0, "penalty_step": penalty_step}
    pulled, free = make_joint("f2a2_sac", keys), make_joint("f2a2_sac", {"shared": shared})
    rows, columns = np.arange(3), pulled.shared_columns()
    assert (columns.stop < pulled.critic_columns.stop) == (shared == "attention")
    pulled.take_consensus(rows, pulled.shared_parameters() + 1.0)
    uniforms = np.random.default_rng(3).random((3, pulled.draws_per_update))
    for fleet in (pulled, free):
        fleet.update(rows, fleet.draw_batch(rows, uniforms))
    drift = pulled.parameters - free.parameters
    trained = free.parameters != 0
    assert bool((drift[:, columns][trained[:, columns]] > 0).all())
    rest = drift[:, columns.stop : pulled.critic_columns.stop]
    assert float(rest.abs().max() if rest.numel() else 0.0) == 0.0


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(Exception, match=r"normalise_td = true.*set it to false"):
        make_joint("f2a2_sac", normalise_td=True)
    with pytest.raises(Exception, match=r"consensus.shared = actor.*use critic"):
        make_joint("f2a2_sac", {"shared": "actor"})
