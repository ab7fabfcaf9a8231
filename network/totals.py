"""What became of the messages of each link, summed up lazily."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from network.messages import Fate
from network.streams import Floats, Ints, padded

SENT = len(Fate)
DUPLICATED = SENT + 1
_COLUMNS = SENT + 2


class LinkTotals:
    """Counts per link and fate, and the sum of delays of what was delivered.

    Notes are kept as they come and added up when there are many, so that a small event stays cheap.
    """

    def __init__(self) -> None:
        self._counts: Ints = np.zeros((0, _COLUMNS), dtype=np.int64)
        self._delay_s: Floats = np.zeros(0)
        self._notes: list[Ints] = []
        """Places in ``_counts``, row by row."""
        self._delays: list[tuple[Ints, Floats]] = []
        self._noted = 0

    def resize(self, links: int) -> None:
        """Make room for ``links`` links."""
        self._counts = padded(self._counts, links, 0)
        self._delay_s = padded(self._delay_s, links, 0.0)

    def note(self, slots: Ints, column: int) -> None:
        """Count one message per slot under a fate code, SENT or DUPLICATED."""
        self._note(slots, slots * _COLUMNS + column)

    def note_fates(self, slots: Ints, fates: NDArray[Any]) -> None:
        """Count one message per slot under its own fate code."""
        self._note(slots, slots * _COLUMNS + fates)

    def _note(self, slots: Ints, places: Ints) -> None:
        if len(slots):
            self._notes.append(places)
            self._noted += len(slots) + 64
            if self._noted > 2 * self._counts.size + 100_000:
                self._add_up()

    def note_delays(self, slots: Ints, delay_s: Floats) -> None:
        """Add the delays of delivered messages."""
        self._delays.append((slots, delay_s))

    def counts(self) -> Ints:
        """int64 ``[links, fates + 2]``: columns by fate code, then SENT, DUPLICATED."""
        self._add_up()
        return self._counts

    def delay_s(self) -> Floats:
        """Sum of the delays of what was delivered on each link."""
        self._add_up()
        return self._delay_s

    def state(self) -> dict[str, Any]:
        return {"counts": self.counts().copy(), "delay_s": self.delay_s().copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._notes.clear()
        self._delays.clear()
        self._noted = 0
        self._counts = np.asarray(state["counts"], dtype=np.int64).copy()
        self._delay_s = np.asarray(state["delay_s"], dtype=np.float64).copy()

    def _add_up(self) -> None:
        if self._notes:
            added = np.bincount(np.concatenate(self._notes), minlength=self._counts.size)
            self._counts += added.reshape(self._counts.shape)
            self._notes.clear()
        if self._delays:
            # one after another, so that the rounding does not depend on when it is done
            slots = np.concatenate([slots for slots, _ in self._delays])
            np.add.at(self._delay_s, slots, np.concatenate([delay for _, delay in self._delays]))
            self._delays.clear()
        self._noted = 0
