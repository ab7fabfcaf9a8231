"""The worlds that batches are timed against play by the same rules."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.object_worlds import ObjectRoverTower, ObjectTreasureCollection
from f2a2_sim.worlds.particle import RoverTower, TreasureCollection

TOLERANCE = 1e-9


@pytest.mark.parametrize(
    ("objects", "rules"), [(ObjectTreasureCollection, TreasureCollection), (ObjectRoverTower, RoverTower)]
)
def test_objects_and_batch_see_and_earn_the_same(
    objects: type[ObjectTreasureCollection] | type[ObjectRoverTower],
    rules: type[TreasureCollection] | type[RoverTower],
) -> None:
    """Three episodes that start crowded, so that there are contacts, treasures taken, brought and put out."""
    one, batch = objects(), rules()
    ours = np.random.RandomState(4)
    choose = np.random.default_rng(2)
    earned = []
    for episode in range(3):
        assert_near(one.reset(4 if episode == 0 else None)[0], batch.reset([ours]))
        batch.state.position *= 0.3
        for body, place in zip(one.bodies, batch.state.position[0].copy(), strict=True):
            body.position = place
        if isinstance(one, ObjectTreasureCollection):
            one.world.measure()
        for actions in choose.integers(5, size=(one.episode_steps, 8)):
            seen, rewards, _, cut, _ = one.step(dict(zip(one.agents, actions.tolist(), strict=True)))
            expected_seen, expected = batch.step(actions[None])
            assert_near(seen, expected_seen)
            np.testing.assert_allclose(list(rewards.values()), expected[0], rtol=0.0, atol=TOLERANCE)
            earned.append(list(rewards.values()))
        assert all(cut.values()) and not one.agents
    assert (np.abs(earned) > 3.0).sum() > 10
    assert ours.random_sample() == one.draws.random_sample()


def assert_near(seen: dict[str, np.ndarray], expected: tuple[np.ndarray, ...]) -> None:
    rows = [row for of_role in expected for row in of_role[0]]
    for row, wanted in zip(seen.values(), rows, strict=True):
        np.testing.assert_allclose(row, wanted, rtol=0.0, atol=TOLERANCE)
