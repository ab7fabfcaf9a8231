"""What the carrier of a deployment moves under load, beside what ZeroMQ's own sockets move on the same links.

    python -m benchmarks.transport [--agents 64] [--minutes 10] [--processes 2] [--message-bytes 1500000]

Agents on a ring with 20 % of the other edges send their neighbours copies of parameters over CURVE, as fast
as these are taken: an agent goes on speaking until half of its sockets have no room. Each has its own keys
and its own ZeroMQ context; if there are fewer processes than agents, a loop serves several in turn. In
slices that alternate with the carrier's, PUSH and PULL sockets with the same keys, marks and processes are
kept full of one ready frame of as many bytes along the same edges: no header, no check, no copy. Between
slices everything that is under way is read and not counted. Latency is from the broadcast to the delivery;
where all queues are full it is what they hold over what is moved. Memory is all processes' resident memory,
at its highest in each of the carrier's slices.

Interrupt it (Ctrl-C) for the figures so far.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import multiprocessing.connection
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
import zmq
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from f2a2_sim.deployment.remote import AgentCargo, CopyCargo
from f2a2_sim.randomness import Streams
from network.keys import Identity, Members, agent_name
from network.sockets import Inbox, Outbox, Security
from network.spec import RingPlusRandomTopology
from network.streams import generator
from network.topology import build_graph
from network.wire import Limits
from network.zmq_carrier import ZmqCarrier

TOPOLOGY = RingPlusRandomTopology(share=0.2, redraw="never")
SEED = 1
SLICE_S = 15.0
QUIET_S = 1.0
"""What is under way has been read when nothing has come for so long."""
PAUSE_S = 20.0
"""The longest that may take."""
UNSENT, UNREAD = 2, 2
"""Messages that a link's sockets hold at its two ends."""
CONNECT_S = 120.0
CLOSE_S = 10.0
POLL_MS = 10
SIDES = ("carrier", "plain sockets")


Slices = dict[str, list[list[Any]]]
"""By side and slice, what each process has told."""


@dataclass(frozen=True)
class Job:
    """What the processes are to do."""

    agents: int
    processes: int
    message_bytes: int
    public_keys: list[str]
    secret_keys: list[str]

    def agents_of(self, process: int) -> list[int]:
        return list(range(process, self.agents, self.processes))


# ---------------------------------------------------------------- one agent


class Rows:
    """As much of a consensus group as copies of parameters need: its own row, and one for what arrives."""

    def __init__(self, width: int) -> None:
        self.pool = SimpleNamespace(rows=torch.zeros((1, width)))
        self.own = torch.randn(width)

    def content(self, version: int) -> tuple[torch.Tensor, float, int]:
        return self.own, 0.0, version

    def admit(self, values: torch.Tensor, number: float, round_number: int) -> int:
        self.pool.rows[0].copy_(values)
        return round_number


class Speaker:
    """An agent with its carrier."""

    def __init__(self, job: Job, agent: int, stack: ExitStack) -> None:
        members = Members({agent_name(k): key for k, key in enumerate(job.public_keys)})
        identity = Identity(agent_name(agent), job.public_keys[agent], job.secret_keys[agent])
        self._security = Security.curve(identity, members)
        self._context: zmq.Context[Any] = zmq.Context()
        stack.callback(self._context.destroy, linger=0)
        stack.callback(self._security.close)
        self.inbox = Inbox(self._context, self._security, Limits(), UNREAD)
        self.endpoint = self.inbox.bind("tcp://127.0.0.1:*")
        self._boxes: dict[int, Outbox] = {}
        self.carrier = ZmqCarrier(
            job.agents, agent, TOPOLOGY, Streams(SEED, 0), self.inbox, self._boxes.__getitem__, agent
        )
        self.carrier.cargo = AgentCargo(CopyCargo(Rows(job.message_bytes // 4)), None)  # type: ignore[arg-type]
        self._neighbours = self.carrier.out_neighbours(agent).tolist()
        self._me = np.array([agent])
        self._size = job.message_bytes
        self._everybody = np.ones(job.agents, dtype=np.bool_)
        self._round = itertools.count()
        self.messages = 0
        self.latencies_s: list[float] = []

    @property
    def socket(self) -> zmq.Socket[bytes]:
        return self.inbox.socket

    def connect(self, endpoints: list[str]) -> list[zmq.Socket[bytes]]:
        for peer in self._neighbours:
            box = self._boxes[peer] = Outbox(self._context, self._security, agent_name(peer), UNSENT)
            box.connect(endpoints[peer])
        return [box.socket for box in self._boxes.values()]

    def hear(self) -> int:
        got = self.carrier.drain(time.monotonic(), self._everybody)
        if len(got):
            self.latencies_s += (time.monotonic() - got.sent_s).tolist()
            self.messages += len(got)
        return len(got)

    def speak(self) -> None:
        self.flush()
        while 2 * sum(bool(box.waiting) for box in self._boxes.values()) <= len(self._boxes):
            now_s = time.monotonic()
            self.carrier.broadcast(now_s, self._me, np.array([next(self._round)]), self._size)

    def flush(self) -> None:
        """Send what waits."""
        self.carrier.pump(time.monotonic())

    def refusals(self) -> int:
        return self.carrier.unusable + sum(self.inbox.counts.values())


class PlainSpeaker:
    """An agent with sockets of pyzmq and nothing else."""

    def __init__(self, job: Job, agent: int, stack: ExitStack) -> None:
        self._job, self._agent = job, agent
        self._context: zmq.Context[Any] = zmq.Context()
        stack.callback(self._context.destroy, linger=0)
        self.socket = self._secure(self._context.socket(zmq.PULL), UNREAD)
        self.socket.curve_server = True
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        graph = build_graph(TOPOLOGY, job.agents, generator(Streams(SEED, 0).family("topology"), 0))
        self._neighbours = graph.neighbours(agent).tolist()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._frame = zmq.Frame(np.random.default_rng(agent).bytes(job.message_bytes))
        self.messages = 0
        self.latencies_s: list[float] = []

    def _secure(self, socket: zmq.Socket[bytes], high_water_mark: int) -> zmq.Socket[bytes]:
        socket.set_hwm(high_water_mark)
        socket.curve_publickey = self._job.public_keys[self._agent].encode()
        socket.curve_secretkey = self._job.secret_keys[self._agent].encode()
        return socket

    def connect(self, endpoints: list[str]) -> list[zmq.Socket[bytes]]:
        for peer in self._neighbours:
            socket = self._secure(self._context.socket(zmq.PUSH), UNSENT)
            socket.immediate = True
            socket.curve_serverkey = self._job.public_keys[peer].encode()
            socket.connect(endpoints[peer])
            self._sockets.append(socket)
        return self._sockets

    def hear(self) -> int:
        count = 0
        try:
            while True:
                self.socket.recv(zmq.NOBLOCK, copy=False)
                count += 1
        except zmq.Again:
            self.messages += count
            return count

    def speak(self) -> None:
        for socket in self._sockets:
            try:
                while True:
                    socket.send(self._frame, zmq.NOBLOCK)
            except zmq.Again:
                continue

    def flush(self) -> None:
        """Nothing waits outside of the sockets."""

    def refusals(self) -> int:
        return 0


# ---------------------------------------------------------------- one process


def process_main(job: Job, number: int, pipe: multiprocessing.connection.Connection) -> None:
    """Serve some agents: told what to do for how long, tells what was delivered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process will say when it is over
    torch.set_num_threads(1)
    with ExitStack() as stack:
        numbers = job.agents_of(number)
        sides: dict[str, list[Any]] = {
            "carrier": [Speaker(job, agent, stack) for agent in numbers],
            "plain sockets": [PlainSpeaker(job, agent, stack) for agent in numbers],
        }
        pipe.send({side: [speaker.endpoint for speaker in speakers] for side, speakers in sides.items()})
        endpoints = pipe.recv()
        for side, speakers in sides.items():
            for speaker in speakers:
                for socket in speaker.connect(endpoints[side]):
                    if not socket.poll(round(1000 * CONNECT_S), zmq.POLLOUT):
                        raise TimeoutError(f"a link does not stand after {CONNECT_S} s")
        pipe.send("ready")
        while (told := pipe.recv()) is not None:
            side, end_s = told
            pipe.send(serve(sides[side], end_s, pipe))


def serve(speakers: list[Any], end_s: float, pipe: multiprocessing.connection.Connection) -> dict[str, Any]:
    """Let the speakers speak and hear until then, and afterwards only hear what is still under way."""
    poller = zmq.Poller()
    for speaker in speakers:
        poller.register(speaker.socket, zmq.POLLIN)
        speaker.messages, speaker.latencies_s = 0, []
    cpu_s, begin_s = time.process_time(), time.monotonic()
    while time.monotonic() < end_s and not pipe.poll():
        for speaker in speakers:
            speaker.hear()
            speaker.speak()
        poller.poll(POLL_MS)
    told = {
        "messages": sum(speaker.messages for speaker in speakers),
        "seconds": time.monotonic() - begin_s,
        "cpu_s": time.process_time() - cpu_s,
        "latencies_s": [latency for speaker in speakers for latency in speaker.latencies_s],
    }
    heard_s = time.monotonic()
    while time.monotonic() < min(heard_s + QUIET_S, end_s + PAUSE_S) and not pipe.poll():
        for speaker in speakers:
            speaker.flush()
        if sum(speaker.hear() for speaker in speakers):
            heard_s = time.monotonic()
        else:
            poller.poll(POLL_MS)
    told["pause_s"] = time.monotonic() - end_s
    told["refusals"] = sum(speaker.refusals() for speaker in speakers)
    told["counts"] = [speaker.carrier.counts.as_dict() for speaker in speakers if hasattr(speaker, "carrier")]
    return told


# ---------------------------------------------------------------- all of them


class Hosts:
    """The processes, and what they tell."""

    def __init__(self, job: Job) -> None:
        method = multiprocessing.get_context("fork")  # libraries are shared, and nothing has a thread yet
        self._pipes, self._processes = [], []
        for number in range(job.processes):
            here, there = method.Pipe()
            process = method.Process(target=process_main, args=(job, number, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        self._watched = [psutil.Process(process.pid) for process in self._processes]
        endpoints: dict[str, list[str]] = {side: [""] * job.agents for side in SIDES}
        for number, told in enumerate(self.answers(CONNECT_S)):
            for side, addresses in told.items():
                for agent, address in zip(job.agents_of(number), addresses, strict=True):
                    endpoints[side][agent] = address
        self.tell(endpoints)
        self.answers(2 * CONNECT_S)

    def tell(self, what: Any) -> None:
        for pipe in self._pipes:
            pipe.send(what)

    def answers(self, within_s: float, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
        """One answer of each process."""
        deadline_s = time.monotonic() + within_s
        for pipe in self._pipes:
            while not pipe.poll(0.25):
                meanwhile()
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"a process has not answered within {within_s:.0f} s")
        return [pipe.recv() for pipe in self._pipes]

    def resident_bytes(self) -> int:
        """Without the pages of files."""
        memory = [process.memory_info() for process in self._watched]
        return sum(of.rss - of.shared for of in memory)

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with suppress(OSError):
                pipe.send(None)
            deadline_s = time.monotonic() + CLOSE_S
            with suppress(EOFError, OSError):
                while process.is_alive() and time.monotonic() < deadline_s:
                    if pipe.poll(0.1):
                        pipe.recv()  # what it had to say when it was interrupted
            if process.is_alive():
                process.terminate()
            process.join()


def measure(hosts: Hosts, minutes: float) -> tuple[Slices, list[tuple[float, float]]]:
    """What each process tells; and (seconds, highest resident bytes) of each of the carrier's slices."""
    told: Slices = {side: [] for side in SIDES}
    memory: list[tuple[float, float]] = []
    peak = 0
    begin_s = time.monotonic()
    slice_s = min(SLICE_S, 60.0 * minutes / 8)
    with Progress() as progress:
        task = progress.add_task("", total=60.0 * minutes)

        def note() -> None:
            nonlocal peak
            progress.update(task, completed=time.monotonic() - begin_s)
            peak = max(peak, hosts.resident_bytes())

        try:
            for side in itertools.cycle(SIDES):
                progress.update(task, description=side)
                hosts.tell((side, time.monotonic() + slice_s))
                peak = 0
                told[side].append(hosts.answers(slice_s + 2 * PAUSE_S, note))
                if side == "carrier":
                    memory.append((time.monotonic() - begin_s, float(peak)))
                if side == SIDES[-1] and time.monotonic() > begin_s + 60.0 * minutes:
                    break
        except KeyboardInterrupt:
            progress.update(task, description="interrupted")
    return told, memory


def rates(slices: list[list[Any]]) -> list[float]:
    """Messages per second in each slice, of all processes."""
    return [sum(told["messages"] / told["seconds"] for told in answers) for answers in slices]


def show(job: Job, told: Slices, memory: list[tuple[float, float]], links: int) -> None:
    title = f"{job.agents} agents, {links} links, {job.processes} processes, {job.message_bytes:,} bytes each"
    table = Table(title=title)
    for column in ("", "slices", "MB/s", "messages/s", "processor s per GB", "cores", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    pairs = list(zip(*(rates(told[side]) for side in SIDES), strict=False))
    for side in SIDES:
        slices = told[side]
        if not slices:
            continue
        rate = statistics.mean(rates(slices))
        everything = [answer for answers in slices for answer in answers]
        moved = job.message_bytes * sum(answer["messages"] for answer in everything)
        cost = sum(answer["cpu_s"] for answer in everything) / (moved / 1e9) if moved else float("nan")
        ratio = (
            f"{statistics.mean(a for a, _ in pairs) / statistics.mean(b for _, b in pairs):.2f}"
            if pairs
            else ""
        )
        table.add_row(
            side,
            str(len(slices)),
            f"{rate * job.message_bytes / 1e6:,.0f}",
            f"{rate:,.0f}",
            f"{cost:.2f}",
            f"{cost * rate * job.message_bytes / 1e9:.2f}",
            ratio if side == "carrier" else "1.00",
        )
    console = Console()
    console.print(table)
    if pairs:
        console.print("ratio by pair of slices: " + ", ".join(f"{a / b:.2f}" for a, b in pairs))
    slices = told["carrier"]
    latencies = np.array([s for answers in slices for answer in answers for s in answer["latencies_s"]])
    if latencies.size:
        p50, p99 = np.percentile(latencies, [50, 99])
        console.print(f"latency: p50 {p50:.2f} s, p99 {p99:.2f} s, longest {latencies.max():.2f} s")
    if slices:
        totals = {
            name: sum(counts[name] for answer in slices[-1] for counts in answer["counts"])
            for name in ("sent", "delivered", "queue_dropped", "in_flight")
        }
        console.print(
            ", ".join(f"{name} {value:,}" for name, value in totals.items())
            + f", refused {sum(answer['refusals'] for answer in slices[-1])}"
            + f", not accounted for {totals['sent'] - sum(v for k, v in totals.items() if k != 'sent')}"
        )
        pauses = [answer["pause_s"] for side in SIDES for answers in told[side] for answer in answers]
        console.print(
            f"pauses between slices: mean {statistics.mean(pauses):.1f} s, longest {max(pauses):.1f} s"
        )
    if len(memory) > 2:
        at_s, resident = np.array(memory).T
        late = at_s > at_s[-1] / 3
        slope = np.polyfit(at_s[late], resident[late], 1)[0] * 60 / 1e6
        console.print(
            "memory by slice, MB: "
            + ", ".join(f"{value / 1e6:,.0f}" for value in resident)
            + f"; slope over the last two thirds {slope:+.1f} MB a minute"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--message-bytes", type=int, default=1_500_000)
    arguments = parser.parse_args()
    keys = [zmq.curve_keypair() for _ in range(arguments.agents)]
    job = Job(
        arguments.agents,
        min(arguments.processes, arguments.agents),
        arguments.message_bytes // 4 * 4,
        [public.decode() for public, _ in keys],
        [secret.decode() for _, secret in keys],
    )
    graph = build_graph(TOPOLOGY, job.agents, generator(Streams(SEED, 0).family("topology"), 0))
    hosts = Hosts(job)
    try:
        told, memory = measure(hosts, arguments.minutes)
    finally:
        hosts.close()
    show(job, told, memory, len(graph.sender))


if __name__ == "__main__":
    main()
