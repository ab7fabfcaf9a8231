"""Transmitters and drop-tail queues against exact schedules and the M/D/1 formula."""

from __future__ import annotations

import numpy as np
import pytest

from network.messages import Fate
from network.spec import ArqSpec, BernoulliLoss, ConstantLatency, LinkSpec
from tests.network.helpers import ONE_LINK, STAR, carrier, complete, drain, send

RATE = 8e6  # 1000 bytes take 1 ms
DELAY = ConstantLatency(value_s=0.25)


def link(**more: object) -> LinkSpec:
    return LinkSpec.model_validate({"latency": DELAY, "bandwidth_bps": RATE, **more})


def test_a_message_arrives_at_start_plus_size_over_rate_plus_delay() -> None:
    c = carrier(links=link())
    starts, arrivals = [], []
    for k in range(50):
        sends = send(c, now_s=0.0003 * k)
        starts.append(sends.tx_start_s[0])
        arrivals.append(sends.arrival_s[0])
    # sent every 0.3 ms but taking 1 ms each: message k starts when message k - 1 has ended
    np.testing.assert_allclose(starts, 0.001 * np.arange(50), rtol=0, atol=1e-15)
    np.testing.assert_allclose(arrivals, np.array(starts) + 0.001 + 0.25, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(drain(c).arrival_s, arrivals)


def test_an_idle_transmitter_starts_at_once() -> None:
    c = carrier(links=link())
    send(c, 0.0)
    assert send(c, 0.001).tx_start_s[0] == 0.001
    assert send(c, 5.0).tx_start_s[0] == 5.0


def test_a_shared_uplink_sends_to_one_neighbour_after_the_other() -> None:
    sends = send(carrier(6, STAR, link()), 2.0)
    np.testing.assert_array_equal(sends.receiver, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(sends.tx_start_s, 2.0 + 0.001 * np.arange(5), rtol=1e-15)
    np.testing.assert_allclose(sends.tx_end_s, 2.0 + 0.001 * np.arange(1, 6), rtol=1e-15)
    np.testing.assert_array_equal(sends.tx_end_s[:-1], sends.tx_start_s[1:])
    np.testing.assert_array_equal(sends.arrival_s, sends.tx_end_s + 0.25)


def test_links_with_their_own_transmitters_send_side_by_side() -> None:
    c = carrier(6, STAR, link(uplink="per_link"))
    np.testing.assert_array_equal(send(c, 2.0).tx_start_s, np.full(5, 2.0))
    np.testing.assert_array_equal(send(c, 2.0).tx_start_s, np.full(5, 2.0 + 0.001))


def test_without_bandwidth_nothing_waits() -> None:
    c = carrier(6, STAR, LinkSpec(latency=DELAY))
    for _ in range(3):
        np.testing.assert_array_equal(send(c, 1.0).arrival_s, np.full(5, 1.25))


@pytest.mark.parametrize("waiting", [0, 1, 3, 10])
def test_drop_tail_keeps_the_one_in_transmission_and_k_waiting(waiting: int) -> None:
    c = carrier(links=link(queue_packets=waiting))
    fates = [int(send(c, 0.0).fate[0]) for _ in range(15)]
    assert fates == [Fate.IN_FLIGHT] * (1 + waiting) + [Fate.QUEUE_DROPPED] * (14 - waiting)
    # one message has been transmitted after 1 ms, so one place is free again, and only one
    later = [int(send(c, 0.001).fate[0]) for _ in range(3)]
    assert later == [Fate.IN_FLIGHT, Fate.QUEUE_DROPPED, Fate.QUEUE_DROPPED]
    assert c.counts.queue_dropped == 14 - waiting + 2
    arrivals = drain(c).arrival_s
    np.testing.assert_allclose(arrivals, 0.25 + 0.001 * np.arange(1, waiting + 3), rtol=1e-14)


def test_drop_tail_of_a_shared_uplink_refuses_the_last_neighbours() -> None:
    c = carrier(6, STAR, link(queue_packets=2))
    np.testing.assert_array_equal(send(c, 0.0).fate, [0, 0, 0, 3, 3])
    # at 1.5 ms one of the three has ended, one is in transmission and one waits: one place
    np.testing.assert_array_equal(send(c, 0.0015).fate, [0, 3, 3, 3, 3])
    np.testing.assert_allclose(drain(c).arrival_s, 0.25 + 0.001 * np.arange(1, 5), rtol=1e-14)


def test_a_queue_limit_in_bytes_counts_the_bytes_that_wait() -> None:
    c = carrier(links=link(queue_bytes=2500))
    sizes = [9000, 1000, 1000, 1000, 400, 200]  # the first is in transmission; 1000 + 1000 + 400 fit
    fates = [int(send(c, 0.0, size_bytes=size).fate[0]) for size in sizes]
    assert fates == [0, 0, 0, 3, 0, 3]


def test_a_queue_limit_in_packets_counts_the_packets_of_long_messages() -> None:
    c = carrier(links=link(queue_packets=5, mtu_bytes=500))
    sizes = [4000, 1000, 1000, 1000, 300, 300]  # 2 + 2 packets wait, then 2 do not fit, then 1 does
    fates = [int(send(c, 0.0, size_bytes=size).fate[0]) for size in sizes]
    assert fates == [0, 0, 0, 3, 0, 3]


def test_queues_agree_with_a_message_by_message_model() -> None:
    """Random sizes and times against a plain loop over one transmitter, with a limit in bytes."""
    rng = np.random.default_rng(3)
    c = carrier(links=link(queue_bytes=20_000))
    free, waiting, expected = -np.inf, [], []
    now = 0.0
    for _ in range(800):
        now += rng.exponential(0.0021)
        size = int(rng.integers(1, 8000))
        waiting = [(start, b) for start, b in waiting if start > now]
        if free <= now or sum(b for _, b in waiting) + size <= 20_000:
            start = max(free, now)
            free = start + size * 8 / RATE
            waiting.append((start, size))
            expected.append(free + 0.25)
        else:
            expected.append(np.inf)
        got = send(c, now, size_bytes=size).arrival_s[0]
        assert got == pytest.approx(expected[-1], rel=1e-14)
    assert 50 < c.counts.queue_dropped < 700


def test_mean_wait_of_poisson_sends_is_that_of_m_d_1() -> None:
    """W = rho * service / (2 (1 - rho)); the tolerance is 4 standard errors over independent batches."""
    rho, service, batches, per_batch = 0.7, 0.001, 30, 1600
    rng = np.random.default_rng(11)
    c = carrier(links=link())
    now, waits = 0.0, []
    for _ in range(batches * per_batch):
        now += rng.exponential(service / rho)
        waits.append(send(c, now).tx_start_s[0] - now)
        if len(waits) % 5000 == 0:
            drain(c, now)
    means = np.array(waits).reshape(batches, per_batch).mean(axis=1)
    expected = rho * service / (2 * (1 - rho))
    error = means.std(ddof=1) / np.sqrt(batches)
    assert error < 0.06 * expected
    assert abs(means.mean() - expected) < 4 * error


def test_a_sender_that_goes_off_drops_what_it_has_not_begun_to_transmit() -> None:
    c = carrier(6, STAR, link(queue_packets=4))
    send(c, 0.0)
    assert c.sender_off(0.0015, np.array([0])) == 3  # 0 has ended, 1 is in transmission
    assert c.counts.absent_dropped == 3
    # the transmitter is free when message 1 has ended, and the queue is empty
    again = send(c, 0.0016)
    np.testing.assert_array_equal(again.fate, [0, 0, 0, 0, 3])
    np.testing.assert_allclose(again.tx_start_s[:4], 0.002 + 0.001 * np.arange(4), rtol=1e-14)
    np.testing.assert_array_equal(drain(c).receiver, [1, 2, 1, 2, 3, 4])


def test_a_sender_that_goes_off_leaves_other_senders_alone() -> None:
    for uplink in ("shared", "per_link"):
        a, b = (complete(4, link(uplink=uplink)) for _ in range(2))
        for now in (0.0, 0.0005):
            send(a, now, (0, 1, 2, 3))
            send(b, now, (1, 2, 3))
        a.sender_off(0.0005, np.array([0]))
        from_others = drain(a)
        keep = from_others.sender != 0
        np.testing.assert_array_equal(from_others.arrival_s[keep], drain(b).arrival_s)
        assert (~keep).sum() == (1 if uplink == "shared" else 3)


def test_off_twice_forgets_what_never_was_transmitted() -> None:
    c = carrier(6, STAR, link())
    send(c, 0.0)
    c.sender_off(0.0, np.array([0]))
    c.sender_off(0.0035, np.array([0]))  # would fall into the fourth message, which was dropped
    assert send(c, 0.0035).tx_start_s[0] == 0.0035


def test_retransmission_uses_the_uplink_and_waits_for_timeouts() -> None:
    """With all lost, r retries: (r + 1) transmissions on the uplink; the message itself is given up."""
    arq = ArqSpec(max_retries=3, timeout_s=0.05)
    c = carrier(links=link(loss=BernoulliLoss(probability=1.0), arq=arq))
    first = send(c, 0.0)
    assert first.fate[0] == Fate.LOST and first.arrival_s[0] == np.inf
    assert first.tx_end_s[0] == pytest.approx(0.004)
    assert send(c, 0.0).tx_start_s[0] == pytest.approx(0.004)
    assert c.counts.lost == 2 and c.counts.bytes_sent == 8000


def test_retransmission_turns_loss_into_delay() -> None:
    """Each message: arrival - start = (1 + r) * service + r * timeout + delay, r geometric."""
    p, service, timeout = 0.3, 0.001, 0.05
    spec = link(loss=BernoulliLoss(probability=p), arq=ArqSpec(max_retries=100, timeout_s=timeout))
    c = complete(40, spec)
    retries = []
    for step in range(20):
        sends = send(c, 10.0 * step, range(40))
        r = (sends.arrival_s - sends.tx_start_s - service - 0.25) / (service + timeout)
        np.testing.assert_allclose(r, np.rint(r), atol=1e-8)
        np.testing.assert_allclose(sends.tx_end_s - sends.tx_start_s, (1 + np.rint(r)) * service, atol=1e-12)
        np.testing.assert_allclose(sends.tx_start_s[1:39], sends.tx_end_s[:38], atol=1e-12)
        retries.append(np.rint(r))
    all_retries = np.concatenate(retries)
    assert c.counts.lost == 0
    expected, variance = p / (1 - p), p / (1 - p) ** 2
    assert abs(all_retries.mean() - expected) < 4 * np.sqrt(variance / len(all_retries))


def test_one_link_may_be_slower_than_the_others_of_its_sender() -> None:
    c = carrier(6, STAR, link(), link_overrides={(0, 2): link(bandwidth_bps=RATE / 10)})
    sends = send(c, 0.0)
    np.testing.assert_allclose(sends.tx_end_s, [0.001, 0.011, 0.012, 0.013, 0.014], rtol=1e-14)


def test_time_may_not_go_back() -> None:
    c = carrier(2, ONE_LINK, link())
    send(c, 1.0)
    with pytest.raises(ValueError, match="time may not go back"):
        send(c, 0.5)
