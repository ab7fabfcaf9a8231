"""What every learner offers the simulator, and the registry that a scenario's `learner.name` looks in.

A new learner is one module with a factory of type `LearnerFactory`: within the package with a line in
`_LEARNERS`, outside of it named as ``package.module:callable``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from devices.compute import Work
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.config import LearnerConfig

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Shared = Literal["all", "critic", "actor", "attention"]


@dataclass(frozen=True)
class FleetSetup:
    """Everything that a learner's factory needs besides its configuration.

    ``observation_size`` and ``n_actions`` are those of the fleet's agents. ``observation_sizes`` are those of
    all agents of the world, in their order, for learners with ``joint_information``: their fleet is all of
    them, and ``observation_size`` is the largest. ``rollouts`` copies of the world run at a time.

    ``seeds`` holds one seed per agent for the initial weights; equal seeds are equal weights.
    ``army_size`` is the number of agents among whom ``replay_transitions`` is divided (fleets of
    other shapes included).  ``shared`` names the consensus variable, ``beta`` the weight of its penalty
    (0: the scheme has no dual), ``penalty_step`` how it is applied and ``dual_decay`` the share of the dual
    that a round keeps (see ``ConsensusConfig``).
    """

    observation_size: int
    n_actions: int
    seeds: Sequence[int]
    army_size: int
    shared: Shared = "all"
    beta: float = 0.0
    penalty_step: float | None = None
    dual_decay: float = 1.0
    observation_sizes: tuple[int, ...] = ()
    rollouts: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32


class Learner(Protocol):
    """A fleet: ``n_agents`` learners with equal network shapes, stacked; no agent reads another's row.

    ``rows`` are always distinct row numbers, int64 ``[r]``, in any order; results come in that order.

    A learner whose factory has ``joint_information = True`` sees everybody's observations and actions, and
    plays several rollouts at a time: its one fleet holds all agents of the world; `act` has an axis of
    rollouts after that of the rows; `remember` is given arrays of all n agents, ``[n, rollouts, ...]``,
    observations padded with zeros to the largest size, and in ``rows`` those who remember the step.
    """

    n_agents: int
    parameters: torch.Tensor
    """What the agents train, ``[n_agents, P]``; row i is agent i's."""

    def act(
        self, rows: IntArray, observations: NDArray[np.float32], uniforms: FloatArray
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """Sample an action per row: observations ``[r, obs]``, uniforms in [0, 1) ``[r]`` ->
        actions int64 ``[r]``, the policy's logits float32 ``[r, n_actions]``."""
        ...

    def remember(
        self,
        rows: IntArray,
        observations: NDArray[np.float32],
        actions: IntArray,
        logits: NDArray[np.float32],
        rewards: NDArray[np.float32],
        next_observations: NDArray[np.float32],
        terminal: BoolArray,
    ) -> None:
        """Store one transition per row. ``terminal``: nothing follows (a time limit is not terminal)."""
        ...

    def can_update(self, rows: IntArray) -> BoolArray:
        """Which rows hold enough transitions for an update."""
        ...

    @property
    def draws_per_update(self) -> int:
        """Uniform numbers that one agent's `draw_batch` consumes."""
        ...

    def draw_batch(self, rows: IntArray, uniforms: FloatArray) -> Batch:
        """Choose the transitions of the next update: uniforms ``[r, draws_per_update]``."""
        ...

    def update(self, rows: IntArray, batch: Batch) -> dict[str, FloatArray]:
        """One update per row; statistics as arrays ``[r]``."""
        ...

    def shared_columns(self) -> slice:
        """The columns of ``parameters`` that are the consensus variable."""
        ...

    def shared_parameters(self) -> torch.Tensor:
        """A view of them: ``[n_agents, S]``."""
        ...

    def take_consensus(self, rows: IntArray, view: torch.Tensor) -> None:
        """5.4c: w <- view ``[r, S]``; 5.4d: lambda <- dual_decay lambda + beta (w~ - w)."""
        ...

    def adopt(self, rows: IntArray, values: torch.Tensor) -> None:
        """Replace shared parameters: w~ <- values ``[r, S]`` (gossip, push-sum)."""
        ...

    def start_from(self, rows: IntArray, parameters: torch.Tensor) -> None:
        """Give rows that have just been reset these parameters ``[P]``, with joint critics ``[r, P]``, their
        target networks included."""
        ...

    @property
    def dual(self) -> torch.Tensor:
        """lambda of every agent, a view ``[n_agents, S]``; no rows where the scheme has none."""
        ...

    def reset(self, rows: IntArray, seeds: Sequence[int]) -> None:
        """Forget everything, as after a crash: new weights from ``seeds``, empty replay, no duals."""
        ...

    def act_work(self) -> Work:
        """Cost of one action of one agent."""
        ...

    def update_work(self) -> Work:
        """Cost of one update of one agent."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """What one agent holds: parameters, optimiser, consensus, replay, activations."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that changes, as tensors and arrays that are *views* of the living state."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state`."""
        ...


@dataclass(frozen=True)
class Batch:
    """What an update will use: ``indices`` int64 ``[r, batch]`` into each row's replay, and, when
    expectations are sampled, one uniform for a~ and one for a~' of each transition (else None)."""

    indices: IntArray
    resample: FloatArray | None = None

    def take(self, positions: IntArray | slice) -> Batch:
        """The batch of some of its rows."""
        resample = None if self.resample is None else self.resample[positions]
        return Batch(self.indices[positions], resample)


LearnerFactory = Callable[[LearnerConfig, FleetSetup], Learner]

_LEARNERS = {
    "f2a2_coma": "f2a2_sim.learners.joint.coma:ComaFleet",
    "f2a2_ddpg": "f2a2_sim.learners.joint.ddpg:DdpgFleet",
    "f2a2_isac": "f2a2_sim.learners.isac:IsacFleet",
    "f2a2_sac": "f2a2_sim.learners.joint.sac:SacFleet",
    "f2a2_td3": "f2a2_sim.learners.joint.td3:Td3Fleet",
}


def learner_names() -> list[str]:
    """Every learner of the package."""
    return sorted(_LEARNERS)


def learner_factory(name: str) -> LearnerFactory:
    """What makes the fleets of a learner: one of `learner_names`, or your own, ``package.module:callable``.

    Raises UsageError if there is none of that name.
    """
    module_name, colon, attribute = _LEARNERS.get(name, name).partition(":")
    if not colon:
        near = difflib.get_close_matches(name, learner_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"learner.name: {name!r} is not a learner; expected one of {', '.join(learner_names())}, or "
            f"package.module:callable that makes one of your own{hint}"
        )
    try:
        factory: LearnerFactory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"learner.name: {name!r} cannot be imported ({error}); expected package.module:callable of an "
            "installed module, or one beside which you run (set PYTHONPATH)"
        ) from error
    return factory


def joint_information(name: str) -> bool:
    """Whether that learner sees everybody's observations and actions (see `Learner`)."""
    return bool(getattr(learner_factory(name), "joint_information", False))


def make_fleet(config: LearnerConfig, setup: FleetSetup) -> Learner:
    """The fleet that ``config.name`` stands for."""
    if config.args and config.name in _LEARNERS:
        raise UsageError(
            f"learner.args = {config.args!r}: {config.name} takes none; its settings are keys of learner"
        )
    return learner_factory(config.name)(config, setup)
