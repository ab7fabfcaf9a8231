"""Consensus of one fleet: publishing, receiving, and combining shared parameters, without clock or socket.

A driver (the simulator, later a deployment) says when: it publishes an agent's copy, hands deliveries
in, and lets an agent combine what it has. Combining is decided at once and computed as late as
possible, so that agents which combine close together share one matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.consensus.config import ConsensusConfig
from f2a2_sim.consensus.mailbox import Copies, Mailbox
from f2a2_sim.consensus.schemes import Combination, Gossip, PrimalDual, PushSum, Scheme
from f2a2_sim.consensus.snapshots import SnapshotPool
from f2a2_sim.learners.base import Learner

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

HEADER_BYTES = 128


class ConsensusGroup:
    """The agents (rows) of one learner fleet, and all that their consensus needs.

    With ``fixed_graph`` an agent uses the
    newest copy of each present neighbour as long as it is not too old; on a graph that is redrawn it uses
    every copy once. ``senders``: how many agents may send to these, if not just these to each other.
    """

    def __init__(
        self,
        config: ConsensusConfig,
        learner: Learner,
        degrees: IntArray,
        fixed_graph: bool,
        senders: int | None = None,
    ) -> None:
        trained = learner.shared_parameters()
        count, width = trained.shape
        senders = count if senders is None else senders
        self._config = config
        self._learner = learner
        self._fixed_graph = fixed_graph
        self._scheme = _make_scheme(config, learner, degrees, senders)
        dtype = torch.float64 if config.scheme == "push_sum" else trained.dtype
        self._pool = SnapshotPool(width, 4 * max(count, senders), dtype, trained.device)
        self._mailbox = Mailbox(count, senders, synchronous=config.wait == "neighbours")
        self._published = np.full(count, -1, dtype=np.int64)
        self._pending: dict[int, Combination] = {}
        self._admitted: list[int] = []
        self.message_bytes = HEADER_BYTES + width * (torch.finfo(dtype).bits // 8)

    @property
    def pool(self) -> SnapshotPool:
        return self._pool

    @property
    def scheme(self) -> Scheme:
        return self._scheme

    @property
    def is_full(self) -> bool:
        """Whether the next publication has to reclaim storage, and so must be told what is in flight."""
        return self._pool.free_rows == 0

    @property
    def changes_parameters(self) -> bool:
        """Whether combining writes into the agents' parameters."""
        return self._scheme.changes_parameters

    def publish(self, agents: IntArray, degrees: IntArray, rounds: IntArray, in_flight: IntArray) -> IntArray:
        """Make a message of each agent's present copy; returns versions ``[b]``.

        ``degrees`` counts each sender's present neighbours; ``in_flight`` are the versions that the carrier
        still holds; they are needed when storage has to be reclaimed.
        """
        if any(agent in self._pending for agent in agents.tolist()):
            self.flush()
        if self._pool.free_rows < len(agents):
            self.collect(in_flight)
        content, numbers = self._scheme.message(agents, degrees)
        versions = self._pool.add([content[agent] for agent in agents.tolist()], numbers, rounds)
        self._published[agents] = versions
        return versions

    def content(self, version: int) -> tuple[Tensor, float, int]:
        """What a message of that version carries: parameters ``[S]``, the scheme's number, the round."""
        only = np.array([version])
        row = self._pool.rows[int(self._pool.row_of(only)[0])]
        return row, float(self._pool.number_of(only)[0]), int(self._pool.round_of(only)[0])

    def admit(self, values: Tensor, number: float, round_number: int) -> int:
        """Keep what came in a message from elsewhere; returns the version to deliver it by.

        It is kept until something is delivered, and then if a mailbox holds it.
        """
        if self._pool.free_rows == 0:
            self.collect(np.array(self._admitted, dtype=np.int64))
        version = int(self._pool.add([values], np.array([number]), np.array([round_number]))[0])
        self._admitted.append(version)
        return version

    def deliver(
        self, receivers: IntArray, senders: IntArray, versions: IntArray, sent_s: FloatArray
    ) -> IntArray:
        """Put arrived messages into their receivers' mailboxes; returns the round of each."""
        rounds = self._pool.round_of(versions)
        self._mailbox.put(receivers, senders, versions, sent_s, rounds)
        self._admitted = []
        return rounds

    def has_round(self, agent: int, senders: IntArray, round_number: int) -> bool:
        """Whether ``agent`` holds a copy of that round (or later) from every one of ``senders``."""
        return self._mailbox.has_round(agent, senders, round_number)

    def combine(self, agent: int, now_s: float, round_number: int, neighbours: IntArray) -> FloatArray:
        """Decide one agent's consensus step at ``now_s``; returns the ages in seconds of the copies used."""
        if agent in self._pending:
            self.flush()
        oldest_s = -np.inf if self._config.max_age_s is None else now_s - self._config.max_age_s
        senders = neighbours if self._fixed_graph else None
        copies = self._mailbox.copies(agent, round_number, oldest_s, senders)
        if not self._fixed_graph:
            self._mailbox.used(agent, round_number)
        self._pending[agent] = Combination(agent, copies)
        return now_s - copies.sent_s

    def flush(self) -> None:
        """Carry out the consensus steps decided so far."""
        if self._pending:
            batch = [self._pending[agent] for agent in sorted(self._pending)]
            self._pending = {}
            self._scheme.combine(batch, self._pool)

    def collect(self, in_flight: IntArray) -> None:
        """Release every snapshot that no mailbox, message in flight or agent refers to."""
        self.flush()
        self._pool.retain(self._referenced(in_flight))

    def _referenced(self, in_flight: IntArray) -> IntArray:
        """Versions that may still be read, with repeats; the consensus steps put off count too."""
        put_off = [step.copies.versions for step in self._pending.values()]
        kept = (self._mailbox.referenced_versions(), self._scheme.referenced_versions())
        return np.concatenate([*kept, self._published, in_flight, *put_off])

    def crash(self, agent: int) -> Tensor | None:
        """The agent loses its mailbox; returns the copy that it last published, if any.

        The caller rebuilds the agent's parameters from that copy and then calls :meth:`restart`.
        """
        self.flush()
        self._mailbox.clear(agent)
        version = int(self._published[agent])
        if version < 0 or isinstance(self._scheme, PushSum):
            return None
        return self._pool.rows[int(self._pool.row_of(np.array([version]))[0])]

    def restart(self, agent: int) -> None:
        """Begin anew from the agent's present parameters."""
        self._scheme.restart(agent)

    def state(self, in_flight: IntArray) -> dict[str, Any]:
        """All that changes; ``in_flight`` are the versions that the carrier still holds."""
        copies = [step.copies for step in self._pending.values()]
        nothing = np.empty(0)
        return {
            "scheme": self._scheme.state(),
            "pool": self._pool.state(self._referenced(in_flight)),
            "mailbox": self._mailbox.state(),
            "published": self._published,
            "pending_agents": np.asarray(list(self._pending), dtype=np.int64),
            "pending_counts": np.asarray([len(c.versions) for c in copies], dtype=np.int64),
            "pending_senders": np.concatenate([c.senders for c in copies] + [nothing]),
            "pending_versions": np.concatenate([c.versions for c in copies] + [nothing]),
            "pending_sent_s": np.concatenate([c.sent_s for c in copies] + [nothing]),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._scheme.load_state(state["scheme"])
        self._pool.load_state(state["pool"])
        self._mailbox.load_state(state["mailbox"])
        self._published[...] = state["published"]
        self._pending = {}
        ends = np.cumsum(state["pending_counts"])
        for position, agent in enumerate(state["pending_agents"].tolist()):
            part = slice(int(ends[position] - state["pending_counts"][position]), int(ends[position]))
            copies = Copies(
                state["pending_senders"][part].astype(np.int64),
                state["pending_versions"][part].astype(np.int64),
                state["pending_sent_s"][part],
            )
            self._pending[agent] = Combination(agent, copies)


def _make_scheme(config: ConsensusConfig, learner: Learner, degrees: IntArray, senders: int) -> Scheme:
    if config.scheme == "paper":
        return PrimalDual(learner)
    if config.scheme == "gossip":
        return Gossip(learner, degrees)
    return PushSum(learner, senders)
