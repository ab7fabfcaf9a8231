"""How long something is waited for that may never come."""

from __future__ import annotations


class Patience:
    """At most so long, half as long after each time in vain, and in full again once the wait has paid off."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = self._limit_s = longest_s
        self._since_s: float | None = None

    def holds(self, waits: bool, now_s: float) -> bool:
        """Whether to go on waiting; ``waits``: whether there is anything to wait for."""
        if not waits:
            if self._since_s is not None:
                in_vain = now_s - self._since_s >= self._limit_s
                self._limit_s = self._limit_s / 2 if in_vain else self._longest_s
                self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s < self._limit_s
