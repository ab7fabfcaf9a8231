"""Loss on the way: independent or in bursts, per message or per packet, with or without retransmission."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrik

from network.spec import BernoulliLoss, GilbertElliottLoss, LinkSpec, NoLoss
from network.streams import (
    Bools,
    Floats,
    Ints,
    WordFamily,
    padded,
    unit_interval,
    word_stream,
    word_threshold,
)

_FOREVER = np.int64(2**62)
_UNKNOWN, _GOOD, _BAD = -1, 0, 1


class Passage(NamedTuple):
    """What became of some messages, one element each."""

    lost: Bools
    retries: Ints
    units_sent: Ints
    """Units (packets, or whole messages where loss is per message) put on the air, resends included."""


def binomial_quantile(uniform: Floats, trials: Ints, probability: float) -> Ints:
    """Smallest k with P(Binomial(trials, probability) <= k) >= uniform, elementwise."""
    if probability in (0.0, 1.0):
        return (trials * int(probability)).astype(np.int64)
    count = np.maximum(trials, 1)
    guess = np.ceil(bdtrik(uniform, count, probability))
    guess = np.where(uniform <= (1.0 - probability) ** count, 0.0, np.nan_to_num(guess))
    below = np.maximum(guess - 1.0, 0.0)
    exact = np.where(bdtr(below, count, probability) >= uniform, below, guess)
    return np.where(trials > 0, np.clip(exact, 0, count), 0).astype(np.int64)


class LossModel:
    """Losses of every link; a link's draws come from its own stream, taken in the order of its messages."""

    def __init__(
        self,
        specs: Sequence[LinkSpec],
        group_of: Callable[[Ints], Ints],
        ids: Callable[[Ints], Ints],
        family: WordFamily,
        width: int,
    ) -> None:
        self._specs = specs
        self._group_of = group_of
        self._words = word_stream(family, ids, width)
        self._thresholds = [
            word_threshold(spec.loss.probability if isinstance(spec.loss, BernoulliLoss) else 0.0)
            for spec in specs
        ]
        self._bursty = any(isinstance(spec.loss, GilbertElliottLoss) for spec in specs)
        self.active = any(not isinstance(spec.loss, NoLoss) for spec in specs)
        self._state = np.zeros(0, dtype=np.int8)
        self._sojourn: Ints = np.zeros(0, dtype=np.int64)

    def resize(self, links: int) -> None:
        if self.active:
            self._words.resize(links)
        if self._bursty:
            self._state = padded(self._state, links, _UNKNOWN)
            self._sojourn = padded(self._sojourn, links, 0)

    def units(self, group: int, packets: Ints) -> Ints:
        """How many independent pieces messages of so many packets have, as far as loss is concerned."""
        return packets if self._specs[group].loss_per == "packet" else np.ones_like(packets)

    def transmit(self, group: int, slots: Ints, packets: Ints) -> Passage:
        """Send one message of so many packets (int64 ``[m]``) over each link of one group of links."""
        spec = self._specs[group]
        units = self.units(group, packets)
        retries = np.zeros(len(slots), dtype=np.int64)
        if isinstance(spec.loss, NoLoss):
            return Passage(np.zeros(len(slots), dtype=np.bool_), retries, units)
        if spec.arq is None:
            return Passage(self._any_lost(group, slots, units), retries, units)
        sent = units.copy()
        missing = self._count_lost(spec, slots, units)
        for _ in range(spec.arq.max_retries):
            again = np.flatnonzero(missing)
            if again.size == 0:
                break
            retries[again] += 1
            sent[again] += missing[again]
            missing[again] = self._count_lost(spec, slots[again], missing[again])
        return Passage(missing > 0, retries, sent)

    def state(self) -> dict[str, Any]:
        return {"words": self._words.state(), "channel": self._state.copy(), "sojourn": self._sojourn.copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._words.load_state(state["words"])
        self._state = np.asarray(state["channel"], dtype=np.int8).copy()
        self._sojourn = np.asarray(state["sojourn"], dtype=np.int64).copy()

    # ------------------------------------------------------------ one attempt

    def _any_lost(self, group: int, slots: Ints, units: Ints) -> Bools:
        """Whether at least one unit of each message is lost."""
        spec = self._specs[group]
        if isinstance(spec.loss, BernoulliLoss):
            if spec.loss_per == "message":
                return np.asarray(self._words.take(slots) < self._thresholds[group])
            with np.errstate(divide="ignore"):
                all_pass = np.exp(units * np.log1p(-spec.loss.probability))
            return np.asarray(self._words.take(slots) < word_threshold(1.0 - all_pass))
        assert isinstance(spec.loss, GilbertElliottLoss)
        good, bad = self._advance(spec.loss, slots, units)
        pass_good, pass_bad = 1.0 - spec.loss.loss_good, 1.0 - spec.loss.loss_bad
        all_pass = pass_good**good * pass_bad**bad
        if {pass_good, pass_bad} <= {0.0, 1.0}:
            return np.asarray(all_pass == 0.0)
        return np.asarray(self._words.take(slots) < word_threshold(1.0 - all_pass))

    def _count_lost(self, spec: LinkSpec, slots: Ints, units: Ints) -> Ints:
        """How many units of each message are lost."""
        if isinstance(spec.loss, BernoulliLoss):
            return self._binomial(slots, units, spec.loss.probability)
        assert isinstance(spec.loss, GilbertElliottLoss)
        good, bad = self._advance(spec.loss, slots, units)
        return self._binomial(slots, good, spec.loss.loss_good) + self._binomial(
            slots, bad, spec.loss.loss_bad
        )

    def _binomial(self, slots: Ints, trials: Ints, probability: float) -> Ints:
        if probability in (0.0, 1.0):
            return trials * int(probability)
        words = self._words.take(slots)
        lost = (words < word_threshold(probability)).astype(np.int64)
        several = np.flatnonzero(trials != 1)
        if several.size:
            uniform = 1.0 - unit_interval(words[several])
            lost[several] = binomial_quantile(uniform, trials[several], probability)
        return lost

    # ------------------------------------------------------------ Gilbert-Elliott

    def _advance(self, loss: GilbertElliottLoss, slots: Ints, steps: Ints) -> tuple[Ints, Ints]:
        """Move each link's chain by so many steps; how many of them were in the good and the bad state.

        Sojourns are geometric, so a chain jumps from change to change instead of from step to step.
        """
        leave = (loss.p_good_to_bad, loss.p_bad_to_good)
        unknown = slots[self._state[slots] == _UNKNOWN]
        if unknown.size:
            bad_start = self._words.take(unknown) < word_threshold(loss.stationary_bad)
            self._state[unknown] = np.where(bad_start, _BAD, _GOOD)
            self._sojourn[unknown] = self._draw_sojourns(unknown, leave)
        counts = np.zeros((len(slots), 2), dtype=np.int64)
        left = steps.astype(np.int64, copy=True)
        moving = np.flatnonzero(left)
        while moving.size:
            here = slots[moving]
            ended = here[self._sojourn[here] == 0]
            if ended.size:
                self._state[ended] = 1 - self._state[ended]
                self._sojourn[ended] = self._draw_sojourns(ended, leave)
            taken = np.minimum(left[moving], self._sojourn[here])
            counts[moving, self._state[here]] += taken
            self._sojourn[here] -= taken
            left[moving] -= taken
            moving = moving[left[moving] > 0]
        return counts[:, _GOOD], counts[:, _BAD]

    def _draw_sojourns(self, slots: Ints, leave: tuple[float, float]) -> Ints:
        """Steps until each link's chain leaves its present state, at least 1: geometric."""
        uniform = unit_interval(self._words.take(slots))
        steps = np.empty(len(slots), dtype=np.int64)
        for state, probability in enumerate(leave):
            chosen = np.flatnonzero(self._state[slots] == state)
            if probability == 0.0:
                steps[chosen] = _FOREVER
            elif probability == 1.0:
                steps[chosen] = 1
            else:
                steps[chosen] = 1 + np.floor(np.log(uniform[chosen]) / np.log1p(-probability)).astype(
                    np.int64
                )
        return steps
