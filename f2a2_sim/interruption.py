"""Being asked to stop: SIGINT and SIGTERM as a flag, so that work under way can be saved first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130


@contextmanager
def interruption(give_up_at_second: bool = False) -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM only set a flag, which what is yielded tells.

    With ``give_up_at_second`` a second SIGINT raises KeyboardInterrupt. Outside the main thread signals are
    the caller's business, and the flag stays unset.
    """
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked and give_up_at_second and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    old: dict[signal.Signals, Any] = {}
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            old[name] = signal.signal(name, ask)
    except ValueError:
        old = {}
    try:
        yield lambda: asked
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)
