"""Mailboxes keep the newest copy, whatever order messages arrive in, and respect age and rounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.consensus.mailbox import Mailbox


def put(box: Mailbox, receiver: int, sender: int, version: int, sent_s: float, number: int = 0) -> None:
    box.put(*(np.array([x]) for x in (receiver, sender, version)), np.array([sent_s]), np.array([number]))


@given(st.permutations(list(range(6))))
def test_the_newest_copy_wins_in_any_order(order: list[int]) -> None:
    box = Mailbox(3, 3, synchronous=False)
    for version in order:
        put(box, 0, 1, version, float(version))
    copies = box.copies(0, 1, -np.inf, None)
    assert copies.versions.tolist() == [5]
    assert copies.sent_s.tolist() == [5.0]


def test_many_deliveries_at_once_leave_the_newest_of_each_sender() -> None:
    box = Mailbox(3, 3, synchronous=False)
    receivers, senders = np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0])
    box.put(receivers, senders, np.array([7, 3, 5, 6]), np.arange(4.0), np.zeros(4, dtype=np.int64))
    assert box.copies(0, 1, -np.inf, None).versions.tolist() == [7, 5]
    assert box.copies(1, 1, -np.inf, None).versions.tolist() == [6]


def test_old_copies_and_strangers_are_left_out() -> None:
    box = Mailbox(4, 4, synchronous=False)
    for sender, sent_s in ((1, 1.0), (2, 2.0), (3, 3.0)):
        put(box, 0, sender, sender, sent_s)
    assert box.copies(0, 1, 2.0, None).senders.tolist() == [2, 3]
    assert box.copies(0, 1, 0.0, np.array([1, 3])).senders.tolist() == [1, 3]


def test_synchronous_rounds_do_not_mix() -> None:
    """A neighbour one round ahead does not hide the copy that is needed now."""
    box = Mailbox(3, 3, synchronous=True)
    put(box, 0, 1, 10, 1.0, number=4)
    put(box, 0, 1, 11, 2.0, number=5)
    assert box.copies(0, 4, -np.inf, None).versions.tolist() == [10]
    assert box.copies(0, 5, -np.inf, None).versions.tolist() == [11]
    assert not box.has_round(0, np.array([1]), 6)
    assert box.has_round(0, np.array([1]), 4)
    assert not box.has_round(0, np.array([1, 2]), 4)


def test_what_was_used_goes_and_what_came_early_stays() -> None:
    box = Mailbox(2, 2, synchronous=True)
    put(box, 0, 1, 10, 1.0, number=4)
    put(box, 0, 1, 11, 2.0, number=5)
    put(box, 1, 0, 12, 2.0, number=4)
    box.used(0, 4)
    assert sorted(box.referenced_versions().tolist()) == [11, 12]
    assert box.has_round(0, np.array([1]), 5)
    box.used(0, 6)
    assert box.referenced_versions().tolist() == [12]


def test_clearing_forgets_one_receiver_only() -> None:
    box = Mailbox(2, 2, synchronous=False)
    put(box, 0, 1, 1, 0.0)
    put(box, 1, 0, 2, 0.0)
    box.clear(0)
    assert box.copies(0, 1, -np.inf, None).versions.size == 0
    assert box.referenced_versions().tolist() == [2]
