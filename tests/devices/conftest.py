"""Fixtures: made-up profiles with round figures, and the real random streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from devices.spec import DeviceProfile
from f2a2_sim.randomness import StreamFamily, Streams


@pytest.fixture
def profile() -> Callable[..., DeviceProfile]:
    """Make a profile; keyword arguments replace single figures."""

    def make(**changes: Any) -> DeviceProfile:
        figures: dict[str, Any] = {
            "name": "board",
            "kind": "cpu_board",
            "peak_flops": 1e9,
            "efficiency": 0.5,
            "memory_bandwidth_bytes_per_s": 1e8,
            "memory_bytes": 1024.0**3,
            "launch_overhead_s": 1e-3,
            "idle_power_w": 2.0,
            "active_power_w": 5.0,
        }
        return DeviceProfile.model_validate({**figures, **changes})

    return make


@pytest.fixture
def streams() -> Callable[..., StreamFamily]:
    """Make a fresh stream family of a fixed seed."""

    def make(seed: int = 1, dense_ids: int = 64) -> StreamFamily:
        return Streams(seed, dense_ids).family("devices-test")

    return make
