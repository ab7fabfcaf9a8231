"""Random numbers per link, fetched in rows so that one message costs one array look-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint32]
Bools = NDArray[np.bool_]

_WORDS_PER_BLOCK = 4


class WordFamily(Protocol):
    """All streams of one purpose, read by place: word k of stream ``id`` is always the same number."""

    def words(self, ids: Ints, first_block: Ints, blocks: int) -> Words:
        """Words ``4 * first_block`` and on of each stream: uint32 ``[len(ids), 4 * blocks]``."""
        ...


class StreamSource(Protocol):
    """Where the streams of a run come from."""

    def family(self, purpose: str) -> WordFamily:
        """The streams of that purpose, the same at each call."""
        ...


def unit_interval(words: Words) -> Floats:
    """32-bit words to numbers strictly between 0 and 1, the middles of 2**32 equal cells."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def word_threshold(probability: Floats | float) -> NDArray[np.uint64]:
    """The count t for which ``word < t`` has that probability, to 2**-32."""
    return np.rint(np.asarray(probability, dtype=np.float64) * 2.0**32).astype(np.uint64)


def generator(family: WordFamily, index: int) -> np.random.Generator:
    """A numpy generator that depends on the family and the index only."""
    words = family.words(np.zeros(1, dtype=np.int64), np.array([index], dtype=np.int64), 1)
    return np.random.default_rng(words[0].tolist())


def padded(values: NDArray[Any], rows: int, fill: float) -> NDArray[Any]:
    """The array with at least ``rows`` rows, new ones filled."""
    if values.shape[0] >= rows:
        return values
    grown = np.full((rows, *values.shape[1:]), fill, dtype=values.dtype)
    grown[: values.shape[0]] = values
    return grown


class LinkStream:
    """One sequence per link, whose next elements are taken for many links at once.

    Element k of a link is ``fill(slots, first, count)[.., k - first]``, a pure function of link and k,
    so a row of ``width`` elements can be prepared ahead, and the state is one number per link.
    """

    def __init__(
        self, fill: Callable[[Ints, Ints, int], NDArray[Any]], width: int, dtype: type[np.generic]
    ) -> None:
        """``width`` (a power of two, at least 4) elements of a link are prepared at once."""
        self._fill = fill
        self._width = width
        self._mask = width - 1
        self._taken: Ints = np.zeros(0, dtype=np.int64)
        self._rows: NDArray[Any] = np.zeros((0, width), dtype=dtype)

    def resize(self, links: int) -> None:
        """Make room for ``links`` links."""
        self._taken = padded(self._taken, links, 0)
        self._rows = padded(self._rows, links, 0)

    def take(self, slots: Ints) -> NDArray[Any]:
        """The next element of each link in ``slots`` (each at most once): ``[len(slots)]``."""
        taken = self._taken[slots]
        column = taken & self._mask
        self._taken[slots] = taken + 1
        fresh = column == 0
        if fresh.any():
            used_up = slots[fresh]
            self._rows[used_up] = self._fill(used_up, taken[fresh], self._width)
        return self._rows.reshape(-1)[slots * self._width + column]

    def state(self) -> dict[str, Any]:
        return {"taken": self._taken.copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on after the elements that were taken; the prepared rows are made again."""
        taken = np.asarray(state["taken"], dtype=np.int64)
        self._taken = padded(self._taken, len(taken), 0)
        self._rows = padded(self._rows, len(taken), 0)
        self._taken[:] = 0
        self._taken[: len(taken)] = taken
        begun = np.flatnonzero(self._taken & self._mask)
        if begun.size:
            self._rows[begun] = self._fill(begun, self._taken[begun] & ~np.int64(self._mask), self._width)


def word_stream(family: WordFamily, ids: Callable[[Ints], Ints], width: int) -> LinkStream:
    """The raw words of a family, one sequence per link; ``ids`` turns slots into link ids."""

    def fill(slots: Ints, first: Ints, count: int) -> Words:
        return family.words(ids(slots), first // _WORDS_PER_BLOCK, count // _WORDS_PER_BLOCK)

    return LinkStream(fill, width, np.uint32)
