"""A small fleet with replay in it: three agents, observations of 7 numbers, 5 actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from f2a2_sim.learners.base import FleetSetup
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.isac import IsacFleet

OBSERVATION, ACTIONS = 7, 5
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "batch_size": 6,
    "replay_transitions": 120,
    "replay_dtype": "float32",
    "learning_rate": 0.01,
    "temperature": 0.3,
    "tau": 0.25,
    "alpha1": 0.7,
    "alpha2": 0.4,
    "block_agents": 2,
}


def small_config(**changes: Any) -> LearnerConfig:
    return LearnerConfig.model_validate(SMALL | changes)


def fill(fleet: IsacFleet, seed: int, steps: int = 12) -> None:
    """Give every agent ``steps`` random transitions, some of them terminal, some after a gap."""
    rng = np.random.default_rng(seed)
    k = fleet.n_agents
    rows = np.arange(k)
    observations = rng.standard_normal((k, OBSERVATION)).astype(np.float32)
    for _ in range(steps):
        following = rng.standard_normal((k, OBSERVATION)).astype(np.float32)
        fleet.remember(
            rows,
            observations,
            rng.integers(0, ACTIONS, k),
            rng.standard_normal((k, ACTIONS)).astype(np.float32),
            rng.standard_normal(k).astype(np.float32),
            following,
            rng.random(k) < 0.2,
        )
        gap = rng.random((k, 1)) < 0.2
        observations = np.where(gap, rng.standard_normal(following.shape), following).astype(np.float32)


@pytest.fixture
def make_small() -> Callable[..., IsacFleet]:
    def make(
        agents: int = 3,
        dtype: torch.dtype = torch.float64,
        beta: float = 0.0,
        shared: Any = "all",
        penalty_step: float | None = None,
        dual_decay: float = 1.0,
        seed: int = 0,
        **changes: Any,
    ) -> IsacFleet:
        setup = FleetSetup(
            OBSERVATION,
            ACTIONS,
            list(range(agents)),
            agents,
            shared=shared,
            beta=beta,
            penalty_step=penalty_step,
            dual_decay=dual_decay,
            dtype=dtype,
        )
        fleet = IsacFleet(small_config(**changes), setup)
        fill(fleet, seed)
        return fleet

    return make
