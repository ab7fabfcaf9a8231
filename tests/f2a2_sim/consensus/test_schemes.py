"""The schemes against what they promise: the paper's steps, preserved means, conserved mass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.consensus.config import ConsensusConfig
from f2a2_sim.consensus.group import ConsensusGroup
from f2a2_sim.consensus.schemes import PushSum
from f2a2_sim.learners.base import Learner
from tests.f2a2_sim.consensus.conftest import MakeFleet, trained

NOTHING = np.empty(0, dtype=np.int64)
Edges = list[tuple[int, int]]


def complete(n: int) -> Edges:
    return [(i, j) for i in range(n) for j in range(n) if i != j]


def ring(n: int) -> Edges:
    return [(i, (i + d) % n) for i in range(n) for d in (1, n - 1)]


class Driver:
    """Carries out synchronous rounds over given edges; ``lose`` says which messages never arrive."""

    def __init__(self, config: ConsensusConfig, learner: Learner, edges: Edges) -> None:
        self.n = learner.n_agents
        self.edges = edges
        self.degrees = np.array([sum(s == i for s, _ in edges) for i in range(self.n)])
        self.group = ConsensusGroup(config, learner, self.degrees, fixed_graph=True)
        self.number = 0

    def round(self, lost: set[tuple[int, int]] = frozenset()) -> None:  # type: ignore[assignment]
        self.number += 1
        every = np.arange(self.n)
        versions = self.group.publish(every, self.degrees, np.full(self.n, self.number), NOTHING)
        arriving = [(s, r) for s, r in self.edges if (s, r) not in lost]
        senders = np.array([s for s, _ in arriving], dtype=np.int64)
        receivers = np.array([r for _, r in arriving], dtype=np.int64)
        times = np.full(len(arriving), float(self.number))
        self.group.deliver(receivers, senders, versions[senders], times)
        for agent in range(self.n):
            neighbours = np.array([s for s, r in self.edges if r == agent], dtype=np.int64)
            self.group.combine(agent, self.number + 0.5, self.number, neighbours)
        self.group.flush()


def train_a_little(learner: Learner, rng: np.random.Generator) -> None:
    shared = learner.shared_parameters()
    shared += torch.from_numpy(rng.normal(scale=0.1, size=tuple(shared.shape)))


@pytest.mark.parametrize("agents", [3, 12])
def test_on_a_complete_lossless_graph_paper_is_the_papers_algorithm(
    make_learner: MakeFleet, agents: int
) -> None:
    """w is the mean of all w~, lambda follows 5.4d, and the lambdas sum to zero."""
    beta = 0.3
    learner = make_learner(agents, beta=beta)
    driver = Driver(ConsensusConfig(scheme="paper", beta=beta), learner, complete(agents))
    rng = np.random.default_rng(0)
    dual = np.zeros_like(trained(learner))
    for _ in range(5):
        train_a_little(learner, rng)
        copies = trained(learner)
        driver.round()
        np.testing.assert_array_equal(trained(learner), copies)  # w~ itself is not touched
        dual += beta * (copies - copies.mean(0))
        np.testing.assert_allclose(learner.dual.numpy(), dual, atol=1e-12)
    assert np.abs(dual).max() > 0.01
    np.testing.assert_allclose(learner.dual.numpy().sum(0), 0.0, atol=1e-12)


def test_on_a_lossy_graph_the_duals_no_longer_cancel(make_learner: MakeFleet) -> None:
    learner = make_learner(4, beta=0.3)
    driver = Driver(ConsensusConfig(scheme="paper", beta=0.3), learner, complete(4))
    driver.round(lost={(0, 1), (0, 2)})
    assert np.abs(learner.dual.numpy().sum(0)).max() > 1e-3


@pytest.mark.parametrize("agents", [3, 6, 7])
def test_agents_that_agree_have_no_dual_in_single_precision(make_learner: MakeFleet, agents: int) -> None:
    """Weights that add up to 1 + e would let all duals grow along -e w, and nothing would take that back."""
    beta, rounds = 0.1, 100
    learner: Any = make_learner(agents, beta=beta, dtype=torch.float32)
    driver = Driver(ConsensusConfig(scheme="paper", beta=beta), learner, complete(agents))
    rng, along = np.random.default_rng(0), 0.0
    for _ in range(rounds):
        common = torch.from_numpy(rng.normal(size=learner.shared_parameters().shape[1])).float()
        learner.adopt(np.arange(agents), common.expand(agents, -1))
        learner.dual.zero_()
        driver.round()
        share = learner.dual.double() @ common.double() / common.double().square().sum()
        along += float(share.mean()) / beta / rounds
    assert abs(along) < 5e-9, "with weights as they are rounded 9e-9 to 5e-8"


def test_an_agent_that_hears_nobody_keeps_its_dual_and_its_view(make_learner: MakeFleet) -> None:
    """Were w its own w~ alone, it would follow wherever lambda pushes w~."""
    learner: Any = make_learner(3, beta=0.3)
    driver = Driver(ConsensusConfig(scheme="paper", beta=0.3), learner, complete(3))
    driver.round()
    before, view = learner.dual.clone(), (learner.dual - learner._shared.pull).clone()
    train_a_little(learner, np.random.default_rng(0))
    lonely = ConsensusGroup(ConsensusConfig(scheme="paper", beta=0.3), learner, driver.degrees, True)
    for agent in range(3):
        assert lonely.combine(agent, 9.0, 9, NOTHING).size == 0
    lonely.flush()
    np.testing.assert_array_equal(learner.dual, before)
    np.testing.assert_array_equal(learner.dual - learner._shared.pull, view)
    assert float(before.abs().max()) > 1e-3


def test_gossip_keeps_the_mean_and_reaches_it(make_learner: MakeFleet) -> None:
    learner = make_learner(6)
    mean = trained(learner).mean(0)
    driver = Driver(ConsensusConfig(scheme="gossip"), learner, [*ring(6), (0, 3), (3, 0)])
    start = np.abs(trained(learner) - mean).max()
    for _ in range(60):
        driver.round()
        np.testing.assert_allclose(trained(learner).mean(0), mean, atol=1e-12)
    assert np.abs(trained(learner) - mean).max() < 1e-6 * start


def test_gossip_weights_are_metropolis_hastings(make_learner: MakeFleet) -> None:
    """A star of 3: the centre has degree 2, so every edge weighs 1/3."""
    learner = make_learner(3)
    before = trained(learner)
    Driver(ConsensusConfig(scheme="gossip"), learner, [(0, 1), (1, 0), (0, 2), (2, 0)]).round()
    expected = np.stack([before.mean(0), (2 * before[1] + before[0]) / 3, (2 * before[2] + before[0]) / 3])
    np.testing.assert_allclose(trained(learner), expected, atol=1e-12)


def test_gossip_gives_the_weight_of_a_lost_copy_to_the_own(make_learner: MakeFleet) -> None:
    learner = make_learner(3)
    before = trained(learner)
    Driver(ConsensusConfig(scheme="gossip"), learner, complete(3)).round(lost={(1, 0)})
    np.testing.assert_allclose(trained(learner)[0], (2 * before[0] + before[2]) / 3, atol=1e-12)


@given(seed=st.integers(0, 2**31), loss=st.floats(0.0, 0.6))
def test_push_sum_conserves_mass_and_reaches_the_mean_on_a_lossy_directed_graph(
    seed: int, loss: float
) -> None:
    """Directed ring with chords; messages vanish at random; the mean of the start is reached all the same."""
    learner = _make(5)
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2), (3, 1)]
    mean = trained(learner).mean(0)
    driver = Driver(ConsensusConfig(scheme="push_sum"), learner, edges)
    rng = np.random.default_rng(seed)
    for _ in range(150):
        driver.round({edge for edge in edges if rng.random() < loss})
    driver.round()  # nothing is under way any more
    scheme = driver.group.scheme
    assert isinstance(scheme, PushSum)
    assert scheme.weight.sum() == pytest.approx(5.0, abs=1e-9)
    mass = (trained(learner) * scheme.weight[:, None]).sum(0)
    np.testing.assert_allclose(mass, 5 * mean, atol=1e-9)
    np.testing.assert_allclose(trained(learner), np.broadcast_to(mean, (5, len(mean))), atol=1e-6)


def test_push_sum_survives_neighbours_that_are_away(make_learner: MakeFleet) -> None:
    """They give nothing back; what is trained meanwhile stays of its size, and all mass is there later."""
    learner = make_learner(4)
    driver = Driver(ConsensusConfig(scheme="push_sum"), learner, complete(4))
    start, rng = trained(learner), np.random.default_rng(0)
    steps = np.zeros_like(start)
    for _ in range(200):
        step = rng.normal(scale=0.1, size=start.shape)
        steps += step
        learner.shared_parameters().add_(torch.from_numpy(step))
        driver.round(lost=set(complete(4)))
    scheme = driver.group.scheme
    assert isinstance(scheme, PushSum)
    assert np.abs(trained(learner)).max() < 1e3, "with ever smaller weights 1e100"
    for _ in range(80):
        driver.round()
    assert scheme.weight.sum() == pytest.approx(4.0, abs=1e-9)
    mean = start.mean(0) + steps.mean(0)
    np.testing.assert_allclose(trained(learner), np.broadcast_to(mean, start.shape), atol=1e-6)


def test_push_sum_adds_local_training_unscaled(make_learner: MakeFleet) -> None:
    """After local steps the total mass has grown by exactly the sum of the steps."""
    learner = make_learner(4)
    driver = Driver(ConsensusConfig(scheme="push_sum"), learner, [(0, 1), (1, 2), (2, 3), (3, 0), (1, 0)])
    driver.round()
    scheme = driver.group.scheme
    assert isinstance(scheme, PushSum)
    assert np.ptp(scheme.weight) > 0.1
    mass = (trained(learner) * scheme.weight[:, None]).sum(0)
    step = np.random.default_rng(1).normal(size=trained(learner).shape)
    learner.shared_parameters().add_(torch.from_numpy(step))
    driver.round()
    grown = (trained(learner) * scheme.weight[:, None]).sum(0)
    np.testing.assert_allclose(grown, mass + step.sum(0), atol=1e-9)


@pytest.mark.parametrize("scheme", ["paper", "gossip", "push_sum"])
def test_a_saved_group_goes_on_the_same(make_learner: MakeFleet, scheme: str) -> None:
    """Saved with a consensus step decided but not yet computed."""

    def make() -> tuple[Learner, Driver]:
        learner = make_learner(4, beta=0.2 if scheme == "paper" else 0.0)
        config = ConsensusConfig(scheme=scheme, beta=0.2)  # type: ignore[arg-type]
        return learner, Driver(config, learner, complete(4))

    first, driver = make()
    driver.round(lost={(0, 1)})
    driver.group.combine(2, 9.0, 1, np.array([0, 1, 3]))
    in_flight = driver.group.publish(np.array([0]), np.array([3]), np.array([2]), NOTHING)
    learner_state = {k: v for k, v in first.state().items()}
    second, other = make()
    second.load_state(learner_state)
    other.group.load_state(driver.group.state(in_flight))
    other.number = driver.number
    for each in (driver, other):
        each.group.deliver(np.array([1]), np.array([0]), in_flight, np.array([9.5]))
        each.round()
        each.round(lost={(2, 3)})
    np.testing.assert_array_equal(trained(first), trained(second))
    if scheme == "paper":
        np.testing.assert_array_equal(first.dual.numpy(), second.dual.numpy())


def _make(agents: int) -> Learner:
    from f2a2_sim.learners.base import FleetSetup, make_fleet
    from f2a2_sim.learners.config import LearnerConfig

    config = LearnerConfig(hidden_size=4, batch_size=4, replay_transitions=agents * 16)
    return make_fleet(config, FleetSetup(3, 2, list(range(agents)), agents, dtype=torch.float64))
