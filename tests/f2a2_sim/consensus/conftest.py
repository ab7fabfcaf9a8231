"""Small fleets of real learners for the consensus tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from f2a2_sim.learners.base import FleetSetup, Learner, make_fleet
from f2a2_sim.learners.config import LearnerConfig

MakeFleet = Callable[..., Learner]


@pytest.fixture
def make_learner() -> MakeFleet:
    """An ISAC fleet of ``agents`` with their own random weights."""

    def make(agents: int, beta: float = 0.0, dtype: torch.dtype = torch.float64) -> Learner:
        config = LearnerConfig(hidden_size=4, batch_size=4, replay_transitions=agents * 16)
        setup = FleetSetup(
            observation_size=3,
            n_actions=2,
            seeds=list(range(1, agents + 1)),
            army_size=agents,
            beta=beta,
            dtype=dtype,
        )
        return make_fleet(config, setup)

    return make


def trained(learner: Learner) -> np.ndarray:
    """w~ of every agent as an independent copy, ``[n, S]``."""
    return learner.shared_parameters().detach().numpy().copy()
