"""Energy and batteries against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.energy import EnergyMeter
from devices.spec import DeviceProfile

Profiles = Callable[..., DeviceProfile]

IDLE_W, ACTIVE_W = (2.0, 0.5), (5.0, 3.0)


def pair_of_devices(battery_j: float | None = None) -> list[DeviceProfile]:
    return [
        DeviceProfile(
            name=f"d{i}", kind="phone", peak_flops=1, efficiency=1, memory_bandwidth_bytes_per_s=1,
            memory_bytes=1, launch_overhead_s=0, idle_power_w=IDLE_W[i], active_power_w=ACTIVE_W[i],
            battery_j=battery_j,
        )
        for i in range(2)
    ]  # fmt: skip


def test_idle_busy_and_off_draw_what_they_should() -> None:
    meter = EnergyMeter(pair_of_devices(), np.array([True, False]))
    both = np.array([0, 1])
    assert meter.energy_j(10.0).tolist() == [20.0, 0.0]  # idle at 2 W; off
    meter.switch_on(1, 10.0)
    meter.start_work(both, 12.0)
    assert meter.energy_j(14.0).tolist() == [24.0 + 10.0, 1.0 + 6.0]  # work under way counts
    meter.stop_work(0, 15.0)
    meter.switch_off(1, 15.0)  # stops its work
    assert meter.energy_j(20.0).tolist() == [24.0 + 15.0 + 10.0, 1.0 + 9.0]
    assert meter.on_time_s(20.0).tolist() == [20.0, 5.0]
    assert meter.busy_time_s(20.0).tolist() == [3.0, 3.0]


def test_switching_off_twice_changes_nothing() -> None:
    meter = EnergyMeter(pair_of_devices(), np.array([True, True]))
    meter.switch_off(0, 3.0)
    meter.switch_off(np.array([0, 1]), 4.0)
    assert meter.on_time_s(9.0).tolist() == [3.0, 4.0]


@given(
    st.lists(
        st.tuples(st.floats(0.0, 100.0), st.sampled_from(["on", "off", "start", "stop"]), st.integers(0, 1)),
        max_size=60,
    )
)
def test_energy_is_conserved(events: list[tuple[float, str, int]]) -> None:
    """energy = idle_w * on_time + (active - idle) * busy_time, both times summed piece by piece."""
    meter = EnergyMeter(pair_of_devices(), np.array([True, True]))
    on, busy = [True, True], [False, False]
    on_s, busy_s, energy = np.zeros(2), np.zeros(2), np.zeros(2)
    now_s = 0.0
    for wait_s, action, device in events:
        for i in range(2):
            on_s[i] += wait_s * on[i]
            busy_s[i] += wait_s * busy[i]
            energy[i] += wait_s * (ACTIVE_W[i] if busy[i] else IDLE_W[i] if on[i] else 0.0)
        now_s += wait_s
        if action == "on" and not on[device]:
            meter.switch_on(device, now_s)
            on[device] = True
        elif action == "off" and on[device]:
            meter.switch_off(device, now_s)
            on[device] = busy[device] = False
        elif action == "start" and on[device] and not busy[device]:
            meter.start_work(np.array([device]), now_s)
            busy[device] = True
        elif action == "stop":
            meter.stop_work(device, now_s)
            busy[device] = False
    assert meter.on_time_s(now_s) == pytest.approx(on_s, rel=1e-9, abs=1e-9)
    assert meter.busy_time_s(now_s) == pytest.approx(busy_s, rel=1e-9, abs=1e-9)
    assert meter.energy_j(now_s) == pytest.approx(energy, rel=1e-9, abs=1e-9)
    extra_w = np.array(ACTIVE_W) - np.array(IDLE_W)
    assert meter.energy_j(now_s) == pytest.approx(
        np.array(IDLE_W) * on_s + extra_w * busy_s, rel=1e-9, abs=1e-9
    )


@given(
    battery_j=st.floats(1.0, 1e5),
    idle_s=st.floats(0.0, 100.0),
    busy_s=st.floats(0.0, 100.0),
    busy_next=st.booleans(),
    under_way=st.booleans(),
)
def test_battery_is_empty_when_foretold(
    battery_j: float, idle_s: float, busy_s: float, busy_next: bool, under_way: bool
) -> None:
    meter = EnergyMeter(pair_of_devices(battery_j), np.array([True, True]))
    now_s = idle_s + busy_s
    meter.start_work(0, idle_s)
    if not (under_way and busy_next):
        meter.stop_work(0, now_s)
    used_j = IDLE_W[0] * idle_s + ACTIVE_W[0] * busy_s
    empty_s = meter.empties_at_s(0, now_s, busy=busy_next)
    watts = ACTIVE_W[0] if busy_next else IDLE_W[0]
    assert empty_s == pytest.approx(now_s + max(battery_j - used_j, 0.0) / watts, rel=1e-9)
    if busy_next and not under_way:
        meter.start_work(0, now_s)
    if used_j < battery_j:
        assert meter.remaining_j(empty_s)[0] == pytest.approx(0.0, abs=1e-6 * battery_j)
        earlier_s = now_s + 0.5 * (empty_s - now_s)
        assert meter.remaining_j(earlier_s)[0] == pytest.approx(watts * (empty_s - earlier_s), rel=1e-6)


def test_what_never_empties(profile: Profiles) -> None:
    devices = [
        profile(),
        profile(battery_j=10.0),
        profile(battery_j=10.0, idle_power_w=0.0),
    ]
    meter = EnergyMeter(devices, np.array([True, False, True]))
    assert meter.has_battery.tolist() == [False, True, True]
    assert [meter.empties_at_s(i, 1.0, busy=False) for i in range(3)] == [math.inf] * 3
    assert meter.empties_at_s(2, 1.0, busy=True) == 3.0
    assert meter.remaining_j(1.0).tolist() == [math.inf, 10.0, 10.0]


def test_a_battery_does_not_go_below_empty(profile: Profiles) -> None:
    meter = EnergyMeter([profile(battery_j=10.0)], np.array([True]))
    assert meter.empties_at_s(0, 0.0, busy=False) == 5.0
    assert meter.remaining_j(50.0).tolist() == [0.0]
    assert meter.empties_at_s(0, 50.0, busy=False) == 50.0


@pytest.mark.parametrize("device", [0, 1])
def test_only_an_idle_device_that_is_on_can_start(device: int) -> None:
    meter = EnergyMeter(pair_of_devices(), np.array([True, False]))
    meter.start_work(0, 0.0)
    with pytest.raises(ValueError, match="on and idle"):
        meter.start_work(device, 1.0)


def test_state_round_trip() -> None:
    meter = EnergyMeter(pair_of_devices(100.0), np.array([True, True]))
    meter.start_work(0, 1.0)
    meter.switch_off(1, 2.0)
    saved = meter.state()
    meter.stop_work(0, 3.0)  # must not reach into what was saved
    resumed = EnergyMeter(pair_of_devices(100.0), np.array([False, False]))
    resumed.load_state(saved)
    resumed.stop_work(0, 3.0)
    resumed.switch_on(1, 4.0)
    meter.switch_on(1, 4.0)
    assert resumed.energy_j(7.0).tolist() == meter.energy_j(7.0).tolist()
    assert {key: value.tolist() for key, value in resumed.state().items()} == {
        key: value.tolist() for key, value in meter.state().items()
    }


def test_state_of_other_devices_is_refused(profile: Profiles) -> None:
    state = EnergyMeter(pair_of_devices(), np.array([True, True])).state()
    with pytest.raises(ValueError, match="is of 2 devices, this meter of 1"):
        EnergyMeter([profile()], np.array([True])).load_state(state)
