"""What a role writes into the log of its folder, also before it has one."""

from __future__ import annotations

from collections.abc import Callable

from f2a2_sim.results.folder import RunFolder


class Logbook:
    """Lines with the time of the run; those from before `move_in` are written then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._folder: RunFolder | None = None
        self._waiting: list[str] = []

    def move_in(self, folder: RunFolder) -> None:
        """Write into that folder's log from now on."""
        self._folder = folder

    def write(self, text: str) -> None:
        self._waiting.append(f"{self._clock():.3f} s  {text}\n")
        if self._folder is not None:
            with open(self._folder.log_file, "a", encoding="utf-8") as log:
                log.writelines(self._waiting)
            self._waiting = []
