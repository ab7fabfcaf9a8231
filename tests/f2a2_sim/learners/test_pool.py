"""Threads over blocks: every item once, results in order, errors passed on, and the same numbers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from f2a2_sim.learners.isac import IsacFleet
from f2a2_sim.learners.pool import BlockPool


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_item_once_in_order(threads: Callable[[int], None], size: int, count: int) -> None:
    threads(size)
    pool = BlockPool()
    assert pool.map(lambda worker, item: (worker < size, item), range(count)) == [
        (True, i) for i in range(count)
    ]
    assert torch.get_num_threads() == size


def test_a_worker_number_is_used_by_one_thread_at_a_time(threads: Callable[[int], None]) -> None:
    threads(3)
    busy: set[int] = set()
    lock = threading.Lock()

    def work(worker: int, _: int) -> None:
        with lock:
            assert worker not in busy
            busy.add(worker)
        np.random.default_rng(0).random(10_000)
        with lock:
            busy.remove(worker)

    BlockPool().map(work, range(60))


def test_an_error_comes_through_and_threads_are_restored(threads: Callable[[int], None]) -> None:
    threads(2)
    before, during = sys.getswitchinterval(), set()

    def work(_: int, item: int) -> None:
        during.add(sys.getswitchinterval())
        if item == 3:
            raise ValueError("item 3")

    pool = BlockPool()
    with pytest.raises(ValueError, match="item 3"):
        pool.map(work, range(5))
    assert max(during) < before == sys.getswitchinterval()
    assert torch.get_num_threads() == 2
    assert pool.map(lambda _, item: item, range(4)) == [0, 1, 2, 3]


def test_updates_do_not_depend_on_the_number_of_threads(
    make_small: Callable[..., IsacFleet], threads: Callable[[int], None]
) -> None:
    """Bit for bit, as long as there is more than one block."""
    fleets = []
    for size in (1, 2, 3):
        threads(size)
        fleet = make_small(agents=7, dtype=torch.float32, beta=0.1)
        rows = np.arange(7)
        fleet.update(rows, fleet.draw_batch(rows, np.full((7, fleet.draws_per_update), 0.3)))
        fleets.append(fleet)
    for fleet in fleets[1:]:
        assert torch.equal(fleet.parameters, fleets[0].parameters)


def test_between_maps_torch_has_one_thread_and_maps_have_all(threads: Callable[[int], None]) -> None:
    threads(2)
    pool, both = BlockPool(), threading.Barrier(2, timeout=10)
    with pool.between():
        assert torch.get_num_threads() == 1
        pool.map(lambda worker, item: both.wait(), range(2))  # waits for a second thread
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("inference", [False, True])
def test_threads_are_in_the_callers_mode(threads: Callable[[int], None], inference: bool) -> None:
    threads(2)
    both = threading.Barrier(2, timeout=10)

    def work(_: int, __: int) -> bool:
        both.wait()
        return torch.is_inference_mode_enabled()

    with torch.inference_mode(inference):
        assert BlockPool().map(work, range(2)) == [inference, inference]
