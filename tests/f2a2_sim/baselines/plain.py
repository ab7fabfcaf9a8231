"""Small worlds' batches, and networks written down agent by agent, for gradients to be held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, leaky_relu, one_hot

from f2a2_sim.baselines.joint_replay import JointBatch
from f2a2_sim.baselines.perceptrons import PerceptronLearner
from f2a2_sim.learners.stacked import MlpShape

SIZES, ACTIONS, BATCH = (6, 6, 4), 4, 24
N = len(SIZES)
SMALL: dict[str, Any] = {"hidden_size": 8, "batch_size": BATCH, "policy_clip": 1e9, "critic_clip": 1e9}


def make(kind: Any, config: Any, **changes: Any) -> Any:
    """A learner in float64 whose targets are not its networks."""
    settings = config.model_validate(SMALL | changes)
    learner = kind(settings, SIZES, ACTIONS, np.random.default_rng(1), dtype=torch.float64)
    rng = np.random.default_rng(2)
    rows = [learner.critics.parameters, learner.critics.targets]
    for group in learner.actors.groups:
        rows += [group.parameters, group.targets]
    for tensor in rows:
        tensor.add_(torch.from_numpy(0.3 * rng.standard_normal(tuple(tensor.shape))))
    return learner


def batch_of(seed: int = 3) -> JointBatch:
    rng = np.random.default_rng(seed)

    def observe() -> list[Tensor]:
        return [torch.from_numpy(3 + rng.standard_normal((k, BATCH, o))) for k, o in ((2, 6), (1, 4))]

    return JointBatch(
        observe(),
        torch.from_numpy(rng.integers(0, ACTIONS, (N, BATCH))),
        torch.from_numpy(rng.standard_normal((N, BATCH))),
        observe(),
        torch.from_numpy((rng.random((N, BATCH)) < 0.2).astype(np.float64)),
    )


def by_agent(observations: list[Tensor]) -> list[Tensor]:
    """Standardised observations ``[batch, size]`` of each agent."""
    return [batch_norm(o, None, None, training=True, eps=1e-5) for group in observations for o in group]


def mlp(shape: MlpShape, row: Tensor, x: Tensor) -> Tensor:
    first, w1, b1, w2, b2 = (view[0] for view in shape.views(row.unsqueeze(0)))
    hidden = leaky_relu(x @ first[:-1] + first[-1], 0.01)
    hidden = leaky_relu(hidden @ w1[0] + b1[0], 0.01)
    return hidden @ w2[0] + b2[0]


def policy_rows(learner: PerceptronLearner, name: str = "parameters") -> list[Tensor]:
    """A copy of each agent's own parameters, a leaf."""
    rows = [row for group in learner.actors.groups for row in getattr(group, name)]
    return [row.clone().requires_grad_() for row in rows]


def critic_rows(learner: PerceptronLearner, name: str = "parameters") -> list[Tensor]:
    return [row.clone().requires_grad_() for row in getattr(learner.critics, name)]


def policy_logits(learner: PerceptronLearner, rows: list[Tensor], observations: list[Tensor]) -> list[Tensor]:
    shapes = [group.shape for group in learner.actors.groups for _ in range(group.group.count)]
    return [mlp(*each) for each in zip(shapes, rows, by_agent(observations), strict=True)]


def q_of(learner: PerceptronLearner, row: Tensor, observations: list[Tensor], acts: list[Tensor]) -> Tensor:
    """A critic's outputs for actions given as ``[batch, actions]`` each."""
    return mlp(learner.critics.shape, row, torch.cat([*by_agent(observations), *acts], dim=1))


def hot(actions: Tensor) -> list[Tensor]:
    return [one_hot(a, ACTIONS).double() for a in actions]


def gradients(loss: Tensor, rows: list[Tensor]) -> Tensor:
    """Stacked gradients; rows of unlike length are cut out by `same`."""
    return torch.nn.utils.rnn.pad_sequence(list(torch.autograd.grad(loss, rows)), batch_first=True)


def policy_gradients(learner: PerceptronLearner) -> Tensor:
    rows = [row for group in learner.actors.groups for row in group.gradient]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def close(left: Tensor, right: Tensor) -> None:
    assert right.abs().max() > 1e-3
    torch.testing.assert_close(left, right.detach(), rtol=1e-9, atol=1e-11)


class Fixed:
    """Chooses given actions, and keeps the probabilities that it was asked with."""

    def __init__(self, seed: int, batch: int = BATCH) -> None:
        self.actions = torch.from_numpy(np.random.default_rng(seed).integers(0, ACTIONS, (N, batch)))
        self.probabilities = torch.empty(0)

    def __call__(self, probabilities: Tensor) -> Tensor:
        self.probabilities = probabilities.clone()
        return self.actions
