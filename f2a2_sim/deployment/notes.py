"""What an agent notes down between two of its reports to the world."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment.spans import SPANS_PER_REPORT, as_tensor
from f2a2_sim.results.recorder import Recorder, RowStore
from f2a2_sim.results.tables import TIMELINE

HELD = 1024
"""Numbers of one kind that are kept for a report, the newest."""


class Notes(Recorder):
    """A recorder for one agent: it keeps ages of the copies that were used, and a timeline if it is to, for
    the next report."""

    def __init__(self, timeline_agents: int) -> None:
        super().__init__(timeline_agents, SPANS_PER_REPORT)
        self._kept: list[float] = []

    def ages(self, ages_s: Any) -> None:
        self._kept.extend(ages_s.tolist())
        del self._kept[:-HELD]

    def take_ages(self) -> list[float]:
        """The newest ages since this was last called."""
        taken, self._kept = self._kept, []
        return taken

    def take_timeline(self) -> NDArray[np.float64]:
        """What was done since this was last called; see `spans.as_tensor`."""
        taken, self._timeline = self._timeline, RowStore(TIMELINE, codes=("kind",))
        return as_tensor(taken.columns())
