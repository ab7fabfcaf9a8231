"""What learners have in common whose critics are perceptrons, or MAAC's that attend to the others."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.learners.attention_shape import AttentionShape
from f2a2_sim.learners.base import FleetSetup
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.joint.attention_twins import AttentionTwins
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.joint.mlp_critic import JointInputLayout
from f2a2_sim.learners.stacked import MlpShape

Critic = TypeVar("Critic")


class CriticsFleet(JointFleet, Generic[Critic]):
    """A learner says what shape its critics have, and what computes them."""

    def __init__(self, config: LearnerConfig, setup: FleetSetup) -> None:
        self._critics: dict[int, Critic] = {}  # by worker
        super().__init__(config, setup)

    @property
    @abstractmethod
    def critic_shape(self) -> MlpShape | AttentionShape | AttentionTwins:
        """Of one agent's critics."""

    @abstractmethod
    def make_critic(self) -> Critic:
        """The arithmetic of critics of that shape."""

    @cached_property
    def layout(self) -> JointInputLayout:
        """Of what a perceptron reads."""
        return JointInputLayout(self.seen_sizes, self.setup.n_actions)

    @cached_property
    def attention_shape(self) -> AttentionShape:
        """Of one critic that attends to the others."""
        config = self.config
        return AttentionShape(self.seen_sizes, self.setup.n_actions, config.hidden_size, config.heads)

    def critic_size(self) -> int:
        return self.critic_shape.size

    def attention_columns(self) -> slice:
        shape = self.critic_shape
        return super().attention_columns() if isinstance(shape, MlpShape) else shape.attention_columns

    def initial_critic(self, generator: np.random.Generator) -> NDArray[np.float64]:
        return self.critic_shape.initial(generator)

    def critic(self, worker: int) -> Critic:
        """One per thread: its buffers are overwritten by every pass."""
        if worker not in self._critics:
            self._critics[worker] = self.make_critic()
        return self._critics[worker]
