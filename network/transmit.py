"""Transmitters and their drop-tail queues: when each message starts and ends being transmitted."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from network.groups import LinkGroups
from network.streams import Bools, Floats, Ints, padded

_NEVER = -np.inf


class Load(NamedTuple):
    """Messages offered to the transmitters at one instant, ordered by sender: arrays ``[m]``."""

    sender: Ints
    slot: Ints
    rank: Ints
    """Place of the message among those of its sender, from 0."""
    packets: Ints
    size_bytes: Ints


class Transmitters:
    """One transmitter per agent (numbers below ``n_agents``) or per link (``n_agents`` + slot).

    A transmitter serves its messages one after another. Messages are whole units for the queue: one is
    admitted if all its packets and bytes fit beside those that wait, or if the transmitter is idle.
    """

    def __init__(self, n_agents: int, groups: LinkGroups) -> None:
        self._n_agents = n_agents
        self._shared = np.array([spec.uplink == "shared" for spec in groups.specs])[groups.of_sender]
        self._all_shared = bool(self._shared.all())
        self._none_shared = not self._shared.any()
        self._varying = groups.varying_sender & self._shared
        self._any_varying = bool(self._varying.any())
        packets = np.array([_limit(spec.queue_packets) for spec in groups.specs])
        size = np.array([_limit(spec.queue_bytes) for spec in groups.specs])
        self._limit_packets = packets[groups.of_sender]
        self._limit_bytes = size[groups.of_sender]
        self._limited = bool(np.isfinite(self._limit_packets).any() or np.isfinite(self._limit_bytes).any())
        self._free_s = np.full(n_agents, _NEVER)
        self._ring_start_s: Floats = np.zeros((0, 4))
        self._ring_packets: Ints = np.zeros((0, 4), dtype=np.int64)
        self._ring_bytes: Ints = np.zeros((0, 4), dtype=np.int64)
        self._head: Ints = np.zeros(0, dtype=np.int64)
        self._log: deque[tuple[float, Ints, Floats, Floats]] = deque()
        self.resize(0)

    def resize(self, links: int) -> None:
        """Make room for ``links`` links."""
        rows = self._n_agents if self._all_shared else self._n_agents + links
        self._free_s = padded(self._free_s, rows, _NEVER)
        if self._limited:
            self._ring_start_s = padded(self._ring_start_s, rows, _NEVER)
            self._ring_packets = padded(self._ring_packets, rows, 0)
            self._ring_bytes = padded(self._ring_bytes, rows, 0)
            self._head = padded(self._head, rows, 0)

    def admit(self, now_s: float, load: Load) -> Bools | None:
        """Which messages find room in their queue: bool ``[m]``, or None if no queue has a limit."""
        if not self._limited:
            return None
        number, rank = self._place(load)
        opens = rank == 0  # the first message of each transmitter
        first = np.flatnonzero(opens)
        owner = load.sender[first]
        row = number[first]
        waits = self._ring_start_s[row] > now_s
        waiting_packets = np.where(waits, self._ring_packets[row], 0).sum(axis=1)
        waiting_bytes = np.where(waits, self._ring_bytes[row], 0).sum(axis=1)
        room = np.minimum(
            np.floor((self._limit_packets[owner] - waiting_packets) / load.packets[first]),
            np.floor((self._limit_bytes[owner] - waiting_bytes) / load.size_bytes[first]),
        )
        accepted = np.maximum(room, 0.0) + (self._free_s[row] <= now_s)
        group = np.cumsum(opens) - 1
        admitted = rank < accepted[group]
        offered = np.bincount(group, weights=admitted, minlength=len(first)).astype(np.int64)
        self._reserve(int((waits.sum(axis=1) + offered).max(initial=0)))
        return np.asarray(admitted)

    def schedule(self, now_s: float, load: Load, service_s: Floats) -> tuple[Floats, Floats]:
        """Start and end of transmission of admitted messages that need ``service_s``: two arrays ``[m]``."""
        number, rank = self._place(load)
        base = np.maximum(self._free_s[number], now_s)
        start = base + rank * service_s
        end = base + (rank + 1) * service_s
        if self._any_varying:
            self._chain(load, base, service_s, start, end)
        self._free_s[number] = end  # of one transmitter's messages the last one stays
        if self._limited:
            place = (self._head[number] + rank) % self._ring_start_s.shape[1]
            self._ring_start_s[number, place] = start
            self._ring_packets[number, place] = load.packets
            self._ring_bytes[number, place] = load.size_bytes
            self._head[number] += rank + 1  # as above
        while self._log and self._log[0][0] <= now_s:
            self._log.popleft()
        if end.size and (latest := float(end.max())) > now_s:
            self._log.append((latest, number, start, end))
        return start, end

    def stop(self, now_s: float, agents: Ints, slots: Ints) -> None:
        """Forget the messages of these agents (and of their links) that have not begun to be transmitted."""
        stopped = np.zeros(len(self._free_s), dtype=np.bool_)
        stopped[agents] = True
        if not self._all_shared:
            stopped[self._n_agents + slots] = True
        self._free_s[stopped] = np.minimum(self._free_s[stopped], now_s)
        kept: deque[tuple[float, Ints, Floats, Floats]] = deque()
        for _, number, start, end in self._log:
            stays = ~(stopped[number] & (start > now_s))
            number, start, end = number[stays], start[stays], end[stays]
            running = stopped[number] & (end > now_s)
            self._free_s[number[running]] = end[running]
            if end.size:
                kept.append((float(end.max()), number, start, end))
        self._log = kept
        if self._limited:
            rows = np.flatnonzero(stopped)
            ring = self._ring_start_s[rows]
            self._ring_start_s[rows] = np.where(ring > now_s, _NEVER, ring)

    def state(self) -> dict[str, Any]:
        columns = list(zip(*self._log, strict=True))
        return {
            "free_s": self._free_s.copy(),
            "ring_start_s": self._ring_start_s.copy(),
            "ring_packets": self._ring_packets.copy(),
            "ring_bytes": self._ring_bytes.copy(),
            "head": self._head.copy(),
            "log_number": np.concatenate(columns[1]) if columns else np.zeros(0, dtype=np.int64),
            "log_start_s": np.concatenate(columns[2]) if columns else np.zeros(0),
            "log_end_s": np.concatenate(columns[3]) if columns else np.zeros(0),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._free_s = np.asarray(state["free_s"], dtype=np.float64).copy()
        self._ring_start_s = np.asarray(state["ring_start_s"], dtype=np.float64).copy()
        self._ring_packets = np.asarray(state["ring_packets"], dtype=np.int64).copy()
        self._ring_bytes = np.asarray(state["ring_bytes"], dtype=np.int64).copy()
        self._head = np.asarray(state["head"], dtype=np.int64).copy()
        number = np.asarray(state["log_number"], dtype=np.int64)
        start = np.asarray(state["log_start_s"], dtype=np.float64)
        end = np.asarray(state["log_end_s"], dtype=np.float64)
        self._log = deque([(float(end.max()), number, start, end)] if end.size else [])

    def _place(self, load: Load) -> tuple[Ints, Ints]:
        """Transmitter of each message, and the message's place among those offered to it now."""
        if self._all_shared:
            return load.sender, load.rank
        per_link = load.slot + self._n_agents
        if self._none_shared:
            return per_link, np.zeros_like(load.rank)
        shared = self._shared[load.sender]
        return np.where(shared, load.sender, per_link), np.where(shared, load.rank, 0)

    def _chain(self, load: Load, base: Floats, service_s: Floats, start: Floats, end: Floats) -> None:
        """Set start and end where the messages of a shared transmitter need different times: running sums."""
        chosen = np.flatnonzero(self._varying[load.sender])
        if chosen.size == 0:
            return
        rank = load.rank[chosen]
        line = np.cumsum(rank == 0) - 1
        service = np.zeros((int(line[-1]) + 1, int(rank.max()) + 2))
        service[line, rank + 1] = service_s[chosen]
        passed = np.cumsum(service, axis=1)
        start[chosen] = base[chosen] + passed[line, rank]
        end[chosen] = base[chosen] + passed[line, rank + 1]

    def _reserve(self, messages: int) -> None:
        """Make the rings at least so long, oldest entries first."""
        length = self._ring_start_s.shape[1]
        if messages <= length:
            return
        longer = max(messages, 2 * length)
        oldest_first = (self._head[:, None] + np.arange(length)) % length
        for name, fill in (("_ring_start_s", _NEVER), ("_ring_packets", 0), ("_ring_bytes", 0)):
            ring = getattr(self, name)
            grown = np.full((len(ring), longer), fill, dtype=ring.dtype)
            grown[:, :length] = np.take_along_axis(ring, oldest_first, axis=1)
            setattr(self, name, grown)
        self._head[:] = length


def _limit(value: int | None) -> float:
    return np.inf if value is None else float(value)
