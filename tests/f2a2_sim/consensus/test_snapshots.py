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
    other.load_state(pool.state())
    assert other.free_rows == pool.free_rows
    for copy in (pool, other):
        added = copy.add([torch.zeros(3, dtype=torch.float64)], np.zeros(1), np.zeros(1, dtype=np.int64))
        assert added.tolist() == [3]
        assert copy.rows[int(copy.row_of(versions[2:])[0])].tolist() == [3.0] * 3
        assert copy.round_of(versions[2:]).tolist() == [2]


@given(seed=st.integers(0, 1000), agents=st.integers(1, 20), share=st.floats(0.0, 1.0))
def test_dense_and_sparse_sums_agree(seed: int, agents: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    pool = torch.from_numpy(rng.normal(size=(12, mixing._COLUMNS_PER_BLOCK + 5)))
    rows = [np.flatnonzero(rng.random(12) < share) for _ in range(agents)]
    weights = [rng.random(len(r)) for r in rows]
    expected = np.array([(w[:, None] * pool.numpy()[r]).sum(0) for r, w in zip(rows, weights, strict=True)])
    used = np.unique(np.concatenate(rows))
    for compute in (
        lambda out: mixing.weighted_sums(pool, rows, weights, out),
        lambda out: mixing._dense(pool, used, rows, weights, out),
        lambda out: mixing._sparse(pool, rows, weights, out),
    ):
        out = torch.full((agents, pool.shape[1]), 7.0, dtype=torch.float64)
        compute(out)
        np.testing.assert_allclose(out.numpy(), expected, atol=1e-9)
