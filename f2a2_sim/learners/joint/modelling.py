"""Models of the others within a fleet: MOA, fed by the steps that agents remember, asked by their updates.

Observations are standardised by the moments of the random trajectories, once for all: models of the past must
not move under what they have learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from devices.compute import Work
from f2a2_sim.learners.base import FleetSetup, FloatArray, IntArray
from f2a2_sim.learners.joint.moa import MoaSetup, OthersModel
from f2a2_sim.learners.joint.moa_config import MoaConfig
from f2a2_sim.learners.joint.replay import Histories
from f2a2_sim.learners.standardise import RunningMoments, standardise


class Modelling:
    """Every agent's models of all others."""

    def __init__(self, config: MoaConfig, setup: FleetSetup, learning_rate: float, like: Tensor) -> None:
        n = len(setup.observation_sizes)
        self.config = config
        self.models = OthersModel(
            config,
            MoaSetup(
                agents=range(n),
                n_agents=n,
                observation_size=max(setup.observation_sizes),
                n_actions=setup.n_actions,
                seeds=setup.seeds,
                learning_rate=learning_rate,
                rollouts=setup.rollouts,
                like=like,
            ),
        )
        self.moments = RunningMoments(n, max(setup.observation_sizes), like)
        self._like = like

    def gather(self, observations: NDArray[np.float32], actions: IntArray) -> None:
        """Random trajectories ``[trajectories, trajectory_steps, n, size]``, actions ``[..., n]``."""
        seen = torch.from_numpy(observations).to(self._like)
        by_agent = standardise(seen.flatten(0, 1).transpose(0, 1))
        self.moments.mean.copy_(by_agent.mean)
        self.moments.variance.copy_(by_agent.variance)
        standard = by_agent.values.transpose(0, 1).reshape(seen.shape)
        self.models.gather(standard, torch.from_numpy(actions).to(seen.device))

    def observe(
        self,
        rows: IntArray,
        observations: NDArray[np.float32],
        actions: IntArray,
        first: bool,
        ages: NDArray[np.int8] | None,
    ) -> None:
        """A step ``[n, rollouts, ...]`` that ``rows`` remember, the ``first`` of its episode or not.

        With ``ages`` ``[n, n]`` an agent has seen only what is of age 0 to it.
        """
        seen = self.moments.standardise(torch.from_numpy(observations).to(self._like))
        chosen = torch.from_numpy(actions).to(seen.device)
        new_episode = np.full(chosen.shape[1], first)
        if ages is None:
            self.models.observe(rows, seen, chosen, new_episode)
            return
        known = torch.from_numpy(ages[rows] == 0).to(seen.device).unsqueeze(-1)
        self.models.observe(
            rows,
            seen * known.unsqueeze(-1),
            chosen * known,
            new_episode,
            known.expand(-1, -1, chosen.shape[1]),
        )

    def predict(self, worker: int, run: slice, observations: Tensor, before: Histories) -> Tensor:
        """Logits ``[b, n, batch, actions]`` that neighbouring agents expect of the others, their own 0.

        ``observations`` ``[b, n, batch, size]`` are raw, and ``before`` is what came before them.
        """
        b, n, batch, length, size = before.observations.shape
        past = before.observations.to(self._like).reshape(b, n, batch * length, size)
        steps = self.models.steps_of(
            self.moments.standardise(past).view(before.observations.shape), before.actions
        )
        lengths = before.lengths.unsqueeze(1).expand(b, n, batch)
        return self.models.predict(worker, run, self.moments.standardise(observations), steps, lengths)

    @property
    def draws_per_update(self) -> int:
        """Uniform numbers of one update of one agent's models."""
        return self.models.draws_per_update

    def update(self, rows: IntArray, uniforms: FloatArray) -> dict[str, FloatArray]:
        """One step of learning for each row; see `OthersModel.update`."""
        return self.models.update(rows, uniforms)

    def work(self, batch: int) -> Work:
        """What models cost an update of ``batch`` transitions: a step of learning, two predictions."""
        learning, predicting = self.models.update_work(), self.models.logits_work(batch)
        return learning + predicting * 2

    def reset(self, rows: IntArray, seeds: Sequence[int]) -> None:
        """New models; the random trajectories stay."""
        self.models.reset(rows, seeds)

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        moments = {"mean": self.moments.mean, "variance": self.moments.variance}
        return {"models": self.models.state(), "moments": moments}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state`."""
        self.models.load_state(state["models"])
        self.moments.mean.copy_(torch.as_tensor(state["moments"]["mean"]))
        self.moments.variance.copy_(torch.as_tensor(state["moments"]["variance"]))
