"""When batteries will be empty: a forecast on the agenda, made anew whenever a device's draw changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from f2a2_sim.simulator.parts import Context
from f2a2_sim.simulator.presence import Presence


class Batteries:
    """Puts ``battery`` events (device, forecast) on the agenda; only a device's newest forecast holds."""

    def __init__(self, context: Context, presence: Presence) -> None:
        self._agenda = context.agenda
        self._parts = context.parts
        self._presence = presence
        self._has_battery: list[bool] = context.parts.power.has_battery.tolist()
        self._forecast = np.zeros(context.n_agents, dtype=np.int64)

    def draw_changed(self, agent: int, busy: bool) -> None:
        """From now on the device computes (``busy``), or idles."""
        if not self._has_battery[agent]:
            return
        self.forget(agent)
        now_s = self._agenda.now_s
        on_s, busy_s = self._presence.on_time_s(agent, now_s), self._parts.units.busy_time_s(agent, now_s)
        lasts_s = self._parts.power.lasts_s(agent, on_s, busy_s, busy)
        if math.isfinite(lasts_s):
            self._agenda.at(now_s + lasts_s, "battery", agent, int(self._forecast[agent]))

    def forget(self, agent: int) -> None:
        """Forecasts made so far hold no more."""
        self._forecast[agent] += 1

    def holds(self, agent: int, forecast: int) -> bool:
        """Whether that is the newest forecast of the device."""
        return int(self._forecast[agent]) == forecast

    def state(self) -> dict[str, Any]:
        return {"forecast": self._forecast}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._forecast[...] = state["forecast"]
