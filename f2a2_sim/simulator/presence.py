"""Who takes part now: devices that are on, and agents that have not fallen silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from f2a2_sim.simulator.parts import BoolArray, FloatArray


class Presence:
    """Plain facts, and how long each device has been off; what follows from them is ``switching.py``."""

    def __init__(self, powered: BoolArray) -> None:
        self.powered = powered
        """Whose device is on, bool ``[n]``."""
        self.silent = np.zeros(len(powered), dtype=np.bool_)
        """Whose agent is dead and does nothing until the next episode (``after_death: silent``)."""
        self._off_s = np.zeros(len(powered))
        self._off_since_s = np.where(powered, np.inf, 0.0)

    def active(self) -> BoolArray:
        """Who computes, sends and receives: bool ``[n]``."""
        return self.powered & ~self.silent

    def is_active(self, agent: int) -> bool:
        return bool(self.powered[agent] and not self.silent[agent])

    def switch_on(self, agent: int, now_s: float) -> float:
        """The device is on from now; returns since when it was off."""
        since_s = float(self._off_since_s[agent])
        self.powered[agent] = True
        self._off_s[agent] += now_s - since_s
        self._off_since_s[agent] = np.inf
        return since_s

    def switch_off(self, agent: int, now_s: float) -> None:
        self.powered[agent] = False
        self._off_since_s[agent] = now_s

    def off_s(self, now_s: float) -> FloatArray:
        """Seconds that each device has been off, ``[n]``."""
        return self._off_s + (now_s - np.where(self.powered, now_s, self._off_since_s))

    def on_time_s(self, agent: int, now_s: float) -> float:
        """Seconds that one device, which is on, has been on."""
        return now_s - float(self._off_s[agent])

    def state(self) -> dict[str, Any]:
        return {
            "powered": self.powered,
            "silent": self.silent,
            "off_s": self._off_s,
            "off_since_s": self._off_since_s,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.powered[...] = state["powered"]
        self.silent[...] = state["silent"]
        self._off_s[...] = state["off_s"]
        self._off_since_s[...] = state["off_since_s"]
