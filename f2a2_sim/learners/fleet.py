"""What fleets of stacked rows have in common: consensus, costs, saved states.

A fleet's agents are rows of ``parameters``; Adam's moments, target critics and the consensus variable lie
beside them in the same order. A subclass says what a row holds and how it learns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from devices.compute import Work
from f2a2_sim.errors import CheckpointError
from f2a2_sim.learners.base import FleetSetup, IntArray
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.shared import SharedVariable
from f2a2_sim.learners.stacked import AdamRows, StackedAdam, clip_rows, zeros


class Stateful(Protocol):
    """A part of a fleet that saves itself."""

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        ...


class StackedFleet(ABC):
    """The part of `f2a2_sim.learners.base.Learner` that does not depend on the learner.

    ``size`` floats make a row of ``parameters``, of which target networks follow ``critic_columns``.
    """

    critic_columns: slice

    def __init__(self, config: LearnerConfig, setup: FleetSetup, size: int) -> None:
        self.config = config
        self.setup = setup
        self.n_agents = k = len(setup.seeds)
        targets = self.critic_columns.stop - self.critic_columns.start
        self.parameters = zeros((k, size), setup.dtype, setup.device)
        self.targets = zeros((k, targets), setup.dtype, setup.device)
        self.adam = StackedAdam(self.parameters, config.learning_rate, config.learning_rate_decay)
        self._shared = SharedVariable(self.parameters, self.consensus_columns(), setup, config.block_agents)
        self._counted: tuple[Work, Work] | None = None

    # ------------------------------------------------------------------ consensus

    @abstractmethod
    def consensus_columns(self) -> slice:
        """Which columns ``setup.shared`` stands for.

        Raises UsageError if the learner has no such part or does not share it.
        """

    def shared_columns(self) -> slice:
        """Columns of the consensus variable."""
        return self._shared.columns

    @property
    def dual(self) -> Tensor:
        """See `Learner.dual`."""
        return self._shared.dual

    def shared_parameters(self) -> Tensor:
        """w~ of every agent, a view ``[n_agents, S]``."""
        return self._shared.own()

    def take_consensus(self, rows: IntArray, view: Tensor) -> None:
        """See `Learner.take_consensus`."""
        self._shared.take(rows, view)

    def adopt(self, rows: IntArray, values: Tensor) -> None:
        """See `Learner.adopt`."""
        self._shared.adopt(rows, values)

    # ------------------------------------------------------------------ steps of Adam

    def adam_rows(self, run: slice, columns: slice) -> AdamRows:
        """Adam's rows of critics or actors; actors may have a step size of their own."""
        rate = None if columns == self.critic_columns else self.config.actor_learning_rate
        return self.adam.rows(run, columns, rate)

    def descend(self, run: slice, columns: slice, rows: AdamRows, gradient: Tensor) -> None:
        """One step along ``gradient`` + grad R + penalty, clipped before that (`SharedVariable.descend`)."""
        if self.config.grad_clip is not None:
            clip_rows(gradient, self.config.grad_clip)
        of_critics = self.config.critic_l2 if columns == self.critic_columns else None
        decay = self.config.l2 if of_critics is None else of_critics
        self._shared.descend(self.adam, rows, run, columns, gradient, decay)

    # ------------------------------------------------------------------ costs

    def act_work(self) -> Work:
        """Cost of one action (joint learners: of every rollout), counted on this code."""
        return self._costs()[0]

    def update_work(self) -> Work:
        """Cost of one update, counted on this code."""
        return self._costs()[1]

    def _costs(self) -> tuple[Work, Work]:
        if self._counted is None:
            self._counted = self.count_work()
        return self._counted

    @abstractmethod
    def count_work(self) -> tuple[Work, Work]:
        """Of an action and of an update."""

    # ------------------------------------------------------------------ state

    def forget(self, rows: IntArray) -> None:
        """Adam begins anew."""
        at = torch.from_numpy(rows).to(self.parameters.device)
        for array in (self.adam.first_moment, self.adam.second_moment, self.adam.steps):
            array[at] = 0

    def start_from(self, rows: IntArray, parameters: Tensor) -> None:
        """See `Learner.start_from`."""
        at = torch.from_numpy(rows).to(self.parameters.device)
        self.parameters[at] = parameters.to(self.parameters)
        self.targets[at] = self.parameters[at, self.critic_columns]
        self._shared.restart(at)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that change, by the names that they are saved under."""
        return {
            "parameters": self.parameters,
            "targets": self.targets,
            "first_moment": self.adam.first_moment,
            "second_moment": self.adam.second_moment,
            "steps": self.adam.steps,
            **self._shared.state(),
        }

    @abstractmethod
    def parts(self) -> dict[str, Stateful | None]:
        """What saves itself, by name; None where the configuration has no such part."""

    def state(self) -> dict[str, Any]:
        """Views of all that changes; write them out before the fleet goes on."""
        parts = {name: None if part is None else part.state() for name, part in self.parts().items()}
        return {**self.tensors(), **parts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state` of a fleet with the same configuration and setup.

        Raises CheckpointError if a tensor has another shape than this fleet's.
        """
        for name, tensor in self.tensors().items():
            saved = torch.as_tensor(state[name])
            if saved.shape != tensor.shape:
                raise CheckpointError(
                    f"learner state {name}: shape {list(saved.shape)}, but this scenario's fleet has "
                    f"{list(tensor.shape)}; resume with the scenario that the checkpoint was written under"
                )
            tensor.copy_(saved)
        for name, part in self.parts().items():
            if part is not None:
                part.load_state(state[name])
