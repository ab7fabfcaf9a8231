"""Threads for independent blocks of agents.

torch's own threads split every operation and wait for one another at its end, some 150 times per
block: twice as fast on free cores, but many times slower where another process holds one of them,
because every wait lasts until the scheduler comes round.  Here each thread computes whole blocks on
its own, so that a busy core costs its share and no more, and a block's result does not depend on how
many threads there are.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_SWITCH_S = 1e-4


@contextmanager
def _prompt_switches() -> Iterator[None]:
    """A thread that waits for Python's lock gets it when it is next let go.

    Otherwise whoever let it go for a short operation has often taken it again before the one that waits has
    woken up, and that one goes back to sleep: a tenth of an update of many short operations.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on the calling thread alone: for passes over memory too short to be worth a wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class BlockPool:
    """Computes items on ``torch.get_num_threads()`` threads; a lone item gets torch's threads for itself."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0
        self._threads: int | None = None  # within `between`

    @contextmanager
    def between(self) -> Iterator[None]:
        """What is computed between one `map` and the next is the calling thread's alone, see `one_thread`."""
        self._threads = torch.get_num_threads()
        try:
            with one_thread():
                yield
        finally:
            self._threads = None

    def map(self, work: Callable[[int, Item], Result], items: Sequence[Item]) -> list[Result]:
        """``[work(worker, item) for item in items]``; a worker number is in use by one thread at a time.

        All threads work in torch's inference mode if the caller does.
        """
        threads = self._threads or torch.get_num_threads()
        if threads == 1 or len(items) <= 1:
            return [work(0, item) for item in items]
        helpers = min(threads, len(items)) - 1
        executor = self._sized(helpers)
        results: dict[int, Result] = {}
        todo = iter(range(len(items)))
        lock = threading.Lock()
        inference = torch.is_inference_mode_enabled()

        def share(worker: int) -> None:
            with torch.inference_mode(inference):
                while True:
                    with lock:
                        index = next(todo, None)
                    if index is None:
                        return
                    results[index] = work(worker, items[index])

        with one_thread(), _prompt_switches():
            futures: list[Future[None]] = [executor.submit(share, worker + 1) for worker in range(helpers)]
            try:
                share(0)
            finally:
                for future in futures:
                    future.result()
        return [results[index] for index in range(len(items))]

    def _sized(self, helpers: int) -> ThreadPoolExecutor:
        if self._executor is None or self._size < helpers:
            if self._executor is not None:
                self._executor.shutdown()
            self._executor = ThreadPoolExecutor(
                helpers, "fleet", initializer=torch.set_num_threads, initargs=(1,)
            )
            self._size = helpers
        return self._executor
