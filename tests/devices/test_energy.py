"""Energy and batteries against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.energy import PowerModel
from devices.spec import DeviceProfile

IDLE_W, ACTIVE_W = (2.0, 0.5), (5.0, 3.0)
Seconds = st.floats(0.0, 1e6)


def pair_of_devices(battery_j: float | None = None) -> list[DeviceProfile]:
    return [
        DeviceProfile(
            name=f"d{i}", kind="phone", peak_flops=1, efficiency=1, memory_bandwidth_bytes_per_s=1,
            memory_bytes=1, launch_overhead_s=0, idle_power_w=IDLE_W[i], active_power_w=ACTIVE_W[i],
            battery_j=battery_j,
        )
        for i in range(2)
    ]  # fmt: skip


def test_idle_and_busy_draw_what_they_should() -> None:
    power = PowerModel(pair_of_devices())
    assert power.energy_j(np.array([10.0, 0.0]), np.zeros(2)).tolist() == [20.0, 0.0]
    assert power.energy_j(np.array([10.0, 5.0]), np.array([4.0, 5.0])).tolist() == [32.0, 15.0]


@given(st.lists(st.tuples(Seconds, st.floats(0.0, 1.0)), min_size=1, max_size=30))
def test_energy_of_the_pieces_is_energy_of_the_whole(pieces: list[tuple[float, float]]) -> None:
    power = PowerModel(pair_of_devices())
    on = np.array([[on_s, on_s] for on_s, _ in pieces])
    busy = np.array([[on_s * share, on_s * share] for on_s, share in pieces])
    summed = sum(power.energy_j(o, b) for o, b in zip(on, busy, strict=True))
    np.testing.assert_allclose(summed, power.energy_j(on.sum(0), busy.sum(0)), rtol=1e-9, atol=1e-300)


def test_mains_power_never_runs_out() -> None:
    power = PowerModel(pair_of_devices())
    assert not power.has_battery.any()
    assert power.remaining_j(np.full(2, 1e9), np.zeros(2)).tolist() == [math.inf, math.inf]
    assert power.lasts_s(0, 1e9, 0.0, busy=True) == math.inf


@pytest.mark.parametrize("busy", [False, True])
@given(on_s=st.floats(0.0, 10.0), share=st.floats(0.0, 1.0))
def test_a_battery_is_empty_when_it_is_said_to_be(busy: bool, on_s: float, share: float) -> None:
    power = PowerModel(pair_of_devices(battery_j=100.0))
    lasts_s = power.lasts_s(0, on_s, share * on_s, busy)
    then_on = np.array([on_s + lasts_s, 0.0])
    then_busy = np.array([share * on_s + (lasts_s if busy else 0.0), 0.0])
    assert power.remaining_j(then_on, then_busy)[0] == pytest.approx(0.0, abs=1e-9)
    assert power.remaining_j(then_on, then_busy)[1] == 100.0


def test_an_empty_battery_stays_empty() -> None:
    power = PowerModel(pair_of_devices(battery_j=10.0))
    assert power.lasts_s(0, 6.0, 0.0, busy=False) == 0.0
    assert power.remaining_j(np.array([6.0, 0.0]), np.zeros(2))[0] == 0.0


def test_a_device_that_draws_nothing_never_empties_its_battery() -> None:
    idle_for_free = pair_of_devices(battery_j=10.0)[0].model_copy(update={"idle_power_w": 0.0})
    power = PowerModel([idle_for_free])
    assert power.lasts_s(0, 1.0, 0.0, busy=False) == math.inf
    assert power.lasts_s(0, 1.0, 0.0, busy=True) == 2.0
