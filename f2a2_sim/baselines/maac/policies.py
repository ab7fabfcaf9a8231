"""MAAC's policies: one perceptron per agent, stacked by size of observation, with hand-written gradients.

pi_i(. | o) = softmax(z), z an MLP of the standardised observation.  Agent i descends, for an action a_i
sampled now,

    mean_b[ log pi_i(a_i) sg(log pi_i(a_i) / reward_scale - (Q_i(a_i) - B_i)) ] + logit_decay mean_b,a[ z^2 ]

with B_i = sum_a pi_i(a) Q_i(a), the counterfactual baseline (Iqbal and Sha, ICML 2019, eq. 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.steps import clip_norms, load_into, optimiser_state
from f2a2_sim.learners.attention_shape import AgentGroup
from f2a2_sim.learners.few import log_softmax
from f2a2_sim.learners.pool import BlockPool
from f2a2_sim.learners.rate_decay import RateDecay
from f2a2_sim.learners.stacked import (
    MlpArrays,
    MlpShape,
    StackedAdam,
    StackedMlp,
    add_logit_decay,
    carve,
    evaluate,
    zeros,
)
from f2a2_sim.learners.standardise import RunningMoments, Standardised


@dataclass(frozen=True)
class PolicyLoss:
    """What a policy step looks at, by agent of a group ``[group, batch, .]``."""

    logits: Tensor  # z
    log: Tensor  # log pi, of all actions
    actions: Tensor  # int64 [group, batch, 1]
    coefficient: Tensor  # what stands under sg, [group, batch, 1]

    @staticmethod
    def of(config: MaacConfig, logits: Tensor, actions: Tensor, q: Tensor) -> PolicyLoss:
        """From ``q`` ``[group, batch, actions]``, the updated critic's with everybody's sampled actions."""
        log = log_softmax(logits)
        baseline = (log.exp() * q).sum(dim=-1, keepdim=True)
        advantage = q.gather(-1, actions) - baseline
        return PolicyLoss(logits, log, actions, log.gather(-1, actions) / config.reward_scale - advantage)

    def policy_gradient(self) -> Tensor:
        """The loss's first term, ``[group]``."""
        return (self.log.gather(-1, self.actions) * self.coefficient).mean(dim=(1, 2))

    def entropy(self) -> Tensor:
        """Mean entropy, ``[group]``."""
        return -(self.log.exp() * self.log).sum(dim=-1).mean(dim=1)

    def logit_gradient(self, config: MaacConfig) -> Tensor:
        """dL/dz: of log pi(a) it is onehot(a) - pi."""
        weight = self.coefficient / self.logits.shape[1]
        gradient = self.log.exp().mul_(-weight).scatter_add_(-1, self.actions, weight)
        return add_logit_decay(gradient, self.logits, config.logit_decay)


class PolicySettings(Protocol):
    """What a group of policies goes by; `MaacConfig` says what each means."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def learning_rate_decay(self) -> RateDecay | None: ...

    @property
    def tau(self) -> float: ...

    @property
    def policy_clip(self) -> float: ...


class PolicyGroup:
    """The policies of one group of agents: parameters ``[group, P]``, targets, optimiser, running moments.

    On a processor each agent is a block of its own, several of which are computed at once.
    """

    def __init__(
        self,
        config: PolicySettings,
        group: AgentGroup,
        n_actions: int,
        like: Tensor,
        pool: BlockPool | None = None,
    ) -> None:
        self.config = config
        self.group = group
        self.shape = MlpShape(group.observation_size, config.hidden_size, 2, n_actions)
        rows = (group.count, self.shape.size)
        self.parameters, self.targets, self.gradient = (
            zeros(rows, like.dtype, like.device) for _ in range(3)
        )
        self.adam = StackedAdam(self.parameters, config.learning_rate, config.learning_rate_decay)
        self.moments = RunningMoments(group.count, group.observation_size, like)
        size = 1 if like.device.type == "cpu" else group.count
        self._blocks = [slice(first, first + size) for first in range(0, group.count, size)]
        self._arrays, self._target_arrays, self._gradient_arrays = (
            [self.shape.arrays(rows[block]) for block in self._blocks]
            for rows in (self.parameters, self.targets, self.gradient)
        )
        self._adam_rows = self.adam.rows(slice(0, group.count), slice(0, self.shape.size))
        self._passes: dict[tuple[int, int], StackedMlp] = {}  # by block and size of batch
        self._pool = BlockPool() if pool is None else pool

    def initialise(self, generator: np.random.Generator) -> None:
        """Draw parameters; targets are copies of them."""
        drawn = np.stack([self.shape.initial(generator) for _ in range(self.group.count)])
        self.parameters.copy_(torch.from_numpy(drawn))
        self.targets.copy_(self.parameters)

    def logits(self, inputs: Tensor) -> Tensor:
        """z ``[group, batch, actions]`` of ``inputs`` ``[group, batch, size + 1]``, the last column ones."""
        return self._forward(self._arrays, inputs)

    def target_logits(self, inputs: Tensor) -> Tensor:
        """The same, of the target policies."""
        return self._forward(self._target_arrays, inputs)

    def acting_logits(self, observations: Tensor) -> Tensor:
        """z of raw observations ``[group, batch, size]``, standardised by the running moments."""
        inputs = torch.nn.functional.pad(self.moments.standardise(observations), (0, 1), value=1.0)
        return evaluate(self.shape.arrays(self.parameters), inputs)

    def follow(self, seen: Standardised) -> None:
        """Let the running moments follow a batch of observations."""
        self.moments.follow(seen)

    def backward(self, inputs: Tensor, logit_gradient: Tensor) -> None:
        """A loss's gradient, to ``gradient``, from dL/dz ``[group, batch, actions]``.

        The last `logits` must have been of ``inputs``.
        """

        def work(_: int, at: int) -> None:
            block = self._blocks[at]
            seen, upstream = inputs[block], logit_gradient[block].unsqueeze(0)
            self._pass(at, inputs).backward(self._arrays[at], seen, upstream, self._gradient_arrays[at])

        self._pool.map(work, range(len(self._blocks)))

    def clip(self) -> Tensor:
        """Clip each agent's gradient; the norms before, ``[group]``."""
        return clip_norms(self.gradient, self.config.policy_clip)

    def step(self) -> None:
        """One step of Adam."""
        self.adam.steps.add_(1)
        self.adam.apply(self._adam_rows, self.gradient, 0.0)

    def follow_targets(self) -> None:
        """theta' <- (1 - tau) theta' + tau theta; running moments are not copied."""
        self.targets.lerp_(self.parameters, self.config.tau)

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        moments = {"mean": self.moments.mean, "variance": self.moments.variance}
        return {
            "parameters": self.parameters,
            "targets": self.targets,
            **optimiser_state(self.adam),
            **moments,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        load_into(self.state(), state)

    def _forward(self, arrays: list[MlpArrays], inputs: Tensor) -> Tensor:
        def work(_: int, at: int) -> Tensor:
            return self._pass(at, inputs).forward(arrays[at], inputs[self._blocks[at]])[0]

        return torch.cat(self._pool.map(work, range(len(self._blocks))))

    def _pass(self, at: int, inputs: Tensor) -> StackedMlp:
        block, batch = self._blocks[at], inputs.shape[1]
        if (at, batch) not in self._passes:
            shapes = StackedMlp.memory_shapes(self.shape, block.stop - block.start, batch)
            with torch.inference_mode(False):  # or it could be written in that mode alone
                memory = carve(shapes, self.parameters[:0])
            self._passes[at, batch] = StackedMlp(self.shape.hidden, memory)
        return self._passes[at, batch]
