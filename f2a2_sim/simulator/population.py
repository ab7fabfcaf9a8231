"""All agents of a run: fleets of equal shapes, and the consensus within each.

Agents are numbered 0 .. n-1 over the whole run; a fleet knows its own rows only. Everything here takes
agents and hands the work to their fleets. Agents of different shapes cannot average their parameters,
so consensus messages between fleets are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from devices.compute import Work
from f2a2_sim.consensus.group import HEADER_BYTES, ConsensusGroup
from f2a2_sim.learners.base import Learner
from f2a2_sim.learners.joint.replay import padded_observations
from f2a2_sim.randomness import Streams
from f2a2_sim.simulator.knowledge import Knowledge, step_of
from f2a2_sim.worlds.base import Observations

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

STATISTICS = ("entropy", "q_mean", "td_abs", "critic_loss", "moa_accuracy")
"""Means over updates; NaN where a learner has no such thing."""


@dataclass
class Fleet:
    """Agents ``ids`` (rows in that order), their learner, and their consensus unless the scheme is none.

    ``start``: parameters ``[P]`` that they all begin with, or ``[rows, P]``, each with its own; None = random
    weights by the learner's seeds.
    ``members``: all agents of that shape, of whom ``ids`` may be those that live in this process; None = ids.
    """

    ids: IntArray
    learner: Learner
    consensus: ConsensusGroup | None
    act_work: Work
    update_work: Work
    start: Tensor | None = None
    members: IntArray | None = None

    @property
    def everybody(self) -> IntArray:
        """All agents that can average with these, in the order in which senders are numbered."""
        return self.ids if self.members is None else self.members

    def begin(self, rows: IntArray) -> None:
        """Give rows that have just been reset the parameters to start from."""
        if self.start is not None:
            of_each = self.start.dim() == 2
            self.learner.start_from(rows, self.start[torch.from_numpy(rows)] if of_each else self.start)


class Population:
    """Agents by number; ``rows`` inside, agents outside.

    ``initial_seeds`` are those of all agents of the run, also where only some of them live in this process.
    """

    def __init__(
        self,
        fleets: list[Fleet],
        initial_seeds: list[int],
        streams: Streams,
        rollouts: int = 1,
        knowledge: Knowledge | None = None,
    ) -> None:
        self.fleets = fleets
        self.rollouts = rollouts
        self.n_agents = len(initial_seeds)
        self._all_here = len(fleets) == 1 and len(fleets[0].ids) == self.n_agents
        self._initial_seeds = initial_seeds
        self._exploration = streams.family("exploration")
        self._replay = streams.family("replay")
        self._fleet_of = np.full(self.n_agents, -1, dtype=np.int64)
        self._row_of = np.full(self.n_agents, -1, dtype=np.int64)
        self._sender_of = np.full(self.n_agents, -1, dtype=np.int64)
        for index, fleet in enumerate(fleets):
            self._fleet_of[fleet.everybody] = index
            self._row_of[fleet.ids] = np.arange(len(fleet.ids))
            self._sender_of[fleet.everybody] = np.arange(len(fleet.everybody))
        self.knowledge = knowledge
        """Who has heard of which step, where that comes by message."""
        self._postponed: tuple[Any, ...] | None = None  # a transition, until messages about it may have come
        self._joint = bool(getattr(fleets[0].learner, "joint_information", False))
        self._when_remembered: Callable[[tuple[Any, ...]], None] | None = None
        self._observations: list[NDArray[np.float32]] = []
        self._acted_on = [np.zeros((len(f.ids), 0), dtype=np.float32) for f in fleets]
        self._logits = [np.zeros((len(f.ids), 0), dtype=np.float32) for f in fleets]
        shape = (self.n_agents,) if rollouts == 1 else (self.n_agents, rollouts)
        self.actions = np.zeros(shape, dtype=np.int64)
        """The newest action of each agent: ``[n]``, or ``[n, rollouts]`` if there are several."""

    def split(self, agents: IntArray) -> Iterator[tuple[Fleet, IntArray, IntArray]]:
        """Each fleet concerned, with its rows and with the positions in ``agents`` that they come from."""
        if len(self.fleets) == 1:
            yield self.fleets[0], self._row_of[agents], np.arange(len(agents))
            return
        for index in np.unique(self._fleet_of[agents]).tolist():
            positions = np.flatnonzero(self._fleet_of[agents] == index)
            yield self.fleets[index], self._row_of[agents[positions]], positions

    def fleet_of(self, agent: int) -> tuple[Fleet, int]:
        return self.fleets[int(self._fleet_of[agent])], int(self._row_of[agent])

    def senders_in(self, fleet: Fleet, agents: IntArray) -> IntArray:
        """Those of ``agents`` that can average with ``fleet``, as its consensus numbers its senders."""
        senders: IntArray = self._sender_of[agents[self._fleet_of[agents] == self._fleet_of[fleet.ids[0]]]]
        return senders

    def observe(self, observations: Observations) -> None:
        """Hand every agent what it sees now."""
        if self._joint:
            if self._observations:
                self._acted_on = self._observations
            self._observations = [padded_observations(observations, self.rollouts)]
        elif isinstance(observations, list):
            self._observations = [np.stack([observations[i] for i in f.ids.tolist()]) for f in self.fleets]
        elif self._all_here:
            self._observations = [observations.copy()]
        else:
            self._observations = [observations[fleet.ids] for fleet in self.fleets]

    def act(self, agents: IntArray) -> None:
        """Choose an action for each of ``agents`` from what it sees now; see ``actions``."""
        if self._joint:
            self._act_jointly(agents)
            return
        uniforms = self._exploration.uniform(agents)[:, 0]
        for fleet, rows, positions in self.split(agents):
            index = int(self._fleet_of[fleet.ids[0]])
            seen = self._observations[index]
            actions, logits = fleet.learner.act(rows, seen[rows], uniforms[positions])
            self.actions[agents[positions]] = actions
            if self._acted_on[index].shape != seen.shape:
                self._acted_on[index] = np.zeros_like(seen)
                self._logits[index] = np.zeros((seen.shape[0], logits.shape[1]), dtype=np.float32)
            self._acted_on[index][rows] = seen[rows]
            self._logits[index][rows] = logits

    def _act_jointly(self, agents: IntArray) -> None:
        learner, seen = self.fleets[0].learner, self._observations[0]
        uniforms = self._exploration.uniform(agents, self.rollouts)
        actions, logits = learner.act(agents, seen[agents], uniforms)
        self.actions[agents] = actions.reshape(self.actions[agents].shape)
        if self._logits[0].size == 0:
            self._logits[0] = np.zeros((*seen.shape[:2], logits.shape[2]), dtype=np.float32)
        self._logits[0][agents] = logits

    def remember(
        self, agents: IntArray, rewards: NDArray[np.float32], terminal: BoolArray, played: IntArray
    ) -> None:
        """Store the transition from what each of ``agents`` acted on to what it sees now.

        ``rewards``, ``terminal`` and ``played``, the actions that the world took, are of all agents.
        """
        if self._joint:
            shape = (self.n_agents, self.rollouts)
            logits = self._logits[0] if self.knowledge is None else self._logits[0].copy()
            transition = (self._acted_on[0], played.reshape(shape), logits, rewards.reshape(shape))
            self._remember_jointly(agents, *transition, self._observations[0], terminal)
            return
        if agents.size == 0:
            return
        for fleet, rows, positions in self.split(agents):
            index = int(self._fleet_of[fleet.ids[0]])
            own = agents[positions]
            self._give(
                fleet,
                rows,
                self._acted_on[index][rows],
                self.actions[own],
                self._logits[index][rows],
                rewards[own],
                self._observations[index][rows],
                terminal[own],
            )

    def when_remembered(self, keep: Callable[[tuple[Any, ...]], None]) -> None:
        """Whom to show everything that a learner is given to remember: the arguments of its `remember`."""
        self._when_remembered = keep

    def _give(self, fleet: Fleet, *arguments: Any) -> None:
        fleet.learner.remember(*arguments)
        if self._when_remembered is not None:
            self._when_remembered(arguments)

    def _remember_jointly(self, agents: IntArray, *transition: Any) -> None:
        """At once, or, where the others' steps come by message, when the next one is complete."""
        if self.knowledge is not None:
            self._remember_postponed()
            self._postponed = (agents, *transition)
        elif agents.size:
            self._give(self.fleets[0], agents, *transition)

    def _remember_postponed(self) -> None:
        if self._postponed is not None:
            assert self.knowledge is not None
            ages = self.knowledge.ages()
            self.knowledge.complete(self._postponed)
            self._give(self.fleets[0], *self._postponed, (ages.now, ages.following))
            self._postponed = None

    def drop_postponed(self) -> None:
        """Forget the transition that waits for messages, which has been remembered in another way."""
        self._postponed = None

    def begin_episode(self, step: int) -> None:
        """The world begins anew with its observation number ``step``."""
        if self.knowledge is not None:
            self._remember_postponed()
            self.knowledge.begin_episode(step)

    def about_to_remember(self, agents: IntArray) -> IntArray:
        """Whose replay changes when ``agents`` are given a transition (see `remember`)."""
        if self.knowledge is None:
            return agents
        return np.empty(0, dtype=np.int64) if self._postponed is None else np.asarray(self._postponed[0])

    def step_message_bytes(self, agent: int) -> int | None:
        """Size of what an agent tells the others of a step; None where it need not."""
        if self.knowledge is None:
            return None
        size = self.fleets[0].learner.setup.observation_sizes[agent]  # type: ignore[attr-defined]
        return HEADER_BYTES + 4 * self.rollouts * (int(size) + 1)

    def present_step(self, agent: int) -> tuple[NDArray[np.float32], IntArray]:
        """What an agent sees now ``[rollouts, size]``, padded, and its newest action ``[rollouts]``."""
        return self._observations[0][agent], self.actions[agent].reshape(self.rollouts)

    def can_update(self, agents: IntArray) -> BoolArray:
        able = np.zeros(len(agents), dtype=np.bool_)
        for fleet, rows, positions in self.split(agents):
            able[positions] = fleet.learner.can_update(rows)
        return able

    def update(self, agents: IntArray) -> dict[str, float]:
        """One update of each of ``agents``; returns sums of their statistics."""
        sums = dict.fromkeys(STATISTICS, 0.0)
        for fleet, rows, positions in self.split(agents):
            uniforms = self._replay.uniform(agents[positions], fleet.learner.draws_per_update)
            values = fleet.learner.update(rows, fleet.learner.draw_batch(rows, uniforms))
            for name in STATISTICS:
                sums[name] += float(values[name].sum()) if name in values else math.nan
        return sums

    def deliver(
        self, receivers: IntArray, senders: IntArray, versions: IntArray, sent_s: FloatArray
    ) -> IntArray:
        """Put arrived messages into mailboxes; returns the round of each.

        Those between fleets of different shapes are of no use (round 0).
        """
        rounds = np.zeros(len(receivers), dtype=np.int64)
        told = versions < 0
        if told.any():
            assert self.knowledge is not None
            self.knowledge.hear(receivers[told], senders[told], step_of(versions[told]))
            kept = np.flatnonzero(~told)
            rounds[kept] = self.deliver(receivers[kept], senders[kept], versions[kept], sent_s[kept])
            return rounds
        if self._all_here:  # their numbers are its rows
            consensus = self.fleets[0].consensus
            return rounds if consensus is None else consensus.deliver(receivers, senders, versions, sent_s)
        for fleet, _, positions in self.split(receivers):
            own = positions[self._fleet_of[senders[positions]] == self._fleet_of[fleet.ids[0]]]
            if fleet.consensus is not None:
                rounds[own] = fleet.consensus.deliver(
                    self._row_of[receivers[own]], self._sender_of[senders[own]], versions[own], sent_s[own]
                )
        return rounds

    def crash(self, agent: int) -> None:
        """The agent loses its memory, and starts from the copy it last published, or from the beginning."""
        fleet, row = self.fleet_of(agent)
        only = np.array([row])
        if self.knowledge is not None:
            self.knowledge.forget(agent)
            if self._postponed is not None:
                agents, *transition = self._postponed
                self._postponed = (agents[agents != agent], *transition)
        copy = fleet.consensus.crash(row) if fleet.consensus is not None else None
        published = None if copy is None else copy.clone()
        fleet.learner.reset(only, [self._initial_seeds[agent]])
        fleet.begin(only)
        if published is not None:
            fleet.learner.adopt(only, published.unsqueeze(0))
            fleet.learner.start_from(only, fleet.learner.parameters[row].clone())  # targets come with it
        if fleet.consensus is not None:
            fleet.consensus.restart(row)

    def settle(self) -> None:
        """Carry out consensus steps that were put off."""
        for fleet in self.fleets:
            if fleet.consensus is not None:
                fleet.consensus.flush()

    def settle_before_reading(self) -> None:
        """Carry out put-off consensus steps if they change parameters (or are read by learning)."""
        for fleet in self.fleets:
            if fleet.consensus is not None and fleet.consensus.changes_parameters:
                fleet.consensus.flush()

    def disagreement(self) -> float:
        """Mean distance of agents' shared parameters from their fleet's mean; NaN without consensus."""
        sizes = [len(f.ids) for f in self.fleets]
        values = [fleet_disagreement(f) for f in self.fleets]
        return float(np.average(values, weights=sizes))

    def dual_norms(self) -> tuple[float, float]:
        """Mean norm of the agents' duals, and norm of what they have in common, their fleet's mean dual."""
        self.settle()
        sizes = [len(f.ids) for f in self.fleets]
        norms = np.average([fleet_dual_norms(f.learner.dual) for f in self.fleets], axis=0, weights=sizes)
        return float(norms[0]), float(norms[1])

    def state(self, in_flight: IntArray) -> dict[str, Any]:
        """All that changes; ``in_flight`` are the versions that the carrier still holds."""
        return {
            "fleets": [
                {
                    "learner": fleet.learner.state(),
                    "consensus": None if fleet.consensus is None else fleet.consensus.state(in_flight),
                    "start": fleet.start,
                }
                for fleet in self.fleets
            ],
            "observations": list(self._observations),
            "acted_on": list(self._acted_on),
            "logits": list(self._logits),
            "actions": self.actions,
            "knowledge": None if self.knowledge is None else self.knowledge.state(),
            "postponed": None if self._postponed is None else list(self._postponed),
        }

    def policies(self) -> dict[str, Any]:
        """The part of :meth:`state` from which the agents can be played, but not trained on."""
        return {"fleets": [{"learner": {"parameters": fleet.learner.parameters}} for fleet in self.fleets]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for fleet, saved in zip(self.fleets, state["fleets"], strict=True):
            fleet.learner.load_state(saved["learner"])
            fleet.start = saved["start"]
            if fleet.consensus is not None:
                fleet.consensus.load_state(saved["consensus"])
        self._observations = [np.array(a) for a in state["observations"]]
        self._acted_on = [np.array(a) for a in state["acted_on"]]
        self._logits = [np.array(a) for a in state["logits"]]
        self.actions[...] = state["actions"]
        if self.knowledge is not None:
            self.knowledge.load_state(state["knowledge"])
        postponed = state["postponed"]
        self._postponed = None if postponed is None else tuple(np.array(part) for part in postponed)


_COLUMNS_PER_BLOCK = 4096  # of 256 agents: 4 MB, which stay in the cache for both passes


def fleet_disagreement(fleet: Fleet) -> float:
    """Mean Euclidean distance of the agents' shared parameters from their mean."""
    if fleet.consensus is not None:
        fleet.consensus.flush()
    shared = fleet.learner.shared_parameters()
    squared = torch.zeros(shared.shape[0], dtype=torch.float64, device=shared.device)
    for block in torch.split(shared, _COLUMNS_PER_BLOCK, dim=1):
        squared += (block - block.mean(0)).square_().sum(1)
    return float(squared.sqrt_().mean())


def fleet_dual_norms(dual: Tensor) -> tuple[float, float]:
    """Mean Euclidean norm of the rows of ``dual`` ``[k, S]``, and norm of their mean; 0 without rows."""
    if not len(dual):
        return 0.0, 0.0
    squared = torch.zeros(dual.shape[0], dtype=torch.float64, device=dual.device)
    of_mean = torch.zeros((), dtype=torch.float64, device=dual.device)
    for block in torch.split(dual, _COLUMNS_PER_BLOCK, dim=1):
        squared += block.square().sum(1)
        of_mean += block.mean(0).square().sum()
    return float(squared.sqrt_().mean()), float(of_mean.sqrt_())
