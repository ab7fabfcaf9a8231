"""Losses against their closed forms; every tolerance is 4 standard errors of the seeded estimate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from f2a2_sim.randomness import Streams
from network.loss import LossModel, binomial_quantile
from network.messages import Fate
from network.spec import ArqSpec, BernoulliLoss, GilbertElliottLoss, LinkSpec
from tests.network.helpers import carrier, complete, drain, send


def lost_sequence(spec: LinkSpec, messages: int, size_bytes: int = 1000) -> np.ndarray:
    """Losses of the links of one agent to 60 others: bool [links, messages]."""
    c = complete(61, spec, seed=5)
    rows = [send(c, float(k), (0,), size_bytes).fate == Fate.LOST for k in range(messages)]
    return np.array(rows).T


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_bernoulli_loss_rate(probability: float) -> None:
    lost = lost_sequence(LinkSpec(loss=BernoulliLoss(probability=probability)), 300)
    error = np.sqrt(probability * (1 - probability) / lost.size)
    assert abs(lost.mean() - probability) <= 4 * error


def test_a_message_is_lost_if_any_of_its_packets_is() -> None:
    spec = LinkSpec(loss=BernoulliLoss(probability=0.05), loss_per="packet", mtu_bytes=500)
    lost = lost_sequence(spec, 300, size_bytes=4600)  # 10 packets
    expected = 1 - 0.95**10
    assert abs(lost.mean() - expected) <= 4 * np.sqrt(expected * (1 - expected) / lost.size)


def test_gilbert_elliott_stationary_loss_and_mean_burst() -> None:
    loss = GilbertElliottLoss(p_good_to_bad=0.05, p_bad_to_good=0.25)
    lost = lost_sequence(LinkSpec(loss=loss), 4000)
    # Var of the mean of a two-state chain: pi (1 - pi) / n * (1 + r) / (1 - r), r = 1 - p - q
    share, r = loss.stationary_bad, 1 - 0.05 - 0.25
    error = np.sqrt(share * (1 - share) / lost.size * (1 + r) / (1 - r))
    assert abs(lost.mean() - share) < 4 * error
    # Bursts that begin after the first message and end before the last: geometric, mean 1 / q
    edges = np.diff(lost.astype(np.int8), axis=1)
    bursts = []
    for row in edges:
        begin, end = np.flatnonzero(row == 1), np.flatnonzero(row == -1)
        end = end[end > begin[0]]
        bursts.append(end - begin[: len(end)])
    lengths = np.concatenate(bursts)
    error = np.sqrt((1 - 0.25) / 0.25**2 / len(lengths))
    assert abs(lengths.mean() - 4.0) < 4 * error


def test_gilbert_elliott_with_losses_in_both_states() -> None:
    loss = GilbertElliottLoss(p_good_to_bad=0.1, p_bad_to_good=0.3, loss_good=0.02, loss_bad=0.6)
    lost = lost_sequence(LinkSpec(loss=loss), 3000)
    bad, r = loss.stationary_bad, 1 - 0.4
    expected = 0.02 * (1 - bad) + 0.6 * bad
    between = (0.6 - 0.02) ** 2 * bad * (1 - bad)
    variance = expected * (1 - expected) + 2 * between * r / (1 - r)  # sum of all autocovariances
    assert abs(lost.mean() - expected) < 4 * np.sqrt(variance / lost.size)


def test_gilbert_elliott_per_packet_counts_bad_packets_as_a_stepwise_chain_does() -> None:
    """Mean and variance of the bad packets among n, which the jumps between changes must reproduce."""
    p, q, n, links, rounds = 0.02, 0.2, 500, 400, 20
    loss = GilbertElliottLoss(p_good_to_bad=p, p_bad_to_good=q)
    spec = LinkSpec(loss=loss, loss_per="packet", mtu_bytes=1)
    model = LossModel([spec], lambda s: np.zeros_like(s), lambda s: s, Streams(3, 0).family("loss"), 16)
    model.resize(links)
    slots, steps = np.arange(links), np.full(links, n)
    bad = np.array([model._advance(loss, slots, steps)[1] for _ in range(rounds)])
    assert (bad >= 0).all() and (bad <= n).all()
    share, r = p / (p + q), 1 - p - q
    lag = np.arange(1, n)
    variance = share * (1 - share) * (n + 2 * ((n - lag) * r**lag).sum())
    count = bad.size
    assert abs(bad.mean() - n * share) < 4 * np.sqrt(variance / count) * 1.1  # rounds correlate
    assert bad.var() == pytest.approx(variance, rel=4 * np.sqrt(2.5 / count))


def test_gilbert_elliott_in_one_message_equals_many_small_ones() -> None:
    """Packets of one long message walk the same chain as single packets: same words, same states."""
    loss = GilbertElliottLoss(p_good_to_bad=0.1, p_bad_to_good=0.4)
    spec = LinkSpec(loss=loss, loss_per="packet", mtu_bytes=1000)
    single = lost_sequence(spec, 60, size_bytes=1000)
    grouped = lost_sequence(spec, 12, size_bytes=5000)
    np.testing.assert_array_equal(single.reshape(60, 12, 5).any(axis=2), grouped)


def test_chains_that_never_or_always_change() -> None:
    for p, q, expected in ((0.0, 1.0, 0.0), (1.0, 0.0, 1.0)):
        lost = lost_sequence(LinkSpec(loss=GilbertElliottLoss(p_good_to_bad=p, p_bad_to_good=q)), 20)
        assert (lost == bool(expected)).all()
    flips = lost_sequence(LinkSpec(loss=GilbertElliottLoss(p_good_to_bad=1.0, p_bad_to_good=1.0)), 20)
    assert (flips[:, 1:] != flips[:, :-1]).all()


@pytest.mark.parametrize(("trials", "probability"), [(1, 0.3), (7, 0.02), (40, 0.5), (1000, 0.1), (5, 0.999)])
def test_binomial_quantile_is_exact(trials: int, probability: float) -> None:
    uniform = np.random.default_rng(0).random(3000)
    got = binomial_quantile(uniform, np.full(3000, trials), probability)
    np.testing.assert_array_equal(got, binom.ppf(uniform, trials, probability))


def test_retransmission_of_packets_sends_only_the_lost_ones_again() -> None:
    """Expected packets on the air: n (1 + p + p^2 + ...) up to the last retry; given up: any missing."""
    p, packets, tries = 0.2, 50, 3
    spec = LinkSpec(
        loss=BernoulliLoss(probability=p),
        loss_per="packet",
        mtu_bytes=100,
        arq=ArqSpec(max_retries=tries, timeout_s=0.01),
    )
    c = complete(61, spec, seed=2)
    for k in range(100):
        send(c, float(k), (0,), 100 * packets)
    expected_units = packets * sum(p**j for j in range(tries + 1))
    per_packet = sum((2 * j + 1) * p**j for j in range(tries + 1)) - (expected_units / packets) ** 2
    got = c.counts.bytes_sent / 100 / c.counts.sent
    assert abs(got - expected_units) < 4 * np.sqrt(packets * per_packet / c.counts.sent)
    given_up = 1 - (1 - p ** (tries + 1)) ** packets
    error = np.sqrt(given_up * (1 - given_up) / c.counts.sent)
    assert abs(c.counts.lost / c.counts.sent - given_up) < 4 * error


def test_retransmission_over_bursts_waits_one_timeout_per_attempt() -> None:
    spec = LinkSpec(
        loss=GilbertElliottLoss(p_good_to_bad=0.2, p_bad_to_good=0.3),
        arq=ArqSpec(max_retries=1000, timeout_s=0.5),
    )
    c = carrier(links=spec)
    attempts = sum(1 + send(c, 1000.0 * k).arrival_s[0] % 1000.0 / 0.5 for k in range(3000))
    assert c.counts.lost == 0
    share, r = 0.4, 0.5  # successes per attempt are 1 - share in the long run
    error = np.sqrt(share * (1 - share) / attempts * (1 + r) / (1 - r))
    assert abs(3000 / attempts - (1 - share)) < 4 * error
    assert len(drain(c)) == 3000
