"""The carrier as a whole: conservation, independence of links, batches, order, absence, cuts, checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from network.carrier import SimulatedCarrier
from network.messages import Fate
from network.spec import (
    ArqSpec,
    BernoulliLoss,
    ConstantLatency,
    EmptyTopology,
    GilbertElliottLoss,
    KRegularTopology,
    LinkSpec,
    LognormalLatency,
    PartitionSpec,
    RingPlusRandomTopology,
    UniformLatency,
)
from tests.network.helpers import carrier, complete, drain, everything, send

RANDOM = LognormalLatency(median_s=0.02, sigma=1.0)
PLAIN = LinkSpec(latency=RANDOM)
LOSSY = LinkSpec(latency=RANDOM, loss=BernoulliLoss(probability=0.3))
SLOW = LinkSpec(latency=RANDOM, bandwidth_bps=4e6, queue_packets=3, loss=BernoulliLoss(probability=0.1))
BURSTY = LinkSpec(
    latency=UniformLatency(low_s=0.0, high_s=0.05),
    bandwidth_bps=2e6,
    uplink="per_link",
    mtu_bytes=300,
    queue_bytes=4000,
    loss=GilbertElliottLoss(p_good_to_bad=0.1, p_bad_to_good=0.5, loss_good=0.01, loss_bad=0.7),
    loss_per="packet",
    duplication_probability=0.2,
    ordered=True,
    arq=ArqSpec(max_retries=2, timeout_s=0.01),
)
EQUAL_TIMES = LinkSpec(latency=ConstantLatency(value_s=0.01), duplication_probability=0.5)
RESENDING = LinkSpec(
    latency=RANDOM,
    bandwidth_bps=8e6,
    loss=BernoulliLoss(probability=0.4),
    arq=ArqSpec(max_retries=4, timeout_s=0.002),
)
KINDS = [PLAIN, LOSSY, SLOW, BURSTY, EQUAL_TIMES, RESENDING]


def mixed(n_agents: int) -> list[LinkSpec]:
    """A carrier's link specs, one kind after another."""
    return [KINDS[agent % len(KINDS)] for agent in range(n_agents)]


# ---------------------------------------------------------------- conservation


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["broadcast", "drain", "off", "redraw", "switch"]),
        st.floats(0.0, 0.05),
        st.integers(0, 2**12 - 1),
        st.integers(1, 3000),
    ),
    max_size=40,
)


@given(OPERATIONS, st.integers(0, 1000))
@settings(max_examples=60)
def test_every_message_ends_in_exactly_one_way(operations: list[Any], seed: int) -> None:
    n = 12
    c = carrier(
        n,
        RingPlusRandomTopology(share=0.3),
        mixed(n),
        seed=seed,
        partitions=[PartitionSpec(start_s=0.1, end_s=0.3, fraction=0.4)],
        max_age_s=0.08,
    )
    online = np.ones(n, dtype=np.bool_)
    now, received, sends = 0.0, 0, 0
    for what, pause, mask, size in operations:
        now += pause
        agents = np.flatnonzero([mask >> agent & 1 for agent in range(n)])
        if what == "broadcast":
            got = c.broadcast(now, agents, agents, size)
            sends += len(got.sender)
            assert len(got.sender) == sum(len(c.out_neighbours(agent)) for agent in agents)
        elif what == "drain":
            deliveries = c.drain(now, online)
            received += len(deliveries)
            assert (deliveries.arrival_s <= now).all() and online[deliveries.receiver].all()
            assert (np.diff(deliveries.arrival_s) >= 0).all()
            assert c.next_arrival_s() > now
        elif what == "off":
            c.sender_off(now, agents)
        elif what == "redraw":
            c.redraw(int(mask))
        else:
            online = np.array([bool(mask >> agent & 1) for agent in range(n)])
        assert c.counts.missing() == 0
    received += len(c.drain(np.inf, online))
    counts = c.counts
    assert counts.in_flight == 0 and c.next_arrival_s() == np.inf
    assert counts.missing() == 0
    assert (counts.sent, counts.delivered) == (sends, received)
    table = c.link_table()
    for name in ("sent", "duplicated", "delivered", "lost", "queue_dropped", "absent_dropped", "expired"):
        assert table[name].sum() == getattr(counts, name), name
    ended = sum(table[k] for k in ("delivered", "lost", "queue_dropped", "absent_dropped", "expired"))
    np.testing.assert_array_equal(table["sent"] + table["duplicated"], ended)


def test_fates_of_sends_agree_with_the_counts() -> None:
    c = complete(24, mixed(24))
    fates = np.concatenate([send(c, 0.001 * k, range(24)).fate for k in range(20)])
    assert c.counts.lost == (fates == Fate.LOST).sum() > 0
    assert c.counts.queue_dropped == (fates == Fate.QUEUE_DROPPED).sum() > 0
    assert c.counts.in_flight == (fates == Fate.IN_FLIGHT).sum() + c.counts.duplicated
    assert c.counts.duplicated > 0


# ---------------------------------------------------------------- independence and batching


def test_making_one_link_lossy_changes_nothing_on_the_others() -> None:
    """Nor the delays of that link's own messages that still get through."""
    for overrides in (
        {(2, 5): LOSSY},
        {(2, 5): LOSSY.model_copy(update={"loss": GilbertElliottLoss(p_good_to_bad=0.2, p_bad_to_good=0.2)})},
    ):
        a, b = complete(8, PLAIN), complete(8, PLAIN, link_overrides=overrides)
        lost = 0
        for k in range(30):
            x, y = send(a, float(k), range(8)), send(b, float(k), range(8))
            other = ~((x.sender == 2) & (x.receiver == 5))
            np.testing.assert_array_equal(x.arrival_s[other], y.arrival_s[other])
            arrives = np.isfinite(y.arrival_s)
            np.testing.assert_array_equal(x.arrival_s[arrives], y.arrival_s[arrives])
            lost += (~arrives).sum()
        assert 3 < lost < 27


def test_duplication_leaves_loss_and_delay_alone() -> None:
    a, b = complete(8, LOSSY), complete(8, LOSSY.model_copy(update={"duplication_probability": 0.5}))
    for k in range(20):
        np.testing.assert_array_equal(
            send(a, float(k), range(8)).arrival_s, send(b, float(k), range(8)).arrival_s
        )
    share, sent = b.counts.duplicated / (b.counts.sent - b.counts.lost), b.counts.sent - b.counts.lost
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / sent)


def test_one_broadcast_of_many_equals_many_broadcasts_of_one() -> None:
    n = 30
    together, apart = (carrier(n, KRegularTopology(degree=9), mixed(n)) for _ in range(2))
    rng = np.random.default_rng(0)
    for k in range(40):
        senders = np.sort(rng.choice(n, size=int(rng.integers(1, n)), replace=False))
        if k % 4 == 0:
            senders = np.arange(n)
        size = int(rng.integers(1, 4000))
        a = send(together, 0.002 * k, senders, size)
        b = [send(apart, 0.002 * k, [s], size) for s in senders]
        for name in ("sender", "receiver", "tx_start_s", "tx_end_s", "arrival_s", "fate"):
            np.testing.assert_array_equal(getattr(a, name), np.concatenate([getattr(x, name) for x in b]))
        if k % 3 == 0:
            for x, y in zip(
                everything(drain(together, 0.002 * k)), everything(drain(apart, 0.002 * k)), strict=True
            ):
                np.testing.assert_array_equal(x, y)
    assert together.counts == apart.counts
    for x, y in zip(everything(drain(together)), everything(drain(apart)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert together.counts.duplicated > 0 < together.counts.queue_dropped


def test_many_small_drains_hand_over_what_one_large_one_does() -> None:
    n = 24
    often, once = complete(n, mixed(n)), complete(n, mixed(n))
    parts: list[Any] = []
    for k in range(60):
        send(once, 0.003 * k, [k % n])
        send(often, 0.003 * k, [k % n])
        for part in range(3):
            parts.append(everything(drain(often, 0.003 * k + 0.001 * part)))
    parts.append(everything(drain(often)))
    for column, expected in enumerate(everything(drain(once))):
        np.testing.assert_array_equal(np.concatenate([part[column] for part in parts]), expected)


def test_a_size_per_sender_is_the_same_as_sending_one_by_one() -> None:
    a, b = complete(6, SLOW), complete(6, SLOW)
    sizes = np.array([100, 2000, 5])
    senders = np.array([1, 3, 4])
    together = a.broadcast(0.0, senders, senders, sizes)
    apart = [send(b, 0.0, [s], int(size)) for s, size in zip(senders, sizes, strict=True)]
    np.testing.assert_array_equal(together.arrival_s, np.concatenate([x.arrival_s for x in apart]))
    assert a.counts == b.counts


# ---------------------------------------------------------------- order


def test_unordered_links_reorder_and_ordered_ones_do_not() -> None:
    arrivals = {}
    for ordered in (False, True):
        c = carrier(links=LinkSpec(latency=UniformLatency(low_s=0.0, high_s=1.0), ordered=ordered))
        arrivals[ordered] = np.array([send(c, 0.01 * k).arrival_s[0] for k in range(300)])
    assert (np.diff(arrivals[False]) < 0).sum() > 100
    assert (np.diff(arrivals[True]) >= 0).all()
    # head of line: exactly the running maximum of what would have been
    np.testing.assert_array_equal(arrivals[True], np.maximum.accumulate(arrivals[False]))


def test_arrivals_at_one_instant_come_in_the_order_of_sending() -> None:
    c = complete(40, LinkSpec(latency=ConstantLatency(value_s=1.0)))
    send(c, 0.0, [7])
    send(c, 0.0, [3])
    send(c, 0.0, range(10, 40))
    got = drain(c)
    np.testing.assert_array_equal(got.sender, np.repeat([7, 3, *range(10, 40)], 39))
    np.testing.assert_array_equal(got.receiver[:39], np.delete(np.arange(40), 7))


def test_copies_come_after_their_originals_on_ordered_links() -> None:
    spec = LinkSpec(latency=UniformLatency(low_s=0.0, high_s=1.0), ordered=True, duplication_probability=1.0)
    c = carrier(links=spec)
    for k in range(50):
        c.broadcast(0.01 * k, np.array([0]), np.array([k]), 10)
    versions = drain(c).version
    np.testing.assert_array_equal(versions, np.repeat(np.arange(50), 2))


def test_messages_dropped_with_their_sender_hold_nobody_up_but_those_on_the_way_do() -> None:
    delay = UniformLatency(low_s=0.0, high_s=1.0)
    c = carrier(links=LinkSpec(latency=delay, bandwidth_bps=8e5, ordered=True))
    own = carrier(links=LinkSpec(latency=delay, bandwidth_bps=8e5))
    begun = [send(c, 0.0) for _ in range(60)]  # 10 ms each
    c.sender_off(0.195, np.array([0]))
    for _ in range(60):
        send(own, 0.0)
    own.sender_off(0.195, np.array([0]))
    held_until = max(sends.arrival_s[0] for sends in begun[:20])
    assert held_until < max(sends.arrival_s[0] for sends in begun)
    got, free = send(c, 0.2).arrival_s[0], send(own, 0.2).arrival_s[0]
    assert got == max(free, held_until)
    assert free < held_until, "another seed is needed for this to show anything"


# ---------------------------------------------------------------- absence, age, cuts


def test_a_message_to_an_absent_receiver_is_dropped_at_arrival() -> None:
    c = complete(4, LinkSpec(latency=ConstantLatency(value_s=1.0)))
    send(c, 0.0, range(4))
    assert len(drain(c, 0.5, off=[2])) == 0 and c.counts.absent_dropped == 0
    got = drain(c, 1.0, off=[2])
    assert 2 not in got.receiver and len(got) == 9
    assert c.counts.absent_dropped == 3
    assert c.link_table()["absent_dropped"][c.link_table()["receiver"] == 2].tolist() == [1, 1, 1]


def test_a_message_older_than_the_limit_expires() -> None:
    spec = LinkSpec(latency=UniformLatency(low_s=0.0, high_s=1.0))
    free, limited = complete(6, spec), complete(6, spec, max_age_s=0.25)
    for c in (free, limited):
        send(c, 3.0, range(6))
    arrivals, kept = drain(free).arrival_s, drain(limited).arrival_s
    np.testing.assert_array_equal(kept, arrivals[arrivals - 3.0 <= 0.25])
    assert limited.counts.expired == (arrivals - 3.0 > 0.25).sum() > 0


def test_a_cut_stops_what_would_arrive_while_it_lasts() -> None:
    cut = PartitionSpec(start_s=1.0, end_s=2.0, groups=((0, 1), (2,)))
    c = complete(5, LinkSpec(latency=ConstantLatency(value_s=0.5)), partitions=[cut])
    side = np.array([1, 1, 2, 0, 0])
    for now, active in ((0.4, False), (0.5, True), (1.49, True), (1.5, False)):
        send(c, now, range(5))
        got = drain(c, now + 0.5)
        crossing = side[got.sender] != side[got.receiver]
        assert len(got) == (4 if active else 20)
        assert crossing.any() != active
    assert c.counts.lost == 32


def test_a_drawn_cut_has_the_size_that_was_asked_for() -> None:
    cut = PartitionSpec(start_s=0.0, end_s=2.0, fraction=0.25)
    c = complete(40, partitions=[cut])
    send(c, 0.0, range(40))
    assert len(drain(c)) == 10 * 9 + 30 * 29


# ---------------------------------------------------------------- delays


def test_trace_delays_are_taken_in_order_or_at_random(tmp_path: Any) -> None:
    path = tmp_path / "delays.csv"
    path.write_text("# seconds\n0.1, 0.2\n0.7\n")
    in_order = LinkSpec.model_validate({"latency": {"kind": "trace", "path": str(path), "order": "in_order"}})
    c = carrier(links=in_order)
    assert [send(c, 0.0).arrival_s[0] for _ in range(7)] == [0.1, 0.2, 0.7, 0.1, 0.2, 0.7, 0.1]
    at_random = LinkSpec.model_validate({"latency": {"kind": "trace", "path": str(path)}})
    c = carrier(links=at_random)
    got = np.array([send(c, 0.0).arrival_s[0] for _ in range(3000)])
    values, counts = np.unique(got, return_counts=True)
    assert values.tolist() == [0.1, 0.2, 0.7]
    assert (abs(counts - 1000) < 4 * np.sqrt(3000 * 2 / 9)).all()


@pytest.mark.parametrize(
    ("latency", "quantiles"),
    [
        ({"kind": "uniform", "low_s": 1.0, "high_s": 3.0}, {0.25: 1.5, 0.5: 2.0}),
        ({"kind": "normal", "mean_s": 0.0, "std_s": 1.0}, {0.5: 0.6744897501960817}),  # half-normal
        (
            {"kind": "lognormal", "median_s": 0.1, "sigma": 0.5, "offset_s": 1.0},
            {0.5: 1.1, 0.8413447460685429: 1.1648721},
        ),
        ({"kind": "pareto", "minimum_s": 0.2, "shape": 2.0, "offset_s": 1.0}, {0.75: 1.4, 0.99: 3.0}),
    ],
)
def test_delays_have_the_quantiles_of_their_distribution(
    latency: dict[str, Any], quantiles: dict[float, float]
) -> None:
    c = complete(40, LinkSpec.model_validate({"latency": latency}))
    delays = np.concatenate([send(c, 0.0, range(40)).arrival_s for _ in range(8)])
    assert (delays >= 0.0).all()
    for level, value in quantiles.items():
        error = np.sqrt(level * (1 - level) / len(delays))
        assert abs((delays <= value).mean() - level) < 4 * error


# ---------------------------------------------------------------- checkpoint


def make_any(seed: int = 3) -> SimulatedCarrier:
    n = 18
    return carrier(
        n,
        RingPlusRandomTopology(share=0.4),
        mixed(n),
        seed=seed,
        partitions=[PartitionSpec(start_s=0.05, end_s=0.09, fraction=0.5)],
        link_overrides={(0, 1): LOSSY},
        max_age_s=0.2,
    )


def play(c: SimulatedCarrier, begin: int, end: int) -> list[Any]:
    """A fixed course of events from step to step; everything that can be seen of it."""
    rng = np.random.default_rng(begin)
    seen: list[Any] = []
    online = np.ones(c.n_agents, dtype=np.bool_)
    for k in range(begin, end):
        now = 0.004 * k
        senders = np.flatnonzero(rng.random(c.n_agents) < 0.4)
        sends = c.broadcast(now, senders, senders + k, int(rng.integers(1, 3000)))
        seen += [sends.tx_start_s, sends.arrival_s, sends.fate]
        online[rng.integers(c.n_agents)] ^= True
        seen += [*everything(c.drain(now, online)), np.array(c.next_arrival_s())]
        if k % 5 == 0:
            c.redraw(k + 1)
        if k % 7 == 0:
            seen.append(np.array(c.sender_off(now, senders[:2])))
    seen += [*list(c.link_table().values()), np.array(list(c.counts.as_dict().values()))]
    return seen


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    return isinstance(value, (np.ndarray, int, float, str))


@pytest.mark.parametrize("stop", [0, 1, 13, 40])
def test_a_carrier_goes_on_from_its_state_bit_for_bit(stop: int) -> None:
    original = make_any()
    play(original, 0, stop)
    state = original.state()
    assert plain(state)
    restored = make_any()
    play(restored, 0, 3)  # whatever it did before must not matter
    restored.load_state(state)
    for expected, got in zip(play(original, stop, stop + 40), play(restored, stop, stop + 40), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_state_is_a_copy() -> None:
    c = make_any()
    play(c, 0, 10)
    state = c.state()
    before = {name: np.array(column) for name, column in state["in_flight"].items()}
    taken = state["latency"]["taken"].copy()
    play(c, 10, 30)
    np.testing.assert_array_equal(state["latency"]["taken"], taken)
    for name, column in before.items():
        np.testing.assert_array_equal(state["in_flight"][name], column)


def test_a_state_of_another_format_is_refused() -> None:
    c = make_any()
    with pytest.raises(ValueError, match="format = 99: expected carrier state of format 1"):
        c.load_state({**c.state(), "format": 99})


def test_sums_do_not_depend_on_when_they_are_looked_at() -> None:
    once, often = complete(6, PLAIN), complete(6, PLAIN)
    for k in range(200):
        for c in (once, often):
            send(c, float(k), range(6))
            drain(c, k + 0.9)
        often.link_table()
    np.testing.assert_array_equal(once.link_table()["latency_mean_s"], often.link_table()["latency_mean_s"])


# ---------------------------------------------------------------- odd sizes


def test_nothing_is_sent_without_links_or_senders() -> None:
    c = carrier(3, EmptyTopology())
    assert len(send(c, 0.0, range(3)).sender) == 0
    assert len(send(complete(3), 0.0, ()).sender) == 0
    assert len(drain(c)) == 0 and c.next_arrival_s() == np.inf and c.counts.sent == 0
    assert c.link_table()["sender"].size == 0


def test_ten_thousand_agents_of_degree_eight() -> None:
    n = 10_000
    c = carrier(n, KRegularTopology(degree=8), LOSSY)
    send(c, 0.0, range(n))
    got = drain(c)
    assert c.counts.sent == 80_000 and len(got) == c.counts.delivered
    assert abs(c.counts.lost / 80_000 - 0.3) < 4 * np.sqrt(0.21 / 80_000)


def test_neighbours_agree_with_each_other() -> None:
    c = carrier(20, RingPlusRandomTopology(share=0.2))
    for number in range(1, 4):
        pairs = {(s, int(r)) for s in range(20) for r in c.out_neighbours(s)}
        assert pairs == {(int(s), r) for r in range(20) for s in c.in_neighbours(r)}
        assert pairs == set(c.graph.to_networkx().edges())
        c.redraw(number)
