"""One agent at a time, with torch modules, autograd and torch.optim.Adam, from the formulas as written.

`Reference` is an independent ISAC agent.  Its losses are scalars whose autograd gradient is the written
one: a no-gradient coefficient times Q or log pi.  The fleet must arrive at the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from f2a2_sim.learners.isac import IsacFleet

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
    "one hidden layer": {"hidden_layers": 1},
    "three hidden layers": {"hidden_layers": 3},
    "sampled expectations": {"exact_expectation": False},
    "sampled expectations, not joint": {"exact_expectation": False, "joint": False},
    "normalised squared error": {"normalise_td": True},
    "clipped error": {"td_clip": 0.05},
    "l2": {"l2": 0.05},
    "another l2 for critics": {"l2": 0.05, "critic_l2": 0.4},
    "actor's own rate": {"actor_learning_rate": 3e-4},
    "gradient clip": {"grad_clip": 0.05},
}


class Reference:
    """Row ``row`` of ``fleet`` as three plain modules, two target modules and two optimisers."""

    def __init__(self, fleet: IsacFleet, row: int) -> None:
        self.fleet, self.row, self.config = fleet, row, fleet.config
        critics = fleet.parameters[row : row + 1, fleet.actor.size :]
        self.actor = module(fleet.actor.views(fleet.parameters[row : row + 1, : fleet.actor.size]), 0)
        self.q = [module(fleet.critics.views(critics), j) for j in range(2)]
        self.q_target = [module(fleet.critics.views(fleet.targets[row : row + 1]), j) for j in range(2)]
        both = [*self.q[0].parameters(), *self.q[1].parameters()]
        self.critic_adam = torch.optim.Adam(both, lr=self.config.learning_rate)
        rate = self.config.actor_learning_rate or self.config.learning_rate
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=rate)
        self.squared_mean = 0.0
        self.dual: list[Tensor] | None = None

    def transition(self, frame: int) -> tuple[Tensor, int, Tensor, float, Tensor | None]:
        """o, a, log pi0(.|o), r, o' (None after a terminal step)."""
        replay, row = self.fleet.replay, self.row
        ended = bool(replay.terminal[row, frame])
        following = (
            None if ended else replay.observations[row, (frame + 1) % replay.frames_per_agent].double()
        )
        return (
            replay.observations[row, frame].double(),
            int(replay.actions[row, frame]),
            torch.log_softmax(replay.logits[row, frame].double(), 0),
            float(replay.rewards[row, frame]),
            following,
        )

    def expectation(self, policy: Tensor, uniform: float | None) -> list[tuple[int, float]]:
        """The (action, weight) pairs of E_{a~pi}: all of them, or the one that ``uniform`` samples."""
        if uniform is None:
            return [(a, float(p)) for a, p in enumerate(policy)]
        cumulated, action = 0.0, 0
        for action, p in enumerate(policy.tolist()):  # noqa: B007
            cumulated += p
            if cumulated > uniform:
                break
        return [(action, 1.0)]

    def update(self, frames: np.ndarray, uniforms: np.ndarray | None) -> None:
        c, n = self.config, len(frames)
        transitions = [self.transition(int(frame)) for frame in frames]
        targets, weights = [], []
        with torch.no_grad():
            for i, (o, _, _, r, following) in enumerate(transitions):
                log_pi = torch.log_softmax(self.actor(o), 0)
                weights.append(self.expectation(log_pi.exp(), None if uniforms is None else uniforms[i]))
                value = 0.0
                if following is not None:
                    log_next = torch.log_softmax(self.actor(following), 0)
                    q_next = torch.minimum(self.q_target[0](following), self.q_target[1](following))
                    for a, weight in self.expectation(
                        log_next.exp(), None if uniforms is None else uniforms[n + i]
                    ):
                        value += weight * float(q_next[a] - c.temperature * log_next[a])
                targets.append(r + c.discount * value)

        def ratio(o: Tensor, log_pi0: Tensor, a: int) -> tuple[float, float]:
            with torch.no_grad():
                pi = torch.softmax(self.actor(o), 0)[a]
                pi0 = log_pi0.exp()[a]
                return min(c.truncation, float(pi / pi0)), min(c.truncation, float(pi0 / pi))

        # E_pi0[(-alpha1 rho + 2 alpha2 delta) dQ(o,a)] + E_pi[(-alpha1 + 2 alpha2 delta(o,a~) rho') dQ(o,a~)]
        loss = torch.zeros((), dtype=torch.float64)
        for (o, a, log_pi0, _, _), y, resampled in zip(transitions, targets, weights, strict=True):
            for j in range(2):
                q = self.q[j](o)
                delta = (q - y).detach()
                alpha1 = c.alpha1 if j == 0 and c.joint else 0.0
                rho, _ = ratio(o, log_pi0, a)
                loss = loss + (-alpha1 * rho + 2 * c.alpha2 * delta[a]) * q[a] / n
                if c.joint:
                    for b, weight in resampled:
                        _, rho_b = ratio(o, log_pi0, b)
                        loss = loss + weight * (-alpha1 + 2 * c.alpha2 * delta[b] * rho_b) * q[b] / n
        self.step(
            self.critic_adam, loss, [*self.q[0].parameters(), *self.q[1].parameters()], self.critic_penalty
        )
        with torch.no_grad():
            for q, target in zip(self.q, self.q_target, strict=True):
                for p, t in zip(q.parameters(), target.parameters(), strict=True):
                    t.copy_((1 - c.tau) * t + c.tau * p)

        # The same transitions, with the new critics.
        with torch.no_grad():
            new = [[q(o) for q in self.q] for o, *_ in transitions]
        squared = np.mean(
            [
                sum(float(q[a] - y) ** 2 for q in qs)
                for (_, a, *_), y, qs in zip(transitions, targets, new, strict=True)
            ]
        )
        first = self.squared_mean == 0.0
        self.squared_mean = squared if first else 0.99 * self.squared_mean + 0.01 * squared
        scale = self.squared_mean if c.normalise_td else 1.0

        # alpha1 E_pi0[rho dlogpi(a) A(a)] + alpha1 E_pi[dlogpi(a~) A(a~)] - alpha2 E_pi[rho' dlogpi(a~) d^2]
        ascended = torch.zeros((), dtype=torch.float64)
        for (o, a, log_pi0, _, _), y, resampled, (q1, q2) in zip(
            transitions, targets, weights, new, strict=True
        ):
            log_pi = torch.log_softmax(self.actor(o), 0)
            constant = log_pi.detach()
            baseline = (constant.exp() * q1).sum()
            advantage = q1 - c.temperature * constant - baseline
            rho, _ = ratio(o, log_pi0, a)
            ascended = ascended + c.alpha1 * rho * log_pi[a] * advantage[a] / n
            for b, weight in resampled:
                ascended = ascended + weight * c.alpha1 * log_pi[b] * advantage[b] / n
                if c.joint:
                    _, rho_b = ratio(o, log_pi0, b)
                    limit = np.inf if c.td_clip is None else c.td_clip
                    deltas = min(abs(q1[b] - y), limit) ** 2 + min(abs(q2[b] - y), limit) ** 2
                    ascended = ascended - weight * c.alpha2 * rho_b * log_pi[b] * deltas / scale / n
        self.step(self.actor_adam, -ascended, list(self.actor.parameters()), self.actor_penalty)

    critic_penalty: list[tuple[Tensor, Tensor]] | None = None
    actor_penalty: list[tuple[Tensor, Tensor]] | None = None

    def step(
        self,
        optimiser: torch.optim.Adam,
        loss: Tensor,
        parameters: list[nn.Parameter],
        penalty: list[tuple[Tensor, Tensor]] | None,
    ) -> None:
        optimiser.zero_grad()
        loss.backward()
        if self.config.grad_clip is not None:
            norm = float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm())
            for p in parameters:
                assert p.grad is not None
                p.grad *= min(1.0, self.config.grad_clip / norm)
        of_critics = self.config.critic_l2 if optimiser is self.critic_adam else None
        decay = self.config.l2 if of_critics is None else of_critics
        for i, p in enumerate(parameters):
            assert p.grad is not None
            p.grad += decay * p.detach()
            if penalty is not None:
                dual, view = penalty[i]
                p.grad += dual + self.fleet.setup.beta * (p.detach() - view)
        optimiser.step()


def module(views: list[Tensor], branch: int) -> nn.Sequential:
    """A plain network from stacked parameter arrays ``[1, ...]``."""
    layers: list[nn.Module] = []
    for at, (weight, bias) in enumerate(numbers(views, branch)):
        if at:
            layers.append(nn.LeakyReLU(0.01))
        linear = nn.Linear(*weight.shape, dtype=torch.float64)
        linear.weight.data = weight.T.clone().contiguous()
        linear.bias.data = bias.clone()
        layers.append(linear)
    return nn.Sequential(*layers)


def numbers(views: list[Tensor], branch: int) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of every layer of one branch."""
    hidden = views[1].shape[2]
    first = views[0][0][:, branch * hidden : (branch + 1) * hidden]
    pairs = [(first[:-1], first[-1])]
    return pairs + [(views[i][0][branch], views[i + 1][0][branch]) for i in range(1, len(views), 2)]


def assert_same(network: nn.Sequential, views: list[Tensor], branch: int) -> None:
    linears = [layer for layer in network if isinstance(layer, nn.Linear)]
    for linear, (weight, bias) in zip(linears, numbers(views, branch), strict=True):
        torch.testing.assert_close(weight, linear.weight.data.T, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(bias, linear.bias.data, rtol=1e-8, atol=1e-10)


def moments(network: nn.Sequential, optimiser: torch.optim.Adam) -> nn.Sequential:
    """The optimiser's first moments: running means of the gradient, which (unlike steps) show its scale."""
    copy = deepcopy(network)
    for p, q in zip(copy.parameters(), network.parameters(), strict=True):
        p.data = optimiser.state[q]["exp_avg"]
    return copy


def assert_agrees(fleet: IsacFleet, reference: Reference) -> None:
    row = slice(reference.row, reference.row + 1)
    first = fleet.adam.first_moment[row]
    actor_moments = moments(reference.actor, reference.actor_adam)
    assert_same(actor_moments, fleet.actor.views(first[:, : fleet.actor.size]), 0)
    for j in range(2):
        critic_moments = moments(reference.q[j], reference.critic_adam)
        assert_same(critic_moments, fleet.critics.views(first[:, fleet.actor.size :]), j)
    assert_same(reference.actor, fleet.actor.views(fleet.parameters[row, : fleet.actor.size]), 0)
    for j in range(2):
        assert_same(reference.q[j], fleet.critics.views(fleet.parameters[row, fleet.actor.size :]), j)
        assert_same(reference.q_target[j], fleet.critics.views(fleet.targets[row]), j)


@pytest.mark.parametrize("term", TERMS)
def test_updates_follow_the_written_formulas(make_small: Callable[..., IsacFleet], term: str) -> None:
    fleet = make_small(**TERMS[term])
    before = fleet.parameters.clone()
    references = [Reference(fleet, row) for row in range(fleet.n_agents)]
    rng = np.random.default_rng(1)
    rows = np.arange(fleet.n_agents)
    for _ in range(3):
        batch = fleet.draw_batch(rows, rng.random((fleet.n_agents, fleet.draws_per_update)))
        for reference in references:
            resample = None if batch.resample is None else batch.resample[reference.row]
            reference.update(batch.indices[reference.row], resample)
        fleet.update(rows, batch)
        for reference in references:
            assert_agrees(fleet, reference)
    assert not torch.equal(before, fleet.parameters)


@pytest.mark.parametrize("shared", ["all", "critic", "actor"])
def test_consensus_penalty(make_small: Callable[..., IsacFleet], shared: str) -> None:
    """The gradient of shared parameters, and of no others, gains lambda + beta (w~ - w)."""
    fleet = make_small(beta=0.3, shared=shared)
    references = [Reference(fleet, row) for row in range(fleet.n_agents)]
    rng = np.random.default_rng(2)
    rows = np.arange(fleet.n_agents)
    for _ in range(3):
        view = fleet.shared_parameters() + torch.from_numpy(
            0.1 * rng.standard_normal(fleet.shared_parameters().shape)
        )
        fleet.take_consensus(rows, view)
        for reference in references:
            set_penalty(fleet, reference, view)
        batch = fleet.draw_batch(rows, rng.random((fleet.n_agents, fleet.draws_per_update)))
        for reference in references:
            reference.update(batch.indices[reference.row], None)
        fleet.update(rows, batch)
        for reference in references:
            assert_agrees(fleet, reference)


def set_penalty(fleet: IsacFleet, reference: Reference, view: Tensor) -> None:
    """Lay lambda and w out like the reference's modules: column by column through `module`."""

    def wide(values: Tensor) -> Tensor:
        row = torch.zeros(1, fleet.parameters.shape[1], dtype=torch.float64)
        row[0, fleet.shared_columns()] = values
        return row

    dual, w = wide(fleet.dual[reference.row]), wide(view[reference.row])

    def pairs(branch: int | None) -> list[tuple[Tensor, Tensor]]:
        shape, columns = (
            (fleet.actor, slice(0, fleet.actor.size))
            if branch is None
            else (fleet.critics, slice(fleet.actor.size, None))
        )
        nets = [module(shape.views(values[:, columns]), branch or 0) for values in (dual, w)]
        return [(a.data, b.data) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True)]

    shared = fleet.setup.shared
    reference.actor_penalty = pairs(None) if shared in ("all", "actor") else None
    reference.critic_penalty = [*pairs(0), *pairs(1)] if shared in ("all", "critic") else None


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_dual_follows_the_paper(make_small: Callable[..., IsacFleet], decay: float) -> None:
    """lambda <- decay lambda + beta (w~ - w) at each round; other rows keep theirs."""
    fleet = make_small(beta=0.3, dual_decay=decay)
    rng = np.random.default_rng(3)
    expected = torch.zeros_like(fleet.dual)
    for rows in (np.array([2, 0]), np.array([1]), np.array([0, 1, 2])):
        view = torch.from_numpy(rng.standard_normal((len(rows), fleet.dual.shape[1])))
        expected[rows] = decay * expected[rows] + 0.3 * (fleet.shared_parameters()[rows] - view)
        fleet.take_consensus(rows, view)
        torch.testing.assert_close(fleet.dual, expected)


@pytest.mark.parametrize("shared", ["all", "actor", "critic"])
def test_a_penalty_apart_from_adam_moves_shared_parameters_part_of_the_way(
    make_small: Callable[..., IsacFleet], shared: str
) -> None:
    """w~ <- w~ - kappa (w~ - w + lambda / beta) after the very step that an agent without penalty takes."""
    beta, kappa = 0.2, 0.3
    free = make_small()
    fleet = make_small(beta=beta, penalty_step=kappa, shared=shared)
    rng = np.random.default_rng(4)
    rows = np.arange(fleet.n_agents)
    view = torch.from_numpy(rng.standard_normal(tuple(fleet.dual.shape)))
    fleet.take_consensus(rows, view)
    uniforms = rng.random((fleet.n_agents, fleet.draws_per_update))
    for each in (free, fleet):
        each.update(rows, each.draw_batch(rows, uniforms))
    columns = fleet.shared_columns()
    if shared != "actor":  # the actor's step sees critics that the penalty has moved
        columns = slice(fleet.actor.size, columns.stop)
    stepped = free.parameters[:, columns]
    offset = columns.start - fleet.shared_columns().start
    part = slice(offset, offset + stepped.shape[1])
    expected = stepped - kappa * (stepped - view[:, part] + fleet.dual[:, part] / beta)
    torch.testing.assert_close(fleet.parameters[:, columns], expected)


def test_complete_averages_keep_the_sum_of_duals_zero(make_small: Callable[..., IsacFleet]) -> None:
    fleet = make_small(beta=0.2)
    rng = np.random.default_rng(4)
    rows = np.arange(fleet.n_agents)
    for _ in range(4):
        fleet.update(rows, fleet.draw_batch(rows, rng.random((fleet.n_agents, fleet.draws_per_update))))
        mean = fleet.shared_parameters().mean(dim=0, keepdim=True)
        fleet.take_consensus(rows, mean.expand(fleet.n_agents, -1))
    assert float(fleet.dual.abs().max()) > 1e-3
    assert float(fleet.dual.sum(dim=0).abs().max()) < 1e-12
