"""Simulated messages per second, learning switched off: `python -m benchmarks.network [--repeats N]`.

Every message crosses a link with 10 per cent loss and lognormal delay and ends in its receiver's mailbox,
which keeps the newest version per link. SimPy drives both sides in the same run, and neither uses more than
one thread. Ours: one event per broadcast, with the carrier's arrays. The reference: one SimPy timeout and
callback per message and lists as mailboxes, with random numbers from Python's own generator.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from rich.console import Console
from rich.table import Table

from f2a2_sim.randomness import Streams
from network.carrier import SimulatedCarrier
from network.spec import (
    BernoulliLoss,
    CompleteTopology,
    KRegularTopology,
    LinkSpec,
    LognormalLatency,
    TopologySpec,
)

LOSS, MEDIAN_S, SIGMA, PERIOD_S, SIZE_BYTES = 0.1, 0.02, 0.5, 0.1, 100_000
LINK = LinkSpec(
    latency=LognormalLatency(median_s=MEDIAN_S, sigma=SIGMA), loss=BernoulliLoss(probability=LOSS)
)


@dataclass(frozen=True)
class Case:
    """A graph, a way of sending, and how many rounds each side is measured for."""

    name: str
    n_agents: int
    topology: TopologySpec
    synchronous: bool
    rounds: int
    reference_rounds: int


CASES = [
    Case("256 complete", 256, CompleteTopology(), True, 24, 3),
    Case("256 complete", 256, CompleteTopology(), False, 12, 3),
    Case("1,024 degree 8", 1024, KRegularTopology(degree=8), True, 128, 16),
    Case("1,024 degree 8", 1024, KRegularTopology(degree=8), False, 24, 16),
    Case("10,000 degree 8", 10_000, KRegularTopology(degree=8), True, 64, 2),
    Case("10,000 degree 8", 10_000, KRegularTopology(degree=8), False, 3, 2),
]
WARM_UP_ROUNDS = 1


class Ours:
    """The carrier between SimPy events and an array mailbox."""

    def __init__(self, case: Case) -> None:
        self.n_agents = case.n_agents
        self.carrier = SimulatedCarrier(case.n_agents, case.topology, LINK, Streams(1, 0))
        self.link_ids = self.carrier.graph.ids
        self.newest = np.full(len(self.link_ids), -1, dtype=np.int64)
        self.online = np.ones(case.n_agents, dtype=np.bool_)
        self.synchronous = case.synchronous
        self.env = simpy.Environment()
        if case.synchronous:
            self.after(0.0, self.round, 0)
        else:
            for agent in range(case.n_agents):
                self.after(
                    PERIOD_S * agent / case.n_agents, self.turn, (np.array([agent]), np.zeros(1, np.int64))
                )

    def after(self, delay_s: float, action: Callable[[Any], None], value: Any) -> None:
        event = self.env.timeout(delay_s, value)
        assert event.callbacks is not None
        event.callbacks.append(lambda done: action(done.value))

    def round(self, number: int) -> None:
        everyone = np.arange(self.n_agents)
        self.receive()
        self.carrier.broadcast(self.env.now, everyone, np.full(self.n_agents, number), SIZE_BYTES)
        self.after(PERIOD_S, self.round, number + 1)

    def turn(self, agent_and_version: tuple[Any, Any]) -> None:
        agent, version = agent_and_version
        self.receive()
        self.carrier.broadcast(self.env.now, agent, version, SIZE_BYTES)
        self.after(PERIOD_S, self.turn, (agent, version + 1))

    def receive(self) -> None:
        got = self.carrier.drain(self.env.now, self.online)
        if len(got):
            link = np.searchsorted(self.link_ids, got.sender * self.n_agents + got.receiver)
            np.maximum.at(self.newest, link, got.version)

    def messages(self) -> int:
        return self.carrier.counts.sent


class OneEventPerMessage:
    """A SimPy timeout with a callback for each message, and a list as each agent's mailbox."""

    def __init__(self, case: Case) -> None:
        graph = SimulatedCarrier(case.n_agents, case.topology, LINK, Streams(1, 0)).graph
        self.neighbours = [graph.neighbours(agent).tolist() for agent in range(case.n_agents)]
        self.mailboxes: list[list[tuple[int, int]]] = [[] for _ in range(case.n_agents)]
        self.random = random.Random(1)
        self.sent = 0
        self.env = simpy.Environment()
        for agent in range(case.n_agents):
            start = 0.0 if case.synchronous else PERIOD_S * agent / case.n_agents
            self.after(start, self.turn, (agent, 0))

    def after(self, delay_s: float, action: Callable[[Any], None], value: Any) -> None:
        event = self.env.timeout(delay_s, value)
        assert event.callbacks is not None
        event.callbacks.append(action)

    def turn(self, event: Any) -> None:
        agent, version = event.value
        self.mailboxes[agent].clear()
        for receiver in self.neighbours[agent]:
            self.sent += 1
            if self.random.random() >= LOSS:
                delay_s = MEDIAN_S * self.random.lognormvariate(0.0, SIGMA)
                self.after(delay_s, self.arrive, (receiver, agent, version))
        self.after(PERIOD_S, self.turn, (agent, version + 1))

    def arrive(self, event: Any) -> None:
        receiver, sender, version = event.value
        self.mailboxes[receiver].append((sender, version))

    def messages(self) -> int:
        return self.sent


def rate(side: Ours | OneEventPerMessage, rounds: int) -> float:
    """Messages per second of wall time over so many further rounds."""
    before, start = side.messages(), time.perf_counter()
    side.env.run(until=side.env.now + rounds * PERIOD_S)
    return (side.messages() - before) / (time.perf_counter() - start)


def measure(case: Case, repeats: int) -> tuple[float, float]:
    """Median rates of ours and of the reference, measured in turns."""
    ours, reference = Ours(case), OneEventPerMessage(case)
    rate(ours, WARM_UP_ROUNDS)
    rate(reference, WARM_UP_ROUNDS)
    rates = [(rate(ours, case.rounds), rate(reference, case.reference_rounds)) for _ in range(repeats)]
    return statistics.median(r[0] for r in rates), statistics.median(r[1] for r in rates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of which the median counts")
    repeats = parser.parse_args().repeats
    table = Table(title=f"Simulated messages per second, one thread, median of {repeats}")
    for column in ("graph", "senders", "carrier", "one event per message", "ratio"):
        table.add_column(column, justify="left" if column in ("graph", "senders") else "right")
    for case in CASES:
        ours, reference = measure(case, repeats)
        senders = "in rounds" if case.synchronous else "each on its own"
        table.add_row(case.name, senders, f"{ours:,.0f}", f"{reference:,.0f}", f"{ours / reference:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
