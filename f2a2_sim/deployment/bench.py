"""How long one agent's work takes on this machine: acting, updating and averaging at their real shapes.

The agent is built as a deployed one is, and its replay filled with what its world shows first. With others
``beside`` it, as many processes do the same at once: two processors shared by sixteen agents are no idle
processor, and a profile has to say what an agent really gets.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from devices.compute import Work
from f2a2_sim.errors import RunError
from f2a2_sim.randomness import Streams
from f2a2_sim.scenario.fleet import plan_fleet
from f2a2_sim.scenario.load import dump_scenario, parse_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_population, build_world
from f2a2_sim.simulator.exchange import mix_work
from network.carrier import SimulatedCarrier

FloatArray = NDArray[np.float64]
PARTS = ("act", "update", "mix")
"""The pieces of work; a scenario without consensus has no mix."""

_AGENT = 0
_MOST_TRANSITIONS = 100_000
_FEWEST = 5  # repetitions of each piece of work, however long they take
_START_S = 300.0  # for all processes to be ready
_MATRIX = 1024
_FLOPS_OF_MATRIX = 2.0 * _MATRIX**3


@dataclass(frozen=True)
class Timing:
    """Seconds that each repetition of one piece of work took, and what the model counts it for."""

    work: Work
    seconds: FloatArray

    @property
    def median_s(self) -> float:
        return float(np.median(self.seconds))

    @property
    def sigma(self) -> float:
        """Spread as that of a lognormal: from the 10 % and the 90 % quantile."""
        low, high = np.quantile(self.seconds, [0.1, 0.9])
        return float(np.log(high / low) / 2.563)


@dataclass(frozen=True)
class Bench:
    """What was measured: the agent's work, and the machine's own rates under the same load."""

    timings: dict[str, Timing]
    launch_s: float
    """Of the smallest operation."""
    flops_per_s: float
    """Reached by a product of two large matrices."""
    bytes_per_s: float
    """Reached by adding two vectors as long as the parameters, each operand and the result counted."""
    peak_memory_bytes: int
    """Of one agent's process."""
    processes: int
    threads: int


class AgentWork:
    """One agent of the scenario, ready to act, to update and to average."""

    def __init__(self, scenario: Scenario) -> None:
        world = build_world(scenario)
        n = len(world.agents)
        streams = Streams(scenario.seed, dense_ids=n)
        carrier = SimulatedCarrier(
            n, scenario.network.topology, plan_fleet(scenario, n).links, streams, scenario.network.partitions
        )
        here = np.array([_AGENT])
        self._population = build_population(scenario, world, carrier, streams, torch.device("cpu"), here=here)
        self._me = here
        self._fleet, self._row = self._population.fleet_of(_AGENT)
        self._neighbours = self._population.senders_in(self._fleet, carrier.in_neighbours(_AGENT))
        self._round = 0
        self._fill(world)

    @property
    def works(self) -> dict[str, Work]:
        """What the model of devices counts each piece of work for."""
        found = {"act": self._fleet.learner.act_work(), "update": self._fleet.learner.update_work()}
        if self._fleet.consensus is not None:
            found["mix"] = mix_work(len(self._neighbours), self._fleet.consensus.message_bytes)
        return found

    @property
    def message_bytes(self) -> int:
        """Size of a copy of the shared parameters as a message; 0 without consensus."""
        return 0 if self._fleet.consensus is None else self._fleet.consensus.message_bytes

    @property
    def parameters(self) -> int:
        """How many numbers the agent trains."""
        return int(self._fleet.learner.parameters.shape[1])

    def _fill(self, world: Any) -> None:
        """Remember what the world shows at its start, until an update is possible, and then as much again."""
        population, n = self._population, len(world.agents)
        step = world.reset(0)
        shape = (n,) if world.rollouts == 1 else (n, world.rollouts)
        population.observe(step.observations)
        enough = None
        for count in range(_MOST_TRANSITIONS):
            population.act(np.arange(n) if len(self._fleet.ids) == n else self._me)
            population.observe(step.observations)
            nothing = np.zeros(shape, dtype=np.float32)
            population.remember(self._me, nothing, np.zeros(n, dtype=np.bool_), np.array(population.actions))
            if enough is None and population.can_update(self._me).all():
                enough = 2 * (count + 1)
            if enough is not None and count >= enough:
                return
        raise RunError(
            f"after {_MOST_TRANSITIONS:,} transitions the learner cannot update yet; "
            "lower learner.batch_size or what it waits for"
        )

    def act(self) -> None:
        self._population.act(self._me)

    def update(self) -> None:
        self._population.update(self._me)

    def prepare_mix(self) -> None:
        """Put a copy of each neighbour into the mailbox, as if it had just come."""
        group = self._fleet.consensus
        assert group is not None
        self._round += 1
        own = np.array([self._row])
        group.publish(own, np.array([len(self._neighbours)]), np.array([self._round]), np.empty(0, np.int64))
        shared = self._fleet.learner.shared_parameters()[self._row].clone().to(group.pool.rows[0].dtype)
        for sender in self._neighbours.tolist():
            version = group.admit(shared, 1.0, self._round)
            group.deliver(own, np.array([sender]), np.array([version]), np.zeros(1))

    def mix(self) -> None:
        group = self._fleet.consensus
        assert group is not None
        group.combine(self._row, 0.0, self._round, self._neighbours)
        group.flush()


def measure(scenario: Scenario, seconds: float, threads: int = 1, beside: int = 1) -> Bench:
    """Time one agent's work for about ``seconds``, in ``beside`` processes at once (1: in this one alone).

    Raises RunError if a process fails or is not ready in time.
    """
    if beside == 1:
        return _Measurement(scenario, threads).run(seconds)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["f2a2_sim.deployment.bench"])
    barrier = context.Barrier(beside + 1)
    text = dump_scenario(scenario)
    ends = [context.Pipe(duplex=False) for _ in range(beside)]
    processes = [
        context.Process(target=_bench_process, args=(text, seconds, threads, barrier, end), daemon=True)
        for _, end in ends
    ]
    try:
        for process, (_, theirs) in zip(processes, ends, strict=True):
            process.start()
            theirs.close()
        try:
            barrier.wait(_START_S)
        except Exception as error:  # of threading: a process has died, or time is over
            raise RunError(
                f"not all of {beside} processes were ready to be timed; is there memory for them?"
            ) from error
        results = []
        for ours, _ in ends:
            if not ours.poll(4.0 * seconds + 60.0):
                raise RunError("a process that is timed does not answer any more")
            results.append(ours.recv())
    except EOFError as error:
        raise RunError("a process that was timed has died") from error
    finally:
        for process in processes:
            process.join(2.0)
            if process.is_alive():
                process.terminate()
    return _together(results)


def _bench_process(text: str, seconds: float, threads: int, barrier: Any, end: Any) -> None:
    measurement = _Measurement(parse_scenario(text), threads)
    barrier.wait(_START_S)
    end.send(measurement.run(seconds, beside=barrier.parties - 1))
    end.close()


class _Measurement:
    def __init__(self, scenario: Scenario, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        self._threads = threads
        self._work = AgentWork(scenario)
        self._works = self._work.works
        self._acts = max(1, scenario.learner.update_every_steps)
        self._updates = max(1, round(scenario.consensus.interval.mean_updates))
        self._turn()  # first calls allocate and compile

    def _turn(self) -> dict[str, list[float]]:
        """What an agent does from one consensus round to the next; seconds of each piece."""
        taken: dict[str, list[float]] = {name: [] for name in self._works}
        for _ in range(self._updates):
            for _ in range(self._acts):
                taken["act"].append(_seconds(self._work.act))
            taken["update"].append(_seconds(self._work.update))
        if "mix" in taken:
            self._work.prepare_mix()
            taken["mix"].append(_seconds(self._work.mix))
        return taken

    def run(self, seconds: float, beside: int = 1) -> Bench:
        until_s = time.monotonic() + 0.8 * seconds
        taken: dict[str, list[float]] = {name: [] for name in self._works}
        while time.monotonic() < until_s or min(map(len, taken.values())) < _FEWEST:
            for name, values in self._turn().items():
                taken[name] += values
        rates_s = 0.2 * seconds / 3
        one = torch.zeros(1)
        launch_s = _median_seconds(lambda: one.add_(1.0), rates_s)
        a, b = torch.ones(_MATRIX, _MATRIX), torch.ones(_MATRIX, _MATRIX)
        product_s = _median_seconds(lambda: torch.mm(a, b), rates_s)
        u, v = torch.ones(self._work.parameters), torch.ones(self._work.parameters)
        result = torch.empty_like(u)
        add_s = _median_seconds(lambda: torch.add(u, v, out=result), rates_s)
        return Bench(
            timings={name: Timing(self._works[name], np.array(taken[name])) for name in self._works},
            launch_s=launch_s,
            flops_per_s=_FLOPS_OF_MATRIX / product_s,
            bytes_per_s=3 * 4 * self._work.parameters / add_s,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            processes=beside,
            threads=self._threads,
        )


def _together(benches: list[Bench]) -> Bench:
    """One bench of several processes: all their repetitions, and medians of their rates."""
    first = benches[0]
    return Bench(
        timings={
            name: Timing(timing.work, np.concatenate([b.timings[name].seconds for b in benches]))
            for name, timing in first.timings.items()
        },
        launch_s=float(np.median([b.launch_s for b in benches])),
        flops_per_s=float(np.median([b.flops_per_s for b in benches])),
        bytes_per_s=float(np.median([b.bytes_per_s for b in benches])),
        peak_memory_bytes=max(b.peak_memory_bytes for b in benches),
        processes=len(benches),
        threads=first.threads,
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median_seconds(work: Callable[[], object], for_s: float) -> float:
    work()
    until_s = time.monotonic() + for_s
    taken: list[float] = []
    while time.monotonic() < until_s or len(taken) < _FEWEST:
        taken.append(_seconds(work))
    return float(np.median(taken))
