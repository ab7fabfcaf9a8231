"""What each agent has received from the others: the newest copy per sender, by version number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Copies:
    """The copies that one agent may use now, in the order of their senders."""

    senders: IntArray
    versions: IntArray
    sent_s: FloatArray


class Mailbox:
    """Newest version per (receiver, sender); with ``synchronous`` one slot for odd and one for even rounds.

    Two slots are enough for synchronous rounds: a neighbour can be at most one round ahead of an agent
    that it has to wait for.
    """

    def __init__(self, receivers: int, senders: int, synchronous: bool) -> None:
        slots = 2 if synchronous else 1
        self._synchronous = synchronous
        self._version = np.full((slots, receivers, senders), -1, dtype=np.int64)
        self._sent_s = np.zeros((slots, receivers, senders), dtype=np.float64)
        self._round = np.full((slots, receivers, senders), -1, dtype=np.int32)

    def put(
        self, receivers: IntArray, senders: IntArray, versions: IntArray, sent_s: FloatArray, rounds: IntArray
    ) -> None:
        """Store deliveries ``[m]``; an older copy never replaces a newer one, in whatever order they come."""
        slot = rounds % 2 if self._synchronous else np.zeros_like(rounds)
        if len(versions) == 1:
            self._put_one(int(slot[0]), int(receivers[0]), int(senders[0]), versions, sent_s, rounds)
            return
        order = np.argsort(versions, kind="stable")
        slot, receivers, senders = slot[order], receivers[order], senders[order]
        versions, sent_s, rounds = versions[order], sent_s[order], rounds[order]
        newer = versions > self._version[slot, receivers, senders]
        where = (slot[newer], receivers[newer], senders[newer])
        self._version[where] = versions[newer]
        self._sent_s[where] = sent_s[newer]
        self._round[where] = rounds[newer]

    def _put_one(
        self, slot: int, receiver: int, sender: int, version: IntArray, sent_s: FloatArray, rounds: IntArray
    ) -> None:
        """The same for a lone message, which most are where agents wait for each."""
        if version[0] > self._version[slot, receiver, sender]:
            self._version[slot, receiver, sender] = version[0]
            self._sent_s[slot, receiver, sender] = sent_s[0]
            self._round[slot, receiver, sender] = rounds[0]

    def copies(
        self, receiver: int, round_number: int, oldest_s: float, neighbours: IntArray | None
    ) -> Copies:
        """Copies of ``receiver`` sent at or after ``oldest_s``, from ``neighbours`` only if given.

        In synchronous mode only the slot of ``round_number`` is read, and only copies of that round or
        a later one count.
        """
        slot = round_number % 2 if self._synchronous else 0
        version = self._version[slot, receiver]
        usable = (version >= 0) & (self._sent_s[slot, receiver] >= oldest_s)
        if self._synchronous:
            usable &= self._round[slot, receiver] >= round_number
        if neighbours is not None:
            of_neighbour = np.zeros(usable.size, dtype=bool)
            of_neighbour[neighbours] = True
            usable &= of_neighbour
        senders = np.flatnonzero(usable)
        return Copies(senders, version[senders].copy(), self._sent_s[slot, receiver, senders])

    def has_round(self, receiver: int, senders: IntArray, round_number: int) -> bool:
        """Whether every one of ``senders`` has been heard from for ``round_number`` or later."""
        slot = round_number % 2 if self._synchronous else 0
        return bool((self._round[slot, receiver, senders] >= round_number).all())

    def clear(self, receiver: int) -> None:
        """Forget all that ``receiver`` holds."""
        self._version[:, receiver] = -1
        self._round[:, receiver] = -1

    def used(self, receiver: int, round_number: int) -> None:
        """Forget all that ``receiver`` holds; in synchronous mode not what is for a later round."""
        if not self._synchronous:
            self.clear(receiver)
            return
        past = self._round[:, receiver] <= round_number
        self._version[:, receiver][past] = -1
        self._round[:, receiver][past] = -1

    def referenced_versions(self) -> IntArray:
        return self._version[self._version >= 0]

    def state(self) -> dict[str, Any]:
        return {"version": self._version, "sent_s": self._sent_s, "round": self._round}

    def load_state(self, state: dict[str, Any]) -> None:
        self._version[...] = state["version"]
        self._sent_s[...] = state["sent_s"]
        self._round[...] = state["round"]
