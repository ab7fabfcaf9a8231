"""Energy that devices draw, and when their batteries run out. Closed form: nothing is stepped or stored.

A device that is off draws nothing, one that is on draws its idle power, one that computes draws its
active power instead. So after ``on_s`` seconds on, ``busy_s`` of them computing,
``energy_j = idle_power_w * on_s + (active_power_w - idle_power_w) * busy_s``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from devices.spec import DeviceProfile
from devices.streams import BoolArray, FloatArray


class PowerModel:
    """Power and batteries of ``n`` devices; device i is of ``profiles[i]``.

    Whoever runs the devices knows how long each has been on and has computed, and asks with that.
    """

    def __init__(self, profiles: Sequence[DeviceProfile]) -> None:
        self._idle_w = np.array([p.idle_power_w for p in profiles], dtype=np.float64)
        self._extra_w = np.array([p.active_power_w - p.idle_power_w for p in profiles], dtype=np.float64)
        self._battery_j = np.array(
            [math.inf if p.battery_j is None else p.battery_j for p in profiles], dtype=np.float64
        )

    @property
    def has_battery(self) -> BoolArray:
        """Which devices run on a battery: bool ``[n]``."""
        return np.isfinite(self._battery_j)

    def energy_j(self, on_s: FloatArray, busy_s: FloatArray) -> FloatArray:
        """Energy drawn by each device in that time: float64 ``[n]``."""
        return np.asarray(self._idle_w * on_s + self._extra_w * busy_s)

    def remaining_j(self, on_s: FloatArray, busy_s: FloatArray) -> FloatArray:
        """Energy left in each battery, never below zero; inf on mains power: float64 ``[n]``."""
        return np.maximum(self._battery_j - self.energy_j(on_s, busy_s), 0.0)

    def lasts_s(self, device: int, on_s: float, busy_s: float, busy: bool) -> float:
        """How much longer its battery lasts if the device only computes (or only idles) from now on.

        inf if it draws nothing, or has no battery. Ask again whenever the device starts or stops to
        compute, or is switched on; the answer holds until then.
        """
        battery_j, idle_w, extra_w = (
            float(array[device]) for array in (self._battery_j, self._idle_w, self._extra_w)
        )
        watts = idle_w + (extra_w if busy else 0.0)
        if battery_j == math.inf or watts == 0.0:
            return math.inf
        return max(battery_j - idle_w * on_s - extra_w * busy_s, 0.0) / watts
