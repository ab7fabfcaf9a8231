"""Random numbers of the particle worlds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from f2a2_sim.worlds.particle.base import choose


class Relayed:
    """Random numbers of some other kind, which know no method but those of the protocol."""

    def __init__(self, seed: int) -> None:
        self.inner = np.random.RandomState(seed)

    def choice(self, a: int, size: Any = None) -> Any:
        return self.inner.choice(a, size)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState, Relayed])
def test_choosing_draws_what_choice_draws(make: Any) -> None:
    """The same numbers from the same state, one by one or several at once, and the same state afterwards."""
    ours, theirs = make(3), make(3)
    for n in (2, 6, 5, 1000):
        assert choose(ours, n) == theirs.choice(n)
        assert choose(ours, n, 5).tolist() == [theirs.choice(n) for _ in range(5)]
    assert choose(ours, 10**6, 9).tolist() == theirs.choice(10**6, 9).tolist()
