"""MOA: every agent's models of what all others will do (paper, Section 5.2 and Appendix G).

Agent i predicts the action of every other agent j from its observation o^j and its past:

    character c_ij   mean over fixed random trajectories of j of the last state of a GRU that reads one
    mental m_ij      last state of another GRU over j's last steps (o, a) of the present episode
    natural          logits of a perceptron on [o^j, c_ij, m_ij, j]
    impromptu        logits of a perceptron on [o^j, j]
    prediction       the mean of the two logits

The four networks are i's own and serve all j: as in Rabinowitz et al., "Machine Theory of Mind" (ICML 2018),
which the paper follows, and as its Appendix G counts (one char-net, one mental-net, "two prediction net",
pairs "of all agents").  There it is the character that tells j from others.  But means over many random
trajectories are equal for equal bodies, whose policies differ all the same; so the predictions also read the
number j, one of n, unless ``identity`` is false.

Each prediction learns on its own, by cross-entropy on the newest pairs; the paper gives them batches of
different sizes, which no joint loss could have.  So either alone estimates log pi^j up to a constant, and
their mean, the geometric mean of the two distributions, is as sure of itself as they are.  Their sum would
count what both know twice.  (The paper says "combined".)

Departures in cost only (keys of `MoaConfig`): the character network learns through some of the trajectories,
drawn anew for every update; the characters are read from all of them after every so many updates.  In between
an update takes the value of c_ij from the last reading and its gradient from the drawn ones, an estimate that
is without bias in the draw.

Observations come standardised from the caller, and padded with zeros to the largest size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from devices.compute import Work
from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.learners.base import BoolArray, FloatArray, IntArray
from f2a2_sim.learners.joint.moa_config import MoaConfig
from f2a2_sim.learners.joint.moa_passes import MoaPasses
from f2a2_sim.learners.joint.moa_shape import MoaShape
from f2a2_sim.learners.joint.moa_store import RecentSteps
from f2a2_sim.learners.pool import BlockPool
from f2a2_sim.learners.stacked import StackedAdam, blocks_of, zeros
from f2a2_sim.learners.work import count_work

STATISTICS = (
    "moa_loss_natural",
    "moa_loss_impromptu",
    "moa_accuracy_natural",
    "moa_accuracy_impromptu",
    "moa_accuracy",
)
_NEVER = 2**62


@dataclass(frozen=True)
class MoaSetup:
    """Everything that `OthersModel` needs besides its configuration.

    Row r is the observer ``agents[r]`` of ``n_agents``; it starts from ``seeds[r]`` (equal seeds are equal
    weights).  ``learning_rate`` is the learner's.  Numbers are of the kind and on the device of ``like``.
    """

    agents: Sequence[int]
    n_agents: int
    observation_size: int
    n_actions: int
    seeds: Sequence[int]
    learning_rate: float
    rollouts: int
    like: Tensor


class OthersModel:
    """The models of ``k`` observers, one flat row each; no observer reads another's row.

    ``rows`` are distinct row numbers, int64 ``[r]``, in any order; results come in that order.
    """

    def __init__(self, config: MoaConfig, setup: MoaSetup) -> None:
        if setup.n_agents < 2:
            raise UsageError(f"moa: {setup.n_agents} agents; expected at least two: there is nobody to model")
        self.config = config
        self.setup = setup
        self.shape = MoaShape(config, setup.n_agents, setup.observation_size, setup.n_actions)
        k, n = len(setup.agents), setup.n_agents
        dtype, device = setup.like.dtype, setup.like.device
        others = [[j for j in range(n) if j != own] for own in setup.agents]
        self.others = torch.tensor(others, dtype=torch.int64).to(device)
        self.parameters = zeros((k, self.shape.size), dtype, device)
        rate = setup.learning_rate if config.learning_rate is None else config.learning_rate
        self.adam = StackedAdam(self.parameters, rate)
        self.characters = zeros((k, n - 1, config.recurrent_size), dtype, device)
        self.natural_steps = -(-config.natural_pairs // (n - 1))
        self.impromptu_steps = -(-config.impromptu_pairs // (n - 1))
        self.recent = RecentSteps(
            self.others,
            n,
            setup.rollouts,
            self.shape.width,
            max(self.natural_steps, self.impromptu_steps),
            config.history_steps,
            setup.like,
        )
        self._trajectories = setup.like.new_zeros(config.trajectory_steps, n, 0, self.shape.width)
        self._unread = np.zeros(k, dtype=np.int64)  # updates since the characters were read
        self._accuracies = torch.full((k, 3), torch.nan, dtype=torch.float64, device=device)
        self._pool = BlockPool()
        self._passes: dict[tuple[int, int], MoaPasses] = {}  # by worker and size of block
        self._worked: Work | None = None
        self.reset(np.arange(k), setup.seeds)

    # ------------------------------------------------------------------ what is known

    def gather(self, observations: Tensor, actions: Tensor) -> None:
        """The fixed random trajectories: ``[trajectories, trajectory_steps, n, size]``, actions likewise.

        Every observer saw the same ones, so one copy serves them all; each pays for its own.
        """
        expected = (self.config.trajectories, self.config.trajectory_steps, self.setup.n_agents)
        if tuple(observations.shape[:3]) != expected or tuple(actions.shape) != expected:
            raise ValueError(
                f"random trajectories {tuple(observations.shape)} with actions {tuple(actions.shape)}, "
                f"expected {expected} (trajectories, steps, agents)"
            )
        self._trajectories = self.steps_of(observations, actions).permute(1, 2, 0, 3).contiguous()
        self._read_characters(np.arange(len(self.setup.agents)))

    def observe(
        self,
        rows: IntArray,
        observations: Tensor,
        actions: Tensor,
        new_episode: BoolArray,
        known: Tensor | None = None,
    ) -> None:
        """A step of all rollouts that ``rows`` have seen; told without rows too if episodes begin.

        ``observations`` ``[n, rollouts, size]`` are those before the ``actions`` ``[n, rollouts]``; where
        observers do not see the same, all arrays have ``r`` in front.  ``new_episode`` ``[rollouts]``: the
        step is the first of its episode.  What is not ``known`` (bool, as the actions) is not learnt from,
        but stands in the histories: an agent that is dead, or whose step has not arrived.
        """
        if known is None:
            known = torch.ones_like(actions, dtype=torch.bool)
        steps = self.steps_of(observations, actions).transpose(-3, -2)
        self.recent.add(rows, steps, actions.transpose(-2, -1), known.transpose(-2, -1), new_episode)

    def steps_of(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What the recurrent networks read of steps: ``[..., size]`` and ``[...]`` -> ``[..., width]``."""
        one_hot = torch.nn.functional.one_hot(actions.long(), self.setup.n_actions)
        return torch.cat([observations.to(self.parameters), one_hot.to(self.parameters)], dim=-1)

    def present(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Histories and lengths for `logits` at the step to come of every rollout (batch = rollouts).

        They go on from the last step seen; a new episode begins with lengths of 0 instead.
        """
        return self.recent.present(rows)

    # ------------------------------------------------------------------ predicting

    def logits(self, rows: IntArray, observations: Tensor, histories: Tensor, lengths: Tensor) -> Tensor:
        """Predicted logits ``[r, n, batch, actions]`` of everybody's actions; the observer's own are 0.

        At ``observations`` ``[r, n, batch, size]``.  ``histories`` ``[r, n, batch, history_steps, width]``
        are the steps just before (`steps_of`), oldest first; of them the last ``lengths`` ``[r, n, batch]``
        belong to the episode.
        """
        predicted = self.parameters.new_zeros(*observations.shape[:3], self.setup.n_actions)

        def predict_block(worker: int, block: tuple[slice, IntArray]) -> None:
            run, positions = block
            at = torch.from_numpy(positions).to(predicted.device)
            seen = observations[at], histories[at], lengths[at]
            predicted[at] = self.predict(worker, run, *seen)

        self._pool.map(predict_block, list(blocks_of(rows, self.config.block_agents)))
        return predicted

    @torch.inference_mode()
    def predict(
        self, worker: int, run: slice, observations: Tensor, histories: Tensor, lengths: Tensor
    ) -> Tensor:
        """`logits` of neighbouring rows, on a thread of the caller's; its number is in use by no other."""
        self._assert_gathered()
        predicted = self.parameters.new_zeros(*observations.shape[:3], self.setup.n_actions)
        at = torch.arange(len(predicted), device=predicted.device).unsqueeze(1)
        self._passes_of(worker, len(predicted)).predict(
            self.shape.arrays(self.parameters[run]),
            self.characters[run],
            (observations, histories, lengths),
            (at, self.others[run]),
            predicted,
        )
        return predicted

    # ------------------------------------------------------------------ learning

    def can_update(self, rows: IntArray) -> BoolArray:
        """Which rows have something to learn from."""
        return self.recent.holds_pairs(rows)

    @property
    def draws_per_update(self) -> int:
        """Uniform numbers of one update of one observer."""
        return self.config.character_trajectories_per_update

    def update(self, rows: IntArray, uniforms: FloatArray) -> dict[str, FloatArray]:
        """One step of learning per row: uniforms in [0, 1) ``[r, draws_per_update]``, `STATISTICS` ``[r]``.

        Losses are of the batch, before the step.  Accuracies are of those newest pairs that no update has
        learnt from yet, by networks that have not seen them; an update without such pairs repeats the last
        ones (NaN if there were none yet).  Of each batch they are the pairs that both predictions have.
        """
        self._assert_gathered()
        statistics = {name: np.empty(len(rows)) for name in STATISTICS}
        trajectories = torch.from_numpy(self._drawn(uniforms)).to(self.parameters.device)

        def update_block(worker: int, block: tuple[slice, IntArray]) -> None:
            run, positions = block
            drawn = trajectories[torch.from_numpy(positions).to(trajectories.device)]
            values = self._update_block(self._passes_of(worker, len(positions)), run, drawn).cpu().numpy()
            for name, column in zip(STATISTICS, values, strict=True):
                statistics[name][positions] = column

        self._pool.map(update_block, list(blocks_of(rows, self.config.block_agents)))
        self.recent.all_is_old(rows)
        self._unread[rows] += 1
        self._read_characters(rows[self._unread[rows] >= self.config.character_refresh_updates])
        return statistics

    @torch.inference_mode()
    def _update_block(self, passes: MoaPasses, run: slice, drawn: Tensor) -> Tensor:
        """`STATISTICS` in their order, ``[5, b]``."""
        arrays = self.shape.arrays(self.parameters[run])
        pairs = self.recent.newest(run, max(self.natural_steps, self.impromptu_steps), self.natural_steps)
        others = self.others[run]
        outcome = passes.gradient(arrays, self.characters[run], pairs, others, self.impromptu_steps)
        passes.character_gradient(arrays, self._trajectories, others, drawn, outcome.character_gradient)
        self.adam.steps[run].add_(1)
        self.adam.apply(self.adam.rows(run, slice(None)), passes.parameters_gradient, 0.0)
        old = self._accuracies[run]
        self._accuracies[run] = torch.where(outcome.accuracies.isnan(), old, outcome.accuracies)
        return torch.cat([outcome.losses, self._accuracies[run]], dim=1).T

    def _drawn(self, uniforms: FloatArray) -> IntArray:
        """One trajectory out of each of as many equal shares as are drawn: all of them, if all are."""
        count = self._trajectories.shape[2]
        number = (np.arange(uniforms.shape[1]) + uniforms) * (count / uniforms.shape[1])
        return np.asarray(np.minimum(number.astype(np.int64), count - 1))

    def _read_characters(self, rows: IntArray) -> None:
        """Read the characters from all trajectories with the present parameters."""

        @torch.inference_mode()
        def read_block(worker: int, block: tuple[slice, IntArray]) -> None:
            run, positions = block
            arrays = self.shape.arrays(self.parameters[run])
            passes = self._passes_of(worker, len(positions))
            passes.read_characters(arrays, self._trajectories, self.others[run], self.characters[run])

        self._pool.map(read_block, list(blocks_of(rows, self.config.block_agents)))
        self._unread[rows] = 0

    def _passes_of(self, worker: int, block: int) -> MoaPasses:
        key = (worker, block)
        if key not in self._passes:
            with torch.inference_mode(False):
                self._passes[key] = MoaPasses(self.shape, block, self.parameters[:0])
        return self._passes[key]

    def _assert_gathered(self) -> None:
        if self._trajectories.shape[2] == 0:
            raise RuntimeError("gather the random trajectories before models are used")

    # ------------------------------------------------------------------ costs

    def update_work(self) -> Work:
        """Cost of one update of one observer, with its share of reading the characters anew."""
        if self._worked is None:
            probe = self._probe(dataclasses.replace(self.setup, rollouts=1))
            row, config = np.zeros(1, dtype=np.int64), self.config
            size, n = self.setup.observation_size, self.setup.n_agents
            for _ in range(probe.recent.slots):
                probe.observe(row, torch.zeros(n, 1, size), torch.zeros(n, 1), np.zeros(1, dtype=np.bool_))
            drawn = config.character_trajectories_per_update
            share = config.trajectories / drawn / config.character_refresh_updates
            update = count_work(lambda: probe.update(row, np.zeros((1, drawn))))
            self._worked = update + count_work(lambda: probe._read_characters(row)) * share
        return self._worked

    def logits_work(self, batch: int) -> Work:
        """Cost of `logits` for one observer."""
        probe = self._probe(self.setup)
        shape = (1, self.setup.n_agents, batch)
        seen = torch.zeros(*shape, self.setup.observation_size)
        histories = torch.zeros(*shape, self.config.history_steps, self.shape.width)
        lengths = torch.full(shape, self.config.history_steps)
        return count_work(lambda: probe.logits(np.zeros(1, np.int64), seen, histories, lengths))

    def _probe(self, setup: MoaSetup) -> OthersModel:
        """One observer, with no more trajectories than an update draws."""
        drawn = self.config.character_trajectories_per_update
        config = self.config.model_copy(
            update={"trajectories": drawn, "character_refresh_updates": _NEVER, "block_agents": 1}
        )
        one = dataclasses.replace(setup, agents=setup.agents[:1], seeds=setup.seeds[:1], like=torch.empty(0))
        probe = OthersModel(config, one)
        shape = (drawn, config.trajectory_steps, setup.n_agents)
        probe.gather(torch.zeros(*shape, setup.observation_size), torch.zeros(shape))
        return probe

    def memory_bytes(self) -> dict[str, int]:
        """One observer's memory by kind."""
        item = self.parameters.element_size()
        trajectories = (
            self.config.trajectories * self.config.trajectory_steps * self.setup.n_agents * self.shape.width
        )
        of_characters = self.characters[0].numel()
        return {
            "parameters": item * (self.parameters.shape[1] + of_characters),
            "optimiser": item * 2 * self.parameters.shape[1],
            "replay": item * trajectories + self.recent.nbytes() // len(self.setup.agents),
            "activations": item * self.shape.activations(),
        }

    # ------------------------------------------------------------------ state

    def reset(self, rows: IntArray, seeds: Sequence[int]) -> None:
        """New weights from ``seeds``, no memory of recent steps; the random trajectories stay."""
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            weights = self.shape.initial(np.random.default_rng(seed))
            self.parameters[row] = torch.from_numpy(weights).to(self.parameters)
        at = torch.from_numpy(rows).to(self.parameters.device)
        for array in (self.adam.first_moment, self.adam.second_moment, self.adam.steps):
            array[at] = 0
        self._accuracies[at] = torch.nan
        self.recent.clear(rows)
        if self._trajectories.shape[2]:
            self._read_characters(rows)

    def state(self) -> dict[str, Any]:
        """Views of all that changes, and the trajectories; write them out before the models go on."""
        return {
            **self._tensors(),
            "unread": self._unread,
            "trajectories": self._trajectories,
            "recent": self.recent.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state` of models with the same configuration and setup."""
        saved = torch.as_tensor(state["parameters"])
        if saved.shape != self.parameters.shape:
            raise CheckpointError(
                f"moa state: parameters of shape {list(saved.shape)}, but this scenario's models have "
                f"{list(self.parameters.shape)}; resume with the scenario that the checkpoint was written "
                "under"
            )
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.as_tensor(state[name]))
        self._unread[...] = np.asarray(state["unread"])
        self._trajectories = torch.as_tensor(state["trajectories"]).to(self.parameters).clone()
        self.recent.load_state(state["recent"])

    def _tensors(self) -> dict[str, Tensor]:
        """What has one row per observer."""
        return {
            "parameters": self.parameters,
            "first_moment": self.adam.first_moment,
            "second_moment": self.adam.second_moment,
            "steps": self.adam.steps,
            "characters": self.characters,
            "accuracies": self._accuracies,
        }
