"""Random streams: known answers, independence, distribution, and state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.randomness import StreamFamily, Streams, philox4x32

ALL_ONES = 0xFFFFFFFF


def words(*values: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    a, b, c, d = (np.array([value], dtype=np.uint64) for value in values)
    return a, b, c, d


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ALL_ONES,) * 4, (ALL_ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """The vectors of kat_vectors, philox4x32 10, in the Random123 distribution."""
    result = philox4x32(words(*counter), key)
    assert tuple(int(word[0]) for word in result) == expected


def test_first_uniforms_are_the_words_of_the_first_block() -> None:
    """uniform = 53 high bits of two words, stream id in the counter's upper half."""
    w = [int(word[0]) for word in philox4x32(words(0, 0, 5, 0), (7, 9))]
    expected = [((w[0] << 21) ^ (w[1] >> 11)) * 2.0**-53, ((w[2] << 21) ^ (w[3] >> 11)) * 2.0**-53]
    assert StreamFamily((7, 9), dense_ids=8).uniform(np.array([5]), draws=2)[0].tolist() == expected


def test_a_stream_does_not_depend_on_which_others_are_drawn() -> None:
    together, alone = Streams(1, 8).family("loss"), Streams(1, 8).family("loss")
    first = together.uniform(np.arange(8), draws=2)
    second = together.uniform(np.array([6, 3]), draws=4)
    assert np.array_equal(alone.uniform(np.array([3]), draws=6)[0], [*first[3], *second[1]])


def test_purposes_seeds_and_ids_give_different_streams() -> None:
    draws = {
        tuple(Streams(seed, 4).family(purpose).uniform(np.array([identity]), draws=4)[0])
        for seed in (1, 2)
        for purpose in ("loss", "latency")
        for identity in (0, 1)
    }
    assert len(draws) == 8


def test_streams_are_uncorrelated_and_uniform() -> None:
    u = Streams(3, 200).family("x").uniform(np.arange(200), draws=2000)
    assert 0.0 <= u.min() < 1e-4 and 1.0 - 1e-4 < u.max() < 1.0
    n = u.size
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    assert abs(np.mean(u * u * u) - 0.25) < 5 * np.sqrt((1 / 7 - 1 / 16) / n)
    counts = np.bincount((u.reshape(-1) * 100).astype(int), minlength=100)
    chi_squared = float(((counts - n / 100) ** 2 / (n / 100)).sum())
    assert 99 - 5 * np.sqrt(198) < chi_squared < 99 + 5 * np.sqrt(198)
    across = np.corrcoef(u)[np.triu_indices(200, k=1)]
    assert np.abs(across).max() < 5 / np.sqrt(2000)
    lagged = np.corrcoef(u[:, :-1].reshape(-1), u[:, 1:].reshape(-1))[0, 1]
    assert abs(lagged) < 5 / np.sqrt(n)


def test_normals_have_the_moments_of_the_standard_normal() -> None:
    z = Streams(4, 100).family("x").normal(np.arange(100), draws=2000)
    n = z.size
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1.0) < 5 * np.sqrt(2 / n)
    assert abs(np.mean(z**3)) < 5 * np.sqrt(15 / n)
    assert abs(np.mean(z**4) - 3.0) < 5 * np.sqrt(96 / n)


def test_integers_stay_below_their_own_limits_and_reach_them() -> None:
    high = np.array([1, 2, 7])
    k = Streams(5, 3).family("x").integers(np.arange(3), high, draws=500)
    assert k.min(axis=1).tolist() == [0, 0, 0]
    assert k.max(axis=1).tolist() == [0, 1, 6]


def test_sparse_ids_continue_as_dense_ids_do() -> None:
    ids = np.array([2, 9, 4_000_000_000])
    dense, sparse = StreamFamily((1, 2), dense_ids=10), StreamFamily((1, 2), dense_ids=3)
    for _ in range(3):
        assert np.array_equal(dense.uniform(ids[:2], draws=3), sparse.uniform(ids, draws=3)[:2])


@pytest.mark.parametrize("ids", [[0, 1], [0, 77]])
def test_state_round_trip_goes_on_where_it_was(ids: list[int]) -> None:
    numbers = np.array(ids)
    streams = Streams(6, 2)
    streams.family("a").uniform(numbers, draws=3)
    streams.family("b").normal(numbers)
    saved = streams.state()
    expected = [streams.family(p).uniform(numbers, draws=2).tolist() for p in ("a", "b")]
    again = Streams(6, 2)
    again.load_state(saved)
    assert [again.family(p).uniform(numbers, draws=2).tolist() for p in ("a", "b")] == expected


def test_saved_state_does_not_change_with_the_stream() -> None:
    family = StreamFamily((1, 2), dense_ids=1)
    family.uniform(np.array([0, 5]))
    saved = family.state()
    family.uniform(np.array([0, 5]))
    assert saved["dense"].tolist() == [1]
    assert saved["sparse"] == {5: 1}


@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_cutting_an_even_draw_into_parts_changes_nothing(cuts: list[int]) -> None:
    whole, parts = StreamFamily((1, 2), 1), StreamFamily((1, 2), 1)
    one = np.array([0])
    drawn = np.concatenate([parts.uniform(one, draws=2 * cut)[0] for cut in cuts])
    assert np.array_equal(whole.uniform(one, draws=2 * sum(cuts))[0], drawn)


def test_words_are_read_by_place_without_advancing() -> None:
    family = StreamFamily((7, 9), dense_ids=8)
    block = [int(word[0]) for word in philox4x32(words(3, 0, 5, 0), (7, 9))]
    for _ in range(2):
        assert family.words(np.array([4, 5]), np.array([0, 3]), 1)[1].tolist() == block
    assert family.words(np.array([5]), np.array([2]), 2)[0, 4:].tolist() == block


def test_many_words_at_once_equal_those_read_singly() -> None:
    family = StreamFamily((7, 9), dense_ids=1)
    ids = np.arange(3000)
    many = family.words(ids, ids % 5, 3)
    for i in (0, 1364, 1365, 1366, 2999):
        assert np.array_equal(many[i], family.words(ids[i : i + 1], ids[i : i + 1] % 5, 3)[0])


def test_seeds_differ_by_purpose_and_index_and_fit_31_bits() -> None:
    streams = Streams(1, 1)
    seeds = {streams.seed_for(purpose, index) for purpose in ("world", "weights") for index in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert Streams(1, 1).seed_for("world", 7) == streams.seed_for("world", 7)


def test_a_state_rewinds_purposes_that_had_not_been_drawn_for() -> None:
    fresh, drawn = Streams(3, 4), Streams(3, 4)
    fresh.family("loss").uniform(np.arange(2), 5)
    for ids in (np.arange(4), np.array([9])):
        drawn.family("latency").uniform(ids, 3)
    drawn.load_state(fresh.state())
    for purpose, ids in (("loss", np.arange(4)), ("latency", np.arange(4)), ("latency", np.array([9]))):
        left, right = (s.family(purpose).uniform(ids, 2) for s in (fresh, drawn))
        np.testing.assert_array_equal(left, right)
