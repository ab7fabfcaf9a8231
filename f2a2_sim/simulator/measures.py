"""What a simulation shows of itself: rows of metrics and episodes, and the tables of devices and links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from devices.unit import ACT, LEARN
from f2a2_sim.simulator.computing import Computing
from f2a2_sim.simulator.episodes import Episodes
from f2a2_sim.simulator.exchange import Exchange
from f2a2_sim.simulator.parts import Context, FloatArray
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.training import Training

_SHARED_WITH_EPISODES = (
    "episode",
    "virtual_time_s",
    "env_steps",
    "updates",
    "return_mean_per_agent",
    "hits",
    "kills",
    "deaths",
    "win",
    "disagreement",
)


def episode_row(row: Mapping[str, Any], returns: FloatArray, steps: int) -> dict[str, Any]:
    """The columns of ``tables.EPISODES`` for an episode that ends with this row of metrics."""
    return {
        **{name: row[name] for name in _SHARED_WITH_EPISODES},
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "steps": steps,
    }


class Measures:
    """Reads the other parts of a simulation, and changes none but for consensus steps that were put off."""

    def __init__(
        self,
        context: Context,
        presence: Presence,
        computing: Computing,
        exchange: Exchange,
        training: Training,
        episodes: Episodes,
    ) -> None:
        self._context = context
        self._presence = presence
        self._computing = computing
        self._exchange = exchange
        self._training = training
        self._play = episodes.play

    def record_row(self, episode_end: bool) -> None:
        """Put the present values on record, and begin the next means."""
        self._exchange.drain()
        row = self.metrics(episode_end)
        recorder, returns = self._context.recorder, self._play.returns
        recorder.row(**row)
        self._computing.forget_statistics()
        if episode_end:
            recorder.episode(**episode_row(row, returns, self._play.steps))

    def metrics(self, episode_end: bool = False) -> dict[str, Any]:
        """The present values of the columns of ``metrics.parquet``."""
        parts, play, now_s = self._context.parts, self._play, self._context.agenda.now_s
        with self._context.stopwatch.part("consensus"):
            disagreement = parts.population.disagreement()
            dual_norm, dual_mean_norm = parts.population.dual_norms()
        busy_s = self.busy_s()
        on_s = now_s - self.off_s()
        breakdown = self._context.stopwatch.breakdown_s()
        return {
            "virtual_time_s": now_s,
            **play.metrics(episode_end),
            "updates": int(self._training.updates.sum()),
            "online": int(self._presence.active().sum()),
            **self._computing.mean_statistics(),
            "dual_norm": dual_norm,
            "dual_mean_norm": dual_mean_norm,
            "disagreement": disagreement,
            **parts.carrier.counts.as_dict(),
            "utilisation": float(np.mean(busy_s / np.maximum(on_s, 1e-12))) if now_s > 0 else 0.0,
            "energy_j": float(parts.power.energy_j(on_s, busy_s).sum()),
            "wall_time_s": self._context.stopwatch.total_s(),
            **{f"wall_{part}_s": seconds for part, seconds in breakdown.items()},
        }

    def busy_s(self) -> FloatArray:
        """Seconds that each device has computed, ``[n]``."""
        units, now_s = self._context.parts.units, self._context.agenda.now_s
        return units.busy_s(ACT, now_s) + units.busy_s(LEARN, now_s)

    def off_s(self) -> FloatArray:
        """Seconds that each device has been off, ``[n]``."""
        return self._presence.off_s(self._context.agenda.now_s)

    def devices_table(self) -> dict[str, Any]:
        """Columns of ``tables/devices.parquet``."""
        parts, now_s = self._context.parts, self._context.agenda.now_s
        busy_s, off_s = self.busy_s(), self.off_s()
        on_s = now_s - off_s
        return {
            **self._play.of_devices(),
            "profile": np.array(parts.profile_names),
            "link": np.array(parts.link_names),
            "busy_act_s": parts.units.busy_s(ACT, now_s),
            "busy_learn_s": parts.units.busy_s(LEARN, now_s),
            "off_s": off_s,
            "utilisation": busy_s / np.maximum(on_s, 1e-12),
            "energy_j": parts.power.energy_j(on_s, busy_s),
            "battery_empty": parts.power.remaining_j(on_s, busy_s) <= 1e-9,
            "updates": self._training.updates,
            "consensus_rounds": self._exchange.round,
        }
