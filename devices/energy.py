"""Energy that devices draw, and when their batteries run out. Closed form: nothing is stepped.

A device that is off draws nothing, one that is on draws its idle power, one that computes draws its
active power instead. So after ``on_time_s`` seconds on, ``busy_time_s`` of them computing,
``energy_j = idle_power_w * on_time_s + (active_power_w - idle_power_w) * busy_time_s``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from devices.spec import DeviceProfile
from devices.streams import BoolArray, FloatArray, IntArray

_ARRAYS = ("on", "busy", "on_since_s", "busy_since_s", "on_time_s", "busy_time_s")


class EnergyMeter:
    """On times, busy times, energy and batteries of ``n`` devices; device i is of ``profiles[i]``.

    The simulator reports every change at the time it happens; times never go back. ``agents`` may be
    one id or an array of distinct ids.
    """

    def __init__(self, profiles: Sequence[DeviceProfile], on: BoolArray) -> None:
        """``on``: bool ``[n]``, which devices are on at time zero."""
        n = len(profiles)
        self._idle_w = np.array([p.idle_power_w for p in profiles], dtype=np.float64)
        self._extra_w = np.array([p.active_power_w - p.idle_power_w for p in profiles], dtype=np.float64)
        self._battery_j = np.array(
            [math.inf if p.battery_j is None else p.battery_j for p in profiles], dtype=np.float64
        )
        self._on = np.asarray(on, dtype=np.bool_).copy()
        self._busy = np.zeros(n, dtype=np.bool_)
        self._on_since_s = np.zeros(n, dtype=np.float64)
        self._busy_since_s = np.zeros(n, dtype=np.float64)
        self._on_time_s = np.zeros(n, dtype=np.float64)
        self._busy_time_s = np.zeros(n, dtype=np.float64)

    @property
    def has_battery(self) -> BoolArray:
        """Which devices run on a battery: bool ``[n]``."""
        return np.isfinite(self._battery_j)

    def switch_on(self, agents: IntArray | int, now_s: float) -> None:
        """These devices, off until now, are on from ``now_s``."""
        self._on_since_s[agents] = now_s
        self._on[agents] = True

    def switch_off(self, agents: IntArray | int, now_s: float) -> None:
        """These devices, on until now, are off from ``now_s``; what they computed stops."""
        self.stop_work(agents, now_s)
        self._on_time_s[agents] += np.where(self._on[agents], now_s - self._on_since_s[agents], 0.0)
        self._on[agents] = False

    def start_work(self, agents: IntArray | int, now_s: float) -> None:
        """These devices, on and idle, compute from ``now_s``."""
        if not np.all(self._on[agents]) or np.any(self._busy[agents]):
            raise ValueError(f"devices {agents}: only a device that is on and idle can start to compute")
        self._busy_since_s[agents] = now_s
        self._busy[agents] = True

    def stop_work(self, agents: IntArray | int, now_s: float) -> None:
        """These devices compute no longer; no effect on those that were idle."""
        self._busy_time_s[agents] += np.where(self._busy[agents], now_s - self._busy_since_s[agents], 0.0)
        self._busy[agents] = False

    def on_time_s(self, now_s: float) -> FloatArray:
        """Seconds that each device has been on: float64 ``[n]``."""
        return self._on_time_s + np.where(self._on, now_s - self._on_since_s, 0.0)

    def busy_time_s(self, now_s: float) -> FloatArray:
        """Seconds that each device has computed, work under way included: float64 ``[n]``."""
        return self._busy_time_s + np.where(self._busy, now_s - self._busy_since_s, 0.0)

    def energy_j(self, now_s: float) -> FloatArray:
        """Energy drawn by each device since time zero: float64 ``[n]``."""
        return np.asarray(self._idle_w * self.on_time_s(now_s) + self._extra_w * self.busy_time_s(now_s))

    def remaining_j(self, now_s: float) -> FloatArray:
        """Energy left in each battery, never below zero; inf on mains power: float64 ``[n]``."""
        return np.maximum(self._battery_j - self.energy_j(now_s), 0.0)

    def empties_at_s(self, agent: int, now_s: float, busy: bool) -> float:
        """When the battery is empty if the device computes (or idles) from ``now_s`` on.

        inf if it is off, draws nothing, or has no battery. Ask again whenever the device starts or
        stops to compute or is switched on; the answer holds until then.
        """
        battery_j = float(self._battery_j[agent])
        watts = float(self._idle_w[agent]) + (float(self._extra_w[agent]) if busy else 0.0)
        if battery_j == math.inf or watts == 0.0 or not self._on[agent]:
            return math.inf
        on_s = float(self._on_time_s[agent]) + now_s - float(self._on_since_s[agent])
        busy_s = float(self._busy_time_s[agent])
        if self._busy[agent]:
            busy_s += now_s - float(self._busy_since_s[agent])
        used_j = float(self._idle_w[agent]) * on_s + float(self._extra_w[agent]) * busy_s
        return now_s + max(battery_j - used_j, 0.0) / watts

    def state(self) -> dict[str, Any]:
        """Arrays ``[n]`` for a checkpoint."""
        return {name: getattr(self, f"_{name}").copy() for name in _ARRAYS}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a ``state()`` of a meter of the same devices."""
        for name in _ARRAYS:
            mine = getattr(self, f"_{name}")
            saved = np.asarray(state[name], dtype=mine.dtype)
            if saved.shape != mine.shape:
                raise ValueError(
                    f"energy state '{name}' is of {saved.size} devices, this meter of {mine.size}; "
                    "load it into a run of the same scenario"
                )
            mine[:] = saved
