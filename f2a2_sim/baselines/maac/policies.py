"""MAAC's policies: one perceptron per agent, stacked by size of observation, with hand-written gradients.

pi_i(. | o) = softmax(z), z an MLP of the standardised observation.  Agent i descends, for an action a_i
sampled now,

    mean_b[ log pi_i(a_i) sg(log pi_i(a_i) / reward_scale - (Q_i(a_i) - B_i)) ] + logit_decay mean_b,a[ z^2 ]

with B_i = sum_a pi_i(a) Q_i(a), the counterfactual baseline (Iqbal and Sha, ICML 2019, eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from f2a2_sim.learners.recorded import recorder_for
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

Work = Callable[[], Tensor]
"""What can be done beside others of its kind."""

Look = Callable[..., tuple[Tensor, Tensor]]
"""Makes dL/dz ``[agents, batch, actions]``, and a number for each agent, of what is known of some agents."""


@dataclass(frozen=True)
class Valued:
    """What the critic makes of a group's policies."""

    logits: Tensor  # z [group, batch, actions]
    actions: Tensor  # sampled, int64 [group, batch, 1]
    q: Tensor  # of all actions, with everybody's sampled ones [group, batch, actions]


@dataclass(frozen=True)
class PolicyLoss:
    """What a policy step looks at, by agent of a group ``[group, batch, .]``."""

    logits: Tensor  # z
    log: Tensor  # log pi, of all actions
    actions: Tensor  # int64 [group, batch, 1]
    coefficient: Tensor  # what stands under sg, [group, batch, 1]

    @staticmethod
    def of(config: MaacConfig, valued: Valued) -> PolicyLoss:
        """From the updated critic's values."""
        log, q, actions = log_softmax(valued.logits), valued.q, valued.actions
        baseline = (log.exp() * q).sum(dim=-1, keepdim=True)
        advantage = q.gather(-1, actions) - baseline
        return PolicyLoss(
            valued.logits, log, actions, log.gather(-1, actions) / config.reward_scale - advantage
        )

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
        self._adam_rows = [self.adam.rows(block, slice(0, self.shape.size)) for block in self._blocks]
        self._networks: dict[tuple[int, int], StackedMlp] = {}  # by block and size of batch
        self._pool = BlockPool() if pool is None else pool
        self._recorded = recorder_for(like.device)

    def initialise(self, generator: np.random.Generator) -> None:
        """Draw parameters; targets are copies of them."""
        drawn = np.stack([self.shape.initial(generator) for _ in range(self.group.count)])
        self.parameters.copy_(torch.from_numpy(drawn))
        self.targets.copy_(self.parameters)

    def logits(self, inputs: Tensor) -> Tensor:
        """z ``[group, batch, actions]`` of ``inputs`` ``[group, batch, size + 1]``, the last column ones."""
        return torch.cat(self._pool.map(do, self.passes(inputs)))

    def target_logits(self, inputs: Tensor) -> Tensor:
        """The same, of the target policies."""
        return torch.cat(self._pool.map(do, self.target_passes(inputs)))

    def passes(self, inputs: Tensor) -> list[Work]:
        """The parts of `logits`, in their order; what they return lies where the next pass writes."""
        return self._forward("logits", self._arrays, inputs)

    def target_passes(self, inputs: Tensor) -> list[Work]:
        """The parts of `target_logits`."""
        return self._forward("target_logits", self._target_arrays, inputs)

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
        for at, block in enumerate(self._blocks):
            self._backward(at, inputs[block], logit_gradient[block])

    def clip(self) -> Tensor:
        """Clip each agent's gradient; the norms before, ``[group]``."""
        return torch.cat([self._clip(block) for block in self._blocks])

    def step(self) -> None:
        """One step of Adam."""
        for at in range(len(self._blocks)):
            self._step(at)

    def descents(self, inputs: Tensor, given: Sequence[Tensor], look: Look) -> list[Work]:
        """The parts of `backward`, `clip` and `step` with what ``look`` makes of agents' ``given``.

        ``given`` are ``[group, ...]``. Each part returns the norms before clipping and what ``look`` tells,
        ``[2, agents]``.
        """

        def part(at: int, block: slice) -> Work:
            def descend(seen: Tensor, *given: Tensor) -> Tensor:
                gradient, told = look(*given)
                self._backward(at, seen, gradient)
                norms = self._clip(block)
                self._step(at)
                return torch.stack((norms, told))

            mine = [values[block] for values in (inputs, *given)]
            return lambda: self._recorded.run(("descent", at, inputs.shape[1]), mine, descend)

        return [part(at, block) for at, block in enumerate(self._blocks)]

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

    def _forward(self, what: str, arrays: list[MlpArrays], inputs: Tensor) -> list[Work]:
        def part(at: int, block: slice) -> Work:
            network = self._network(at, inputs.shape[1])

            def forward(seen: Tensor) -> Tensor:
                return network.forward(arrays[at], seen)[0]

            return lambda: self._recorded.run((what, at, inputs.shape[1]), [inputs[block]], forward)

        return [part(at, block) for at, block in enumerate(self._blocks)]

    def _backward(self, at: int, inputs: Tensor, logit_gradient: Tensor) -> None:
        network = self._network(at, inputs.shape[1])
        network.backward(self._arrays[at], inputs, logit_gradient.unsqueeze(0), self._gradient_arrays[at])

    def _clip(self, block: slice) -> Tensor:
        return clip_norms(self.gradient[block], self.config.policy_clip)

    def _step(self, at: int) -> None:
        block = self._blocks[at]
        self.adam.steps[block].add_(1)
        self.adam.apply(self._adam_rows[at], self.gradient[block], 0.0)

    def _network(self, at: int, batch: int) -> StackedMlp:
        block = self._blocks[at]
        if (at, batch) not in self._networks:
            shapes = StackedMlp.memory_shapes(self.shape, block.stop - block.start, batch)
            with torch.inference_mode(False):  # or it could be written in that mode alone
                memory = carve(shapes, self.parameters[:0])
            self._networks[at, batch] = StackedMlp(self.shape.hidden, memory)
        return self._networks[at, batch]


def do(thread: int, work: Work) -> Tensor:
    """For a `BlockPool`."""
    return work()
