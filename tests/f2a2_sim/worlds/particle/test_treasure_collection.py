"""Rewards, taking, bringing and renewing, in scenes set by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from f2a2_sim.worlds.particle import TreasureCollection
from f2a2_sim.worlds.particle.base import NONE
from f2a2_sim.worlds.particle.treasure_collection import _Scene

STAY = np.zeros((1, 8), dtype=np.int64)


def scene(
    agents: dict[int, tuple[float, float]] | None = None,
    treasures: dict[int, tuple[float, float]] | None = None,
    holding: dict[int, int] | None = None,
) -> TreasureCollection:
    """Everybody at rest far from everybody (agent i at (10 i, 0), treasure t at (10 t, 50)), treasures of
    type 0, save what is said."""
    rules = TreasureCollection()
    rules.reset([np.random.RandomState(3)])
    state = rules.state
    state.position[0] = [agents.get(i, (10.0 * i, 0.0)) if agents else (10.0 * i, 0.0) for i in range(8)]
    state.treasure_position[0] = [(treasures or {}).get(t, (10.0 * t, 50.0)) for t in range(6)]
    state.treasure_type[0] = 0
    for collector, kind in (holding or {}).items():
        state.holding[0, collector] = kind
    return rules


def shared(rules: TreasureCollection) -> tuple[float, Any]:
    """The shared part of the next step's rewards, read off deposit 1, to which nobody carries; and all."""
    assert not (rules.state.holding == 1).any()
    _, rewards = rules.step(STAY)
    middle = rules.state.position[0, :6].mean(axis=0)
    way = np.hypot(*(middle - rules.state.position[0, 7]))
    return float(rewards[0, 7] + 0.1 * way), rewards[0]


def test_the_way_to_what_one_wants() -> None:
    """A free collector: to its nearest treasure. One that carries 0: to deposit 0, and that one to it."""
    rules = scene(treasures={0: (13.0, 4.0), 1: (10.0, 6.0)}, holding={3: 0, 4: 1})
    _, rewards = rules.step(STAY)
    assert rewards[0, 1] == pytest.approx(-0.1 * 5.0, abs=1e-12)
    assert rewards[0, 3] == pytest.approx(-0.1 * 30.0, abs=1e-12)
    assert rewards[0, 4] == pytest.approx(-0.1 * 30.0, abs=1e-12)
    assert rewards[0, 6:] == pytest.approx([-3.0, -3.0], abs=1e-12)


def test_a_deposit_without_a_carrier_wants_the_middle_of_the_collectors() -> None:
    _, rewards = scene().step(STAY)
    assert rewards[0, 6:] == pytest.approx([-0.1 * (60 - 25), -0.1 * (70 - 25)], abs=1e-12)


@pytest.mark.parametrize(("apart", "events"), [(0.0749, 1), (0.0751, 0)])
def test_taking(apart: float, events: int) -> None:
    """5 for all at the touch; the treasure is gone one step later, and back, as drawn, two steps later."""
    rules = scene(treasures={2: (10.0, apart)})
    gain, rewards = shared(rules)
    assert gain == pytest.approx(5.0 * events, abs=1e-12)
    assert rewards[1] == pytest.approx(5.0 * events - 0.1 * apart, abs=1e-12)
    assert rules.state.holding[0].tolist() == [NONE, 0 if events else NONE, NONE, NONE, NONE, NONE]
    assert rules.state.treasure_alive[0].tolist() == [True, True, not events, True, True, True]
    if events:
        assert rules.state.treasure_position[0, 2].tolist() == [-999.0, -999.0]
        expected = np.random.RandomState(3)
        expected.set_state(rules.streams[0].get_state())  # type: ignore[attr-defined]
        rules.step(STAY)
        expected.uniform(0.0, 1.0)
        assert rules.state.treasure_position[0, 2].tolist() == expected.uniform(-0.95, 0.95, 2).tolist()
        assert rules.state.treasure_type[0, 2] == expected.choice(2)
        assert rules.state.treasure_alive.all()


def test_what_is_seen_of_it() -> None:
    """The touch shows the treasure in place and empty hands; the next step shows full hands, no treasure."""
    rules = scene(treasures={2: (10.0, 0.05)})
    (collectors, _), _ = rules.step(STAY)
    assert collectors[0, 1, 4:6].tolist() == [0.0, 0.0]
    assert collectors[0, 1, 62:66] == pytest.approx([0.0, 0.05, 1.0, 0.0])
    (collectors, deposits), _ = rules.step(STAY)
    assert collectors[0, 1, 4:6].tolist() == [1.0, 0.0]
    assert collectors[0, 1, -4:] == pytest.approx([-1009.0, -999.0, 1.0, 0.0])
    # Deposit 0, at 60, has agent 5 (ties by index before 7) and deposit 1 next to it; agent 1 is sixth.
    assert deposits[0, 0, 4:20] == pytest.approx([-10.0, 0, 0, 0, 0, 0, 0, 0, 10.0, 0, 0, 0, 0, 1, 0, 0])
    assert deposits[0, 0, 44:52] == pytest.approx([-50.0, 0, 0, 0, 0, 0, 1, 0])


def test_every_touching_pair_pays_but_one_takes() -> None:
    """Two free collectors meet on a treasure: +10, and the lower number has it. They touch: -5 each."""
    rules = scene(agents={2: (0.0, 20.0), 4: (0.2, 20.0)}, treasures={5: (0.1, 20.0)})
    rules.state.velocity[0, [2, 4], 0] = (0.8, -0.8)
    gain, rewards = shared(rules)
    assert gain == pytest.approx(10.0, abs=1e-12)
    assert rules.state.holding[0].tolist() == [NONE, NONE, 0, NONE, NONE, NONE]
    assert rewards[[2, 4]] == pytest.approx([10.0 - 5.0 - 0.1 * 0.04] * 2, abs=1e-12)


def test_one_collector_on_two_treasures_takes_the_first() -> None:
    rules = scene(treasures={1: (30.05, 0.0), 3: (29.95, 0.0)})
    gain, _ = shared(rules)
    assert gain == pytest.approx(10.0, abs=1e-12)
    assert rules.state.treasure_alive[0].tolist() == [True, False, True, True, True, True]


def test_a_full_hand_takes_nothing() -> None:
    rules = scene(treasures={1: (30.05, 0.0)}, holding={3: 0})
    gain, _ = shared(rules)
    assert gain == pytest.approx(0.0, abs=1e-12)
    assert rules.state.treasure_alive.all()


@pytest.mark.parametrize(("kind", "apart", "events"), [(0, 0.1249, 1), (0, 0.1251, 0), (1, 0.11, 0)])
def test_bringing(kind: int, apart: float, events: int) -> None:
    """Only the deposit of the treasure's type counts, nearer than 0.125; a step covers 0.075."""
    rules = scene(agents={0: (60.0, apart + 0.075)}, holding={0: kind})
    rules.state.velocity[0, 0] = (0.0, -1.0)
    _, rewards = rules.step(STAY)
    way = apart if kind == 0 else np.hypot(10.0, apart)
    assert rewards[0, 0] == pytest.approx(5.0 * events - 0.1 * way, abs=1e-12)
    assert rewards[0, 1] == pytest.approx(5.0 * events - 0.1 * 50.0, abs=1e-12)
    assert rules.state.holding[0, 0] == (NONE if events else kind)


def test_taken_and_brought_in_one_step_pays_once() -> None:
    """The delivery of a treasure that was taken in the very same step earns nothing."""
    rules = scene(agents={0: (60.0, 0.19)}, treasures={0: (60.0, 0.13)})
    rules.state.velocity[0, 0] = (0.0, -1.0)
    gain, _ = shared(rules)
    assert gain == pytest.approx(5.0, abs=1e-12)
    assert rules.state.holding[0, 0] == NONE
    assert not rules.state.treasure_alive[0, 0]
    assert shared(rules)[0] == pytest.approx(0.0, abs=1e-12)


def test_collectors_on_each_other_lose_five_for_each() -> None:
    """Two come within 0.085 of a third, which so touches two. To touch a deposit costs nothing."""
    rules = scene(agents={1: (-0.16, 50.0), 2: (0.0, 50.0), 3: (0.16, 50.0), 4: (70.0, 0.19)})
    rules.state.velocity[0, [1, 3, 4]] = [(1.0, 0.0), (-1.0, 0.0), (0.0, -1.0)]
    rules.state.holding[0, 1:4] = 0
    _, rewards = rules.step(STAY)
    ways = [np.hypot(60.0 - x, 50.0) for x in (-0.085, 0.0, 0.085)]
    wanted = [-5.0 * touched - 0.1 * way for touched, way in zip([1, 2, 1], ways, strict=True)]
    assert rewards[0, 1:4] == pytest.approx(wanted, abs=1e-12)
    assert rewards[0, 4] == pytest.approx(-0.1 * np.hypot(20.0, 50.0 - 0.115), abs=1e-12)


def test_the_equally_far_are_seen_in_their_order() -> None:
    """All treasures taken lie in the same place, with the types that they had."""
    rules = scene()
    state = rules.state
    state.treasure_position[0], state.treasure_alive[0] = -999.0, False
    state.treasure_type[0] = [1, 0, 0, 1, 1, 0]
    (collectors, deposits), _ = rules.step(STAY)
    for row in (*collectors[0], *deposits[0]):
        assert row[-24:].reshape(6, 4)[:, 3].tolist() == [1, 0, 0, 1, 1, 0]
    assert state.treasure_alive.all()


def test_order_by_distance_is_that_of_a_stable_argsort() -> None:
    """Zeros, ties, neighbours among floats and distances of all sizes; an agent never sees itself."""
    scene, rng = _Scene(50), np.random.default_rng(1)
    pool = np.array([0.0, 1e-9, 0.5, np.nextafter(0.5, 1.0), 1.0, 2.0, 1412.8, 1e6, 1e15])
    scene.distance[:] = np.where(rng.random(scene.distance.shape) < 0.3, rng.random(), 0.0)
    scene.distance += rng.choice(pool, scene.distance.shape)
    ordered = scene._nearest_first()
    oneself = np.diag(np.full(8, np.inf))
    agents = np.argsort(scene.distance[0] + oneself, axis=2, kind="stable")
    treasures = np.argsort(scene.distance[1, ..., :6], axis=2, kind="stable")
    np.testing.assert_array_equal(ordered[0, ..., :7], agents[..., :7])
    np.testing.assert_array_equal(ordered[1, ..., :6], treasures)


def test_a_copy_goes_on_as_the_original() -> None:
    rules = TreasureCollection()
    rules.reset([np.random.default_rng(seed) for seed in range(3)])
    actions = np.random.default_rng(0).integers(5, size=(60, 3, 8))
    for chosen in actions[:30]:
        rules.step(chosen)
    other = copy.deepcopy(rules)
    for chosen in actions[30:]:
        (ours, paid), (theirs, paid_too) = rules.step(chosen), other.step(chosen)
        np.testing.assert_array_equal(paid, paid_too)
        for seen, seen_too in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(seen, seen_too)
