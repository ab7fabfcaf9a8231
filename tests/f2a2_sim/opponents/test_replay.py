from __future__ import annotations

import numpy as np
import pytest

from f2a2_sim.opponents.replay import LEVELS, StepReplay, quantise

DISCOUNT = 0.5


def filled(slots: int = 50) -> StepReplay:
    """Two rounds of two units: 0 lives, 1 dies at step 2 of each round. They observe the slot's number."""
    replay = StepReplay(slots, units=2, observation_size=1)
    slot = 0
    for _ in range(2):
        for step in range(5):
            acted = np.array([True, step <= 2])
            seen = np.full((2, 1), slot / LEVELS, np.float32)
            rewards = np.array([slot, 10.0 * slot], np.float32) * acted
            replay.add(seen, np.array([step, step + 5]), rewards, acted, np.array([False, step == 2]))
            slot += 1
        replay.close_round(np.full((2, 1), slot / LEVELS, np.float32))
        slot += 1
    return replay


def expected(slot: int, unit: int, steps: int) -> tuple[float, int, float]:
    """Return, last slot and bootstrap of the transition from ``slot`` (6 a round, the last its end)."""
    left = (2 if unit else 4) - slot % 6 + 1  # actions of the unit left in its round, this one included
    made = min(steps, left)
    total = sum(DISCOUNT**k * (slot + k) * (10 if unit else 1) for k in range(made))
    ended = unit == 1 and made == left
    return total, slot + made, 0.0 if ended else DISCOUNT**made


@pytest.mark.parametrize("steps", [1, 3])
def test_n_step_transitions_stop_at_deaths_and_at_ends_of_rounds(steps: int) -> None:
    batch = filled().draw(4000, steps, DISCOUNT, np.random.default_rng(0))
    seen = set()
    for row in range(4000):
        slot, action = int(batch.observations[row, 0]), int(batch.actions[row])
        unit = int(action >= 5)
        seen.add((slot, unit))
        got = (batch.returns[row], batch.later[row, 0], batch.bootstrap[row])
        assert got == expected(slot, unit, steps)
    everything = {(6 * r + s, 0) for r in (0, 1) for s in range(5)}
    everything |= {(6 * r + s, 1) for r in (0, 1) for s in range(3)}
    newest = 12 - steps  # a transition is drawn once all of its slots are written
    assert seen == {(slot, unit) for slot, unit in everything if slot < newest}


def test_old_slots_are_overwritten_and_never_drawn() -> None:
    batch = filled(slots=7).draw(500, 1, DISCOUNT, np.random.default_rng(0))
    assert set(batch.observations[:, 0].tolist()) == {6, 7, 8, 9, 10}


def test_state_restores() -> None:
    replay, other = filled(), StepReplay(50, 2, 1)
    other.load_state({name: value.copy() for name, value in replay.state().items()})
    one, two = (r.draw(64, 3, DISCOUNT, np.random.default_rng(3)) for r in (replay, other))
    np.testing.assert_array_equal(one.returns, two.returns)
    np.testing.assert_array_equal(one.later, two.later)
    assert other.written == replay.written


def test_hundredths_are_exact() -> None:
    tenths_of_a_hit_point = np.arange(101, dtype=np.float32) / np.float32(100)
    assert quantise(tenths_of_a_hit_point).tolist() == list(range(101))
