"""The consensus schemes: what an agent sends, and what it makes of the copies it has received.

Notation of the paper (5.1 to 5.4): ``w~`` is the agent's trained copy of the shared parameters (a view
of its parameter row), ``w`` its view of the consensus value, ``lambda`` its dual, ``beta`` the penalty.
A scheme works on the agents of one fleet and never mixes their rows directly: everything that comes from
another agent comes through the snapshot pool, as a message's content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.consensus.mailbox import Copies
from f2a2_sim.consensus.mixing import Mixer
from f2a2_sim.consensus.snapshots import SnapshotPool
from f2a2_sim.learners.base import Learner

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Combination:
    """One agent's consensus step, decided (which copies) but not yet computed."""

    agent: int
    copies: Copies


class Scheme(Protocol):
    """What every scheme does, for the agents (rows) of one learner fleet."""

    changes_parameters: bool
    """Whether combining changes w~ itself (gossip, push_sum) or only the penalty on it (paper)."""

    def message(self, agents: IntArray, degrees: IntArray) -> tuple[Tensor, FloatArray]:
        """What these agents send: their rows of the returned ``[n, S]``, and a number each, ``[b]``."""

    def combine(self, batch: Sequence[Combination], pool: SnapshotPool) -> None:
        """Carry out consensus steps of distinct agents."""

    def restart(self, agent: int) -> None:
        """After a crash: the agent's consensus state starts anew from its present parameters."""

    def referenced_versions(self) -> IntArray:
        """Snapshots needed beyond the mailbox."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


_NOTHING: IntArray = np.empty(0, dtype=np.int64)


def _share(copies: int, dtype: torch.dtype) -> float:
    """The weight of each of so many copies beside the own one, as ``dtype`` holds it.

    What is left of 1 for the own one is a number of ``dtype`` too.
    """
    return torch.tensor(1.0 / (copies + 1), dtype=dtype).item()


class PrimalDual:
    """``paper``: the primal-dual hybrid gradient steps with local means.

    5.4c  w <- mean of own w~ and the copies;   5.4d  lambda <- lambda + beta (w~ - w). The learner keeps w
    and lambda, for they stand in its gradient (5.4a, 5.4b).

    Nothing takes back a dual that all agents have in common; it moves everybody's w~ on for good, unless
    duals decay. Missing copies leave such duals. The mean's weights do not: they add up to exactly 1, also
    where 1/7, say, is rounded.

    An agent that has no copy at all keeps its w and lambda. The mean of its own w~ alone would be w~: then w
    would follow wherever lambda pushes w~, and a cut-off agent would run away at a constant speed.
    """

    changes_parameters = False

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._mixer = Mixer()

    def message(self, agents: IntArray, degrees: IntArray) -> tuple[Tensor, FloatArray]:
        return self._learner.shared_parameters(), np.zeros(len(agents))

    def combine(self, batch: Sequence[Combination], pool: SnapshotPool) -> None:
        batch = [step for step in batch if len(step.copies.versions)]
        if not batch:
            return
        trained = self._learner.shared_parameters()
        rows = [pool.row_of(step.copies.versions) for step in batch]
        shares = [_share(len(r), trained.dtype) for r in rows]
        weights = [np.full(len(r), share) for r, share in zip(rows, shares, strict=True)]

        def use(k: int, mean: Tensor) -> None:
            agent = batch[k].agent
            mean.add_(trained[agent], alpha=1.0 - len(rows[k]) * shares[k])
            self._learner.take_consensus(np.array([agent]), mean.unsqueeze(0))

        self._mixer.mix(pool.rows, rows, weights, use)

    def restart(self, agent: int) -> None:
        """w is the present w~, and lambda stays 0 as the learner's reset left it."""
        index = np.array([agent])
        self._learner.take_consensus(index, self._learner.shared_parameters()[torch.from_numpy(index)])

    def referenced_versions(self) -> IntArray:
        return _NOTHING

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to load: w and lambda are the learner's."""


class Gossip:
    """``gossip``: w~ <- weighted mean with Metropolis-Hastings weights, no dual.

    A copy from j weighs 1 / (1 + max(d_i, d_j)) (Xiao and Boyd, "Fast linear iterations for distributed
    averaging", 2004), d being the number of neighbours; j's is carried by its message. What is missing
    (lost, too old, off) goes to the agent's own copy.
    """

    changes_parameters = True

    def __init__(self, learner: Learner, degrees: IntArray) -> None:
        self._learner = learner
        self._degrees = degrees.astype(np.float64)
        self._mixer = Mixer()

    def message(self, agents: IntArray, degrees: IntArray) -> tuple[Tensor, FloatArray]:
        self._degrees[agents] = degrees
        return self._learner.shared_parameters(), degrees.astype(np.float64)

    def combine(self, batch: Sequence[Combination], pool: SnapshotPool) -> None:
        trained = self._learner.shared_parameters()
        rows, weights = [], []
        for step in batch:
            theirs = pool.number_of(step.copies.versions)
            own_degree = max(float(self._degrees[step.agent]), float(len(theirs)))
            rows.append(pool.row_of(step.copies.versions))
            weights.append(1.0 / (1.0 + np.maximum(own_degree, theirs)) if len(theirs) else np.empty(0))

        def use(k: int, total: Tensor) -> None:
            agent = batch[k].agent
            total.add_(trained[agent], alpha=1.0 - float(weights[k].sum()))
            self._learner.adopt(np.array([agent]), total.unsqueeze(0))

        self._mixer.mix(pool.rows, rows, weights, use)

    def restart(self, agent: int) -> None:
        """Nothing to do: gossip keeps no state beyond the parameters."""

    def referenced_versions(self) -> IntArray:
        return _NOTHING

    def state(self) -> dict[str, Any]:
        return {"degrees": self._degrees}

    def load_state(self, state: dict[str, Any]) -> None:
        self._degrees[...] = state["degrees"]


_LEAST_WEIGHT = 0.05


class PushSum:
    """``push_sum``: ratio consensus with running sums, so that a lost message loses no mass.

    Each agent holds mass x = omega z and weight omega (Kempe, Dobra and Gehrke 2003; with local steps as
    in stochastic gradient push, Assran et al. 2019). To send, it keeps 1/(d+1) of both and adds the same
    share to the running sums sigma that it broadcasts; a receiver takes the difference to the last
    running sum it has used (Hadjicostis, Vaidya and Dominguez-Garcia 2016). The sums of x and omega over
    agents and links are conserved whatever is lost, delayed or reordered on a fixed graph, which is why
    every z converges to the true mean on directed and lossy graphs. Running sums are float64.

    An agent whose neighbours are away gives and gets nothing back; with less than a twentieth of the weight
    that it began with it keeps what it has until they send, or its own training, which the weight divides,
    would grow without bound.
    """

    changes_parameters = True

    def __init__(self, learner: Learner, senders: int) -> None:
        self._learner = learner
        trained = learner.shared_parameters()
        count, width = trained.shape
        self.weight = np.ones(count)
        self._base = trained.clone()
        self._sigma = torch.zeros(count, width, dtype=torch.float64, device=trained.device)
        self._sigma_weight = np.zeros(count)
        self._consumed = np.full((count, senders), -1, dtype=np.int64)

    def message(self, agents: IntArray, degrees: IntArray) -> tuple[Tensor, FloatArray]:
        trained = self._learner.shared_parameters()
        for agent, degree in zip(agents.tolist(), degrees.tolist(), strict=True):
            share = 1.0 / (degree + 1)
            omega = float(self.weight[agent])
            base = self._base[agent]
            # Local training moved z by (w~ - base); added to the mass unscaled, as gradient push does.
            base.add_((trained[agent] - base) / omega)
            if omega < _LEAST_WEIGHT:
                continue
            self._sigma[agent].add_(base.to(torch.float64), alpha=share * omega)
            self._sigma_weight[agent] += share * omega
            self.weight[agent] = share * omega
        self._learner.adopt(agents, self._base[torch.from_numpy(agents)])
        return self._sigma, self._sigma_weight[agents].copy()

    def combine(self, batch: Sequence[Combination], pool: SnapshotPool) -> None:
        for step in batch:
            agent = step.agent
            omega = float(self.weight[agent])
            mass = self._base[agent].to(torch.float64) * omega
            last = self._consumed[agent, step.copies.senders]
            fresh = step.copies.versions > last
            for sender, new, old in zip(
                step.copies.senders[fresh], step.copies.versions[fresh], last[fresh], strict=True
            ):
                mass.add_(_row(pool, new))
                omega += float(pool.number_of(new))
                if old >= 0:
                    mass.sub_(_row(pool, old))
                    omega -= float(pool.number_of(old))
                self._consumed[agent, sender] = new
            self.weight[agent] = omega
            self._base[agent].copy_(mass / omega)
        agents = np.array([step.agent for step in batch])
        self._learner.adopt(agents, self._base[torch.from_numpy(agents)])

    def restart(self, agent: int) -> None:
        """The crashed agent keeps its weight and takes its present parameters for its mass."""
        self._base[agent].copy_(self._learner.shared_parameters()[agent])

    def referenced_versions(self) -> IntArray:
        return self._consumed[self._consumed >= 0]

    def state(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "base": self._base,
            "sigma": self._sigma,
            "sigma_weight": self._sigma_weight,
            "consumed": self._consumed,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight[...] = state["weight"]
        self._base.copy_(state["base"])
        self._sigma.copy_(state["sigma"])
        self._sigma_weight[...] = state["sigma_weight"]
        self._consumed[...] = state["consumed"]


def _row(pool: SnapshotPool, version: np.int64) -> Tensor:
    return pool.rows[int(pool.row_of(np.array([version]))[0])]
