"""What learners of policies and central critics that are perceptrons have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.baselines.actors import Actors
from f2a2_sim.baselines.central_critics import CentralCritics
from f2a2_sim.baselines.config import PerceptronConfig
from f2a2_sim.baselines.joint_replay import JointBatch
from f2a2_sim.baselines.trainer import Statistics


class PerceptronLearner:
    """All agents of a world: ``actors``, and ``critics`` with ``outputs`` values each."""

    statistics: Mapping[str, str] = {
        "critic_loss": "Squared error of the critics, mean over agents and updates.",
        "critic_norm": "Norm of a critic's gradient before it is clipped, mean over agents and updates.",
        "policy_norm": "Norm of a policy's gradient before it is clipped, mean over agents and updates.",
        "entropy": "Entropy of a policy (nat), mean over agents and updates.",
    }

    def __init__(
        self,
        config: PerceptronConfig,
        observation_sizes: tuple[int, ...],
        n_actions: int,
        outputs: int,
        generator: np.random.Generator,
        device: torch.device | None,
        dtype: torch.dtype,
    ) -> None:
        self.n_actions = n_actions
        self.like = torch.empty(0, dtype=dtype, device=device)
        self.actors = Actors(config, observation_sizes, n_actions, generator, self.like)
        self.critics = CentralCritics(config, observation_sizes, n_actions, outputs, generator, self.like)

    def act(
        self, observations: list[NDArray[np.float32]], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Actions ``[rollouts, n]``, sampled from the policies by uniforms ``[n, rollouts]``."""
        return self.actors.act(observations, uniforms)

    def rewards_and_discounts(self, batch: JointBatch, discount: float) -> tuple[Tensor, Tensor]:
        """r and discount (1 - ended), each ``[n, batch]``."""
        return batch.rewards.to(self.like), discount * (1.0 - batch.ended.to(self.like))

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        return {"actors": self.actors.state(), "critics": self.critics.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state`."""
        self.actors.load_state(state["actors"])
        self.critics.load_state(state["critics"])


def taken(values: Tensor, actions: Tensor) -> Tensor:
    """Of ``[n, batch, actions]`` what belongs to ``actions`` ``[n, batch]``."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def shown(**values: Tensor) -> Statistics:
    """Statistics by name."""
    return {name: value.detach().double().cpu().numpy() for name, value in values.items()}
