"""Snapshots live as long as somebody refers to them, and sums of them are the same by either way."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.consensus import mixing
from f2a2_sim.consensus.snapshots import SnapshotPool

CPU = torch.device("cpu")


def pool_of(values: list[float], capacity: int = 2) -> tuple[SnapshotPool, np.ndarray]:
    pool = SnapshotPool(3, capacity, torch.float64, CPU)
    rows = torch.tensor(values, dtype=torch.float64).unsqueeze(1).expand(-1, 3)
    count = len(values)
    return pool, pool.add(list(rows), np.array(values), np.arange(count))


@given(keep=st.sets(st.integers(0, 9)), more=st.integers(1, 12))
def test_what_is_referred_to_survives_reuse(keep: set[int], more: int) -> None:
    pool, versions = pool_of([float(v) for v in range(10)])
    pool.retain(np.array([*keep, *keep, -1, 10_000], dtype=np.int64))
    assert pool.live_rows == len(keep)
    pool.add(
        [torch.full((3,), -1.0, dtype=torch.float64)] * more, np.zeros(more), np.zeros(more, dtype=np.int64)
    )
    for kept in keep:
        row = int(pool.row_of(versions[[kept]])[0])
        assert pool.rows[row].tolist() == [float(kept)] * 3
        assert pool.number_of(versions[kept]) == kept


def test_a_saved_pool_holds_the_same() -> None:
    pool, versions = pool_of([1.0, 2.0, 3.0])
    pool.retain(versions[1:])
    other = SnapshotPool(3, 1, torch.float64, CPU)
    other.load_state(pool.state(versions[1:]))
    assert other.free_rows == pool.free_rows
    for copy in (pool, other):
        added = copy.add([torch.zeros(3, dtype=torch.float64)], np.zeros(1), np.zeros(1, dtype=np.int64))
        assert added.tolist() == [3]
        assert copy.rows[int(copy.row_of(versions[2:])[0])].tolist() == [3.0] * 3
        assert copy.round_of(versions[2:]).tolist() == [2]


@given(alive=st.integers(1, 6), rounds=st.integers(2, 12))
def test_rows_never_used_are_left_alone_while_others_are_free(alive: int, rounds: int) -> None:
    pool = SnapshotPool(3, 1000, torch.float64, CPU)
    only, versions = np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64)
    for _ in range(rounds * 100):
        if pool.free_rows == 0:
            pool.retain(versions[-alive:])
        added = pool.add([torch.ones(3, dtype=torch.float64)], np.zeros(1), only)
        versions = np.append(versions, added)
    assert int((pool.rows[:, 0] != 0).sum()) == min(rounds * 100, 333)


@given(count=st.integers(1, 40))
def test_storage_grows_while_most_of_it_is_alive(count: int) -> None:
    pool, versions = pool_of([float(v) for v in range(count)], capacity=4)
    pool.retain(versions)
    assert pool.live_rows == count
    assert pool.free_rows >= 0.2 * count or pool.rows.shape[0] == count
    assert pool.rows[pool.row_of(versions), 0].tolist() == [float(v) for v in range(count)]


@given(needed=st.sets(st.integers(0, 7)), order=st.permutations(range(8)))
def test_only_what_is_needed_is_saved_and_all_keeps_its_place(needed: set[int], order: list[int]) -> None:
    """Rows are reused in any order, so that versions and rows do not ascend together."""
    pool, _ = pool_of([-1.0] * 8, capacity=10)
    pool.retain(np.empty(0, dtype=np.int64))
    pool._free = [8, *order]
    zeros = np.zeros(8, dtype=np.int64)
    versions = pool.add([torch.full((3,), float(v), dtype=torch.float64) for v in range(8)], zeros, zeros)
    state = pool.state(np.array([*versions[list(needed)], -1, 99], dtype=np.int64))
    assert sum(len(values) for values in state["values"]) == len(needed)
    other = SnapshotPool(3, 10, torch.float64, CPU)
    other.load_state(state)
    for v in needed:
        assert other.rows[int(other.row_of(versions[[v]])[0])].tolist() == [float(v)] * 3
    assert other._free == pool._free  # the next reclaiming comes neither earlier nor later
    for each in (pool, other):
        each.retain(versions[list(needed)])
    assert other._free == pool._free


@given(seed=st.integers(0, 1000), agents=st.integers(1, 20), share=st.floats(0.0, 1.0))
def test_dense_and_sparse_sums_agree(seed: int, agents: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    pool = torch.from_numpy(rng.normal(size=(12, mixing._COLUMNS_PER_BLOCK + 5)))
    rows = [np.flatnonzero(rng.random(12) < share) for _ in range(agents)]
    weights = [rng.random(len(r)) for r in rows]
    expected = np.array([(w[:, None] * pool.numpy()[r]).sum(0) for r, w in zip(rows, weights, strict=True)])
    def sparse(out: torch.Tensor) -> None:
        for own_rows, own_weights, total in zip(rows, weights, out, strict=True):
            mixing._sparse(pool, own_rows, own_weights, total)

    def mixed(out: torch.Tensor) -> None:
        mixing.Mixer().mix(pool, rows, weights, lambda k, total: out[k].copy_(total))

    def on_threads(out: torch.Tensor) -> None:
        torch.set_num_threads(3)
        mixed(out)
        torch.set_num_threads(1)

    results = []
    for compute in (lambda out: mixing._dense(pool, rows, weights, out), sparse, mixed, on_threads):
        out = torch.full((agents, pool.shape[1]), 7.0, dtype=torch.float64)
        compute(out)
        np.testing.assert_allclose(out.numpy(), expected, atol=1e-9)
        results.append(out)
    assert torch.equal(results[2], results[3])
