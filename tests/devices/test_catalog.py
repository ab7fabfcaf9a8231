"""The catalogue: complete, sourced, physically possible; and names that are not in it."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from devices.catalog import (
    CATALOG_FILE,
    CustomProfileError,
    UnknownDeviceError,
    device_profile,
    load_catalog,
)
from devices.spec import CustomProfile, DeviceProfile

PROFILES = list(load_catalog().values())
FIGURES = [
    name for name in DeviceProfile.model_fields if name not in {"name", "description", "kind", "sources"}
]
each_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def test_it_holds_the_promised_devices() -> None:
    promised = {
        "raspberry_pi_4", "raspberry_pi_5", "jetson_nano", "jetson_tx2", "jetson_orin_nano",
        "jetson_agx_orin", "gtx_1080_ti", "rtx_3060", "rtx_4090", "v100", "a100", "h100", "h200",
    }  # fmt: skip
    assert promised <= set(load_catalog())
    assert {"phone", "mini_pc", "microserver"} <= {profile.kind for profile in PROFILES}
    assert len(PROFILES) >= 14


def test_it_is_package_data() -> None:
    assert resources.files("devices").joinpath(CATALOG_FILE).is_file()


@each_profile
def test_every_figure_has_a_source(profile: DeviceProfile) -> None:
    given = {name for name in FIGURES if getattr(profile, name) is not None}
    assert set(profile.sources) == given
    assert all(len(citation) > 15 for citation in profile.sources.values())
    assert len(profile.description) > 15


@each_profile
def test_figures_are_physically_plausible(profile: DeviceProfile) -> None:
    assert 1 < profile.peak_flops / profile.memory_bandwidth_bytes_per_s < 100  # ridge, FLOP per byte
    assert 1e9 < profile.peak_flops / profile.active_power_w < 2e11  # FLOP per joule
    assert 0.01 < profile.memory_bytes / profile.memory_bandwidth_bytes_per_s < 1  # s to read all memory
    assert 0.05 < profile.efficiency <= 0.6
    assert 1e-6 < profile.launch_overhead_s < 1e-4
    assert 0 < profile.idle_power_w < 0.75 * profile.active_power_w
    assert (profile.battery_j is not None) == (profile.kind == "phone")


@each_profile
def test_bandwidth_follows_from_its_citation(profile: DeviceProfile) -> None:
    stated = re.search(r"(?:(\d) x )?(\d+) B x (\d+)e6/s", profile.sources["memory_bandwidth_bytes_per_s"])
    if stated:
        channels, width_bytes, transfers = (int(number or 1) for number in stated.groups())
        expected = channels * width_bytes * transfers * 1e6
    else:
        number, unit = re.findall(r"([\d.]+) ([GT])B/s", profile.sources["memory_bandwidth_bytes_per_s"])[-1]
        expected = float(number) * {"G": 1e9, "T": 1e12}[unit]
    assert profile.memory_bandwidth_bytes_per_s == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "profile", [profile for profile in PROFILES if profile.kind.endswith("gpu")], ids=lambda p: p.name
)
def test_gpu_efficiency_follows_from_its_citation(profile: DeviceProfile) -> None:
    sms = re.search(r"16 / (\d+) SMs", profile.sources["efficiency"])
    assert sms
    assert profile.efficiency == pytest.approx(0.6 * min(1.0, 16 / int(sms[1])), rel=0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raspberry_pi_5", 4 * 2.4e9 * 16),
        ("jetson_nano", 128 * 2 * 921.6e6),
        ("gtx_1080_ti", 3584 * 2 * 1582e6),
        ("rtx_4090", 16384 * 2 * 2520e6),
        ("a100", 6912 * 2 * 1410e6),
        ("h100", 16896 * 2 * 1980e6),
    ],
)
def test_peak_is_units_times_clock(name: str, expected: float) -> None:
    assert device_profile(name).peak_flops == pytest.approx(expected, rel=1e-3)


def test_phone_battery_is_charge_times_voltage() -> None:
    assert device_profile("snapdragon_865_phone").battery_j == pytest.approx(4.0 * 3.86 * 3600, rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("rasberry_pi_5", "raspberry_pi_5"),
        ("Jetson-TX2", "jetson_tx2"),
        ("h20", "h200"),
        ("rasp", "raspberry_pi_3b_plus"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UnknownDeviceError, match=f"unknown device '{wrong}'; did you mean '{nearest}'"):
        device_profile(wrong)


def test_a_name_like_none_is_answered_with_all_names() -> None:
    with pytest.raises(UnknownDeviceError, match=r"Known devices: raspberry_pi_3b_plus, .*h200") as caught:
        device_profile("toaster")
    assert "did you mean" not in str(caught.value)


def test_a_custom_profile_changes_some_figures() -> None:
    custom = CustomProfile(based_on="raspberry_pi_5", memory_bytes=2e9, sources={"memory_bytes": "its label"})
    mine, base = device_profile("my_pi", {"my_pi": custom}), device_profile("raspberry_pi_5")
    assert (mine.name, mine.memory_bytes) == ("my_pi", 2e9)
    assert mine.peak_flops == base.peak_flops
    assert mine.sources == {**base.sources, "memory_bytes": "its label"}


def test_a_custom_profile_shadows_the_catalogue_and_is_suggested() -> None:
    custom = {"h100": CustomProfile(based_on="h200"), "toaster_9000": CustomProfile(based_on="v100")}
    assert device_profile("h100", custom).memory_bytes == device_profile("h200").memory_bytes
    with pytest.raises(UnknownDeviceError, match="did you mean 'toaster_9000'"):
        device_profile("toaster_900", custom)


def test_a_custom_profile_without_base_needs_every_figure() -> None:
    with pytest.raises(CustomProfileError, match=r"'mine' lacks kind, efficiency, .*set based_on"):
        device_profile("mine", {"mine": CustomProfile(peak_flops=1e9)})


def test_a_custom_profile_is_checked_as_a_whole() -> None:
    with pytest.raises(CustomProfileError, match=r"'mine': .*active_power_w .*idle_power_w \(900\)"):
        device_profile("mine", {"mine": CustomProfile(based_on="h100", idle_power_w=900)})


def test_a_custom_profile_names_its_unknown_base() -> None:
    with pytest.raises(
        UnknownDeviceError, match="'mine', based_on: unknown device 'a101'; did you mean 'a100'"
    ):
        device_profile("mine", {"mine": CustomProfile(based_on="a101")})


def test_a_changed_figure_does_not_keep_the_citation_of_the_old() -> None:
    mine = device_profile("mine", {"mine": CustomProfile(based_on="h100", idle_power_w=50)})
    assert set(mine.sources) == set(device_profile("h100").sources) - {"idle_power_w"}
