"""Counter-based random streams: one independent stream per (purpose, id), drawn for many ids at once.

A stream is a key and a counter; the k-th number of a stream is a pure function of
``(run seed, purpose, id, k)``. So the order in which streams are drawn never matters, thousands of
streams advance in one vectorised call, and a checkpoint of all of them is one array of counters.

The function is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011); tests/f2a2_sim/test_randomness.py holds it to the published known-answer vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
_U32 = NDArray[np.uint64]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
_CHUNK = 4096  # counters at once: the work arrays stay in the cache


def philox4x32(counter: tuple[_U32, _U32, _U32, _U32], key: tuple[int, int]) -> tuple[_U32, _U32, _U32, _U32]:
    """Apply Philox4x32-10 to every counter; words are uint64 arrays that hold 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = _MULTIPLIER_0 * c0
        p1 = _MULTIPLIER_1 * c2
        c0 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0)
        c1 = p1 & _LOW
        c2 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c3 = p0 & _LOW
        k0 = (k0 + _WEYL_0) & 0xFFFFFFFF
        k1 = (k1 + _WEYL_1) & 0xFFFFFFFF
    return c0, c1, c2, c3


class StreamFamily:
    """All streams of one purpose (loss, latency, exploration, ...), one per id in ``0 .. 2**32 - 1``.

    Counters are kept densely for ids below ``dense_ids`` and in a sorted table above, so a family
    may be indexed by agent, or by link (``sender * n_agents + receiver``), at any size.
    """

    def __init__(self, key: tuple[int, int], dense_ids: int) -> None:
        self._key = key
        self._counters = np.zeros(dense_ids, dtype=np.int64)
        self._sparse: dict[int, int] = {}

    def uniform(self, ids: IntArray, draws: int = 1) -> FloatArray:
        """Next ``draws`` numbers in [0, 1) of each stream in ``ids``: float64 ``[len(ids), draws]``.

        An id may occur only once in a call.
        """
        ids = np.asarray(ids, dtype=np.int64)
        start = self._advance(ids, draws)
        blocks = (draws + 1) // 2
        index = start[:, None] + np.arange(blocks, dtype=np.int64)[None, :]
        shape = index.shape
        flat = index.reshape(-1).astype(np.uint64)
        high = np.repeat(ids.astype(np.uint64), blocks)
        words = philox4x32((flat & _LOW, flat >> _SHIFT, high & _LOW, high >> _SHIFT), self._key)
        pairs = np.empty((*shape, 2), dtype=np.float64)
        pairs[..., 0] = _to_unit(words[0], words[1]).reshape(shape)
        pairs[..., 1] = _to_unit(words[2], words[3]).reshape(shape)
        return pairs.reshape(len(ids), 2 * blocks)[:, :draws]

    def integers(self, ids: IntArray, high: IntArray | int, draws: int = 1) -> IntArray:
        """Next ``draws`` integers in ``[0, high)`` of each stream; ``high`` is per id or one for all."""
        limit = np.broadcast_to(np.asarray(high, dtype=np.float64), (len(ids),))
        return (self.uniform(ids, draws) * limit[:, None]).astype(np.int64)

    def normal(self, ids: IntArray, draws: int = 1) -> FloatArray:
        """Next ``draws`` standard normals of each stream (Box-Muller): float64 ``[len(ids), draws]``."""
        u = self.uniform(ids, 2 * draws)
        radius = np.sqrt(-2.0 * np.log1p(-u[:, 0::2]))
        return np.asarray(radius * np.cos(2.0 * np.pi * u[:, 1::2]))

    def words(self, ids: IntArray, first_block: IntArray, blocks: int) -> NDArray[np.uint32]:
        """Random 32-bit words of each stream by their place: uint32 ``[len(ids), 4 * blocks]``.

        Block b of a stream is its words 4b to 4b + 3; ``first_block`` is int64 ``[len(ids)]``. Nothing is
        advanced, so the caller keeps the places. The blocks are those that the drawing methods use up:
        read a purpose in one of the two ways only.
        """
        index = (first_block[:, None] + np.arange(blocks, dtype=np.int64)).reshape(-1).astype(np.uint64)
        high = np.repeat(np.asarray(ids, dtype=np.int64).astype(np.uint64), blocks)
        words = np.empty((index.size, 4), dtype=np.uint32)
        for low in range(0, index.size, _CHUNK):
            part = slice(low, low + _CHUNK)
            counter = (index[part] & _LOW, index[part] >> _SHIFT, high[part] & _LOW, high[part] >> _SHIFT)
            for column, word in enumerate(philox4x32(counter, self._key)):
                words[part, column] = word
        return words.reshape(len(ids), 4 * blocks)

    def state(self) -> dict[str, Any]:
        """Counters as plain data, for a checkpoint."""
        return {"dense": self._counters.copy(), "sparse": dict(self._sparse)}

    def load_state(self, state: dict[str, Any]) -> None:
        self._counters = np.asarray(state["dense"], dtype=np.int64).copy()
        self._sparse = {int(k): int(v) for k, v in state["sparse"].items()}

    def rewind(self) -> None:
        """Back to the first number of every stream."""
        self._counters[:] = 0
        self._sparse.clear()

    def _advance(self, ids: IntArray, draws: int) -> IntArray:
        blocks = (draws + 1) // 2
        if ids.size == 0 or int(ids.max()) < self._counters.size:
            start = self._counters[ids]
            self._counters[ids] = start + blocks
            return start
        starts = np.empty(len(ids), dtype=np.int64)
        for position, identity in enumerate(ids.tolist()):
            store: Any = self._counters if identity < self._counters.size else self._sparse
            value = int(store[identity]) if store is self._counters else self._sparse.get(identity, 0)
            starts[position] = value
            store[identity] = value + blocks
        return starts


class Streams:
    """Every random stream of one run, spawned from its seed: ``streams.family("loss")`` and so on."""

    def __init__(self, seed: int, dense_ids: int) -> None:
        self._seed = seed
        self._dense_ids = dense_ids
        self._families: dict[str, StreamFamily] = {}

    def family(self, purpose: str, dense_ids: int | None = None) -> StreamFamily:
        """The family of that purpose; made on first use and the same object afterwards."""
        if purpose not in self._families:
            words = np.random.SeedSequence([self._seed, *purpose.encode()]).generate_state(2, np.uint32)
            size = self._dense_ids if dense_ids is None else dense_ids
            self._families[purpose] = StreamFamily((int(words[0]), int(words[1])), size)
        return self._families[purpose]

    def seed_for(self, purpose: str, index: int = 0) -> int:
        """A 31-bit seed for code that takes an integer (a world, a network's initial weights)."""
        words = np.random.SeedSequence([self._seed, index, *purpose.encode()]).generate_state(1, np.uint32)
        return int(words[0] >> 1)

    def state(self) -> dict[str, Any]:
        return {purpose: family.state() for purpose, family in self._families.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; a purpose that it lacks had not been drawn for, and begins."""
        for purpose, family in self._families.items():
            if purpose not in state:
                family.rewind()
        for purpose, saved in state.items():
            self.family(purpose).load_state(saved)


def _to_unit(high: _U32, low: _U32) -> FloatArray:
    """53 random bits to a float64 in [0, 1)."""
    mantissa = (high << np.uint64(21)) ^ (low >> np.uint64(11))
    return np.asarray(mantissa.astype(np.float64) * 2.0**-53)
