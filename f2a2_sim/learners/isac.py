"""F2A2-ISAC: soft actor-critic with twin critics on local (o^i, a^i), under the joint objective.

The objective, its source and its symbols are in `f2a2_sim.learners.isac_objective`; here are what an agent
holds and the order of an update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from devices.compute import Work
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import Batch, BoolArray, FleetSetup, FloatArray, IntArray
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.fleet import StackedFleet, Stateful
from f2a2_sim.learners.isac_objective import (
    Policy,
    Replayed,
    actor_output_gradient,
    bootstrap_target,
    critic_output_gradient,
    importance_weights,
    taken,
)
from f2a2_sim.learners.pool import BlockPool
from f2a2_sim.learners.replay import FleetReplay
from f2a2_sim.learners.stacked import (
    MlpShape,
    StackedMlp,
    blocks_of,
    carve,
    evaluate,
    padded,
)
from f2a2_sim.learners.work import count_work

_KNOWN_BLOCKS = 1024  # blocks whose views are kept
_TD_MEMORY = 0.99  # per update, of the running mean that `normalise_td` divides by
_STATISTICS = ("entropy", "q_mean", "td_abs", "critic_loss", "importance_mean")


def _capacity(config: LearnerConfig, army_size: int) -> int:
    """Transitions of one agent's replay; an error if it could never begin to learn from them."""
    capacity = config.replay_transitions // army_size
    needed = 2 * max(config.warmup_transitions, config.batch_size)
    if capacity < needed:
        raise UsageError(
            f"learner.replay_transitions: {config.replay_transitions} over {army_size} agents is {capacity} "
            f"each; expected at least twice batch_size and warmup_transitions ({needed}); "
            f"use {needed * army_size} or more"
        )
    return capacity


class _Workspace:
    """Buffers for blocks of ``block`` agents, allocated once and used for every block."""

    def __init__(self, actor: MlpShape, critics: MlpShape, block: int, batch: int, like: Tensor) -> None:
        observations = (block, batch, padded(actor.inputs + 1))
        of_actor = StackedMlp.memory_shapes(actor, block, batch)
        of_critics = StackedMlp.memory_shapes(critics, block, batch)
        gradients = [(block, actor.size), (block, critics.size)]
        memory = carve([observations, *gradients, *of_actor, *of_critics], like)
        of_observations, self.actor_gradient, self.critic_gradient = memory[:3]
        self.inputs = of_observations[:, :, : actor.inputs + 1]
        self.inputs[:, :, -1] = 1.0
        self.observations = self.inputs[:, :, :-1]
        self.actor_gradient_arrays = actor.arrays(self.actor_gradient)
        self.critic_gradient_arrays = critics.arrays(self.critic_gradient)
        self.actor = StackedMlp(actor.hidden, memory[3 : 3 + len(of_actor)])
        self.critics = StackedMlp(critics.hidden, memory[3 + len(of_actor) :])


class _Block:
    """Views of everything that an update of neighbouring agents touches."""

    def __init__(self, fleet: IsacFleet, run: slice) -> None:
        actor, critics = fleet.actor_columns, fleet.critic_columns
        self.run = run
        self.critics = fleet.parameters[run, critics]
        self.targets = fleet.targets[run]
        self.actor_arrays = fleet.actor.arrays(fleet.parameters[run, actor])
        self.critic_arrays = fleet.critics.arrays(self.critics)
        self.target_arrays = fleet.critics.arrays(self.targets)
        self.steps = fleet.adam.steps[run]
        self.actor_adam = fleet.adam_rows(run, actor)
        self.critic_adam = fleet.adam_rows(run, critics)


class IsacFleet(StackedFleet):
    """``len(setup.seeds)`` ISAC agents of one shape (see `f2a2_sim.learners.base.Learner` for the interface).

    A row of ``parameters`` is [actor | critic 1 and 2].  An update goes through the fleet in blocks
    of neighbouring agents, each from replay to target critics, so that a parameter passes through
    the main memory once.
    """

    def __init__(self, config: LearnerConfig, setup: FleetSetup) -> None:
        self.actor = MlpShape(
            setup.observation_size, config.hidden_size, config.hidden_layers, setup.n_actions
        )
        self.critics = MlpShape(
            setup.observation_size, config.hidden_size, config.hidden_layers, setup.n_actions, branches=2
        )
        self.actor_columns = slice(0, self.actor.size)
        self.critic_columns = slice(self.actor.size, self.actor.size + self.critics.size)
        super().__init__(config, setup, self.critic_columns.stop)
        k = self.n_agents
        self.td_scale = torch.zeros(k, dtype=torch.float64, device=setup.device)
        self.replay = FleetReplay(
            k,
            _capacity(config, setup.army_size),
            setup.observation_size,
            setup.n_actions,
            getattr(torch, config.replay_dtype),
            setup.device,
        )
        self._pool = BlockPool()
        self._workspaces: dict[tuple[int, int], _Workspace] = {}  # by worker and size of block
        self._blocks: dict[tuple[int, int], _Block] = {}  # by first and last row
        self.reset(np.arange(k), setup.seeds)

    # ------------------------------------------------------------------ acting and remembering

    def act(
        self, rows: IntArray, observations: NDArray[np.float32], uniforms: FloatArray
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """Sample from the policy; see `Learner.act`."""
        inputs = torch.from_numpy(observations).to(self.parameters).unsqueeze(1)
        inputs = torch.nn.functional.pad(inputs, (0, 1), value=1.0)
        logits = inputs.new_empty(len(rows), self.actor.outputs)

        def act_block(_worker: int, block: tuple[slice, IntArray]) -> None:
            run, positions = block
            at = torch.from_numpy(positions).to(inputs.device)
            logits[at] = evaluate(self._block(run).actor_arrays, inputs[at]).squeeze(1)

        self._pool.map(act_block, list(blocks_of(rows, self.config.block_agents)))
        cumulated = torch.softmax(logits.double(), dim=-1).cumsum(dim=-1)
        below = cumulated <= torch.from_numpy(uniforms).to(inputs.device).reshape(-1, 1)
        actions = below.sum(dim=-1).clamp_max(self.actor.outputs - 1)
        return actions.cpu().numpy(), logits.float().cpu().numpy()

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
        """Store transitions; see `Learner.remember`."""
        device = self.setup.device
        self.replay.add(
            rows,
            torch.from_numpy(observations).to(device),
            torch.from_numpy(actions).to(device),
            torch.from_numpy(logits).to(device),
            torch.from_numpy(rewards).to(device),
            torch.from_numpy(next_observations).to(device),
            terminal,
        )

    def can_update(self, rows: IntArray) -> BoolArray:
        """Whether each row holds ``warmup_transitions``, and at least a batch (or a full replay)."""
        return np.asarray(
            self.replay.count[rows] >= max(self.config.warmup_transitions, self.config.batch_size)
        )

    @property
    def draws_per_update(self) -> int:
        """Uniforms of one update: an index per transition, and a~ and a~' where expectations are sampled."""
        return self.config.batch_size * (1 if self.config.exact_expectation else 3)

    def draw_batch(self, rows: IntArray, uniforms: FloatArray) -> Batch:
        """Choose transitions uniformly from each row's replay; see `Learner.draw_batch`."""
        n = self.config.batch_size
        indices = self.replay.sample(rows, uniforms[:, :n])
        return Batch(indices, None if self.config.exact_expectation else uniforms[:, n:])

    # ------------------------------------------------------------------ learning

    def update(self, rows: IntArray, batch: Batch) -> dict[str, FloatArray]:
        """Critic step, target step, actor step for each row; statistics are of the values before the step."""
        statistics: dict[str, FloatArray] = {name: np.empty(len(rows)) for name in _STATISTICS}

        def update_block(worker: int, block: tuple[slice, IntArray]) -> None:
            run, positions = block
            work = self._workspace(worker, len(positions))
            values = self._update_block(work, self._block(run), batch.take(positions)).cpu().numpy()
            for name, column in zip(_STATISTICS, values, strict=True):
                statistics[name][positions] = column

        self._pool.map(update_block, list(blocks_of(rows, self.config.block_agents)))
        return statistics

    @torch.inference_mode()
    def _update_block(self, work: _Workspace, block: _Block, batch: Batch) -> Tensor:
        """Update the agents of ``block``; returns `_STATISTICS` as ``[statistics, b]``."""
        config = self.config
        n = config.batch_size
        device = self.parameters.device
        read = self.replay.gather(block.run, torch.from_numpy(batch.indices).to(device))
        uniforms, uniforms_next = None, None
        if batch.resample is not None:
            uniforms = torch.from_numpy(batch.resample[:, :n]).to(device)
            uniforms_next = torch.from_numpy(batch.resample[:, n:]).to(device)

        # The target y, from the policy and the target critics at o'.
        inputs = work.inputs  # in one buffer, o' and then o: half as much to keep in the cache
        self.replay.observe(read.following, work.observations)
        policy_next = Policy.of(work.actor.forward(block.actor_arrays, inputs)[0])
        q_next = work.critics.forward(block.target_arrays, inputs)
        weights_next = policy_next.weights(uniforms_next)
        rewards = read.rewards.to(inputs.dtype)
        y = bootstrap_target(config, rewards, read.ended, policy_next, weights_next, q_next)

        # The policy at o, and what both steps need of it.
        self.replay.observe(read.now, work.observations)
        policy = Policy.of(work.actor.forward(block.actor_arrays, inputs)[0])
        log_pi0 = torch.log_softmax(read.logits.to(inputs.dtype), dim=-1)
        rho, rho_resampled = importance_weights(config, policy, log_pi0, read.actions)
        data = Replayed(read.actions, policy, policy.weights(uniforms), rho, rho_resampled, y)

        # Critic step (5.4a), then the target critics follow.
        block.steps.add_(1)
        q = work.critics.forward(block.critic_arrays, inputs)
        statistics = self._statistics(data, q)
        gradient = critic_output_gradient(config, data, q)
        work.critics.backward(block.critic_arrays, inputs, gradient, work.critic_gradient_arrays)
        self.descend(block.run, self.critic_columns, block.critic_adam, work.critic_gradient)
        block.targets.lerp_(block.critics, config.tau)

        # Actor step (5.4b), with the new critics.
        q = work.critics.forward(block.critic_arrays, inputs)
        scale = self._td_scale(block.run, data, q) if config.normalise_td else 1.0
        gradient = actor_output_gradient(config, data, q, scale).unsqueeze(0)
        work.actor.backward(block.actor_arrays, inputs, gradient, work.actor_gradient_arrays)
        self.descend(block.run, self.actor_columns, block.actor_adam, work.actor_gradient)
        return statistics

    def _workspace(self, worker: int, block: int) -> _Workspace:
        key = (worker, block)
        if key not in self._workspaces:
            like = self.parameters[:0]
            self._workspaces[key] = _Workspace(self.actor, self.critics, block, self.config.batch_size, like)
        return self._workspaces[key]

    def _block(self, run: slice) -> _Block:
        """Views are made once per block: an update would spend a tenth of its time on making them."""
        key = (run.start, run.stop)
        if key not in self._blocks:
            if len(self._blocks) >= _KNOWN_BLOCKS:
                self._blocks.clear()
            self._blocks[key] = _Block(self, run)
        return self._blocks[key]

    def _td_scale(self, run: slice, data: Replayed, q: Tensor) -> Tensor:
        """Running mean of E_pi0[delta1^2 + delta2^2] per agent, ``[b, 1, 1]``; the first batch starts it."""
        squared = (taken(q, data) - data.target).square().sum(dim=0).mean(dim=(1, 2)).double()
        old = self.td_scale[run]
        self.td_scale[run] = torch.where(old > 0, old + (1 - _TD_MEMORY) * (squared - old), squared)
        return self.td_scale[run].clamp_min(1e-12).to(q.dtype).view(-1, 1, 1)

    @staticmethod
    def _statistics(data: Replayed, q: Tensor) -> Tensor:
        """`_STATISTICS` in their order, ``[statistics, b]``, means over the batch."""
        q_taken = taken(q, data)
        delta = q_taken - data.target
        pi = data.policy
        of_transitions = [
            (pi.probabilities * pi.log).sum(dim=-1, keepdim=True).neg_(),
            q_taken[0],
            delta[0].abs(),
            delta.square().sum(dim=0),
            data.rho,
        ]
        return torch.stack(of_transitions).mean(dim=(2, 3), dtype=torch.float64)

    def consensus_columns(self) -> slice:
        """Columns of the consensus variable (paper, Section 6.3: actor and critic).

        Raises UsageError for attention: its critics have none.
        """
        if self.setup.shared == "attention":
            raise UsageError(
                "consensus.shared = attention: the critics of f2a2_isac have no attention; use all, critic "
                "or actor"
            )
        if self.setup.shared == "actor":
            return self.actor_columns
        if self.setup.shared == "critic":
            return self.critic_columns
        return slice(0, self.critic_columns.stop)

    # ------------------------------------------------------------------ costs

    def count_work(self) -> tuple[Work, Work]:
        """Bytes of an update: each parameter array streamed once per use."""
        config, setup = self.config, self.setup
        probe_config = config.model_copy(
            update={"replay_transitions": 2 * config.batch_size, "warmup_transitions": 0}
        )
        probe = IsacFleet(
            probe_config,
            FleetSetup(setup.observation_size, setup.n_actions, [0], 1, setup.shared, setup.beta),
        )
        row, observation = (
            np.zeros(1, dtype=np.int64),
            np.zeros((1, setup.observation_size), dtype=np.float32),
        )
        zero, logits = np.zeros(1, dtype=np.float32), np.zeros((1, setup.n_actions), dtype=np.float32)
        probe.remember(row, observation, row, logits, zero, observation, np.zeros(1, dtype=np.bool_))
        batch = probe.draw_batch(row, np.zeros((1, probe.draws_per_update)))

        def act() -> object:
            return probe.act(row, observation, np.zeros(1))

        def update() -> object:
            return probe.update(row, batch)

        actor, critics = 4 * self.actor.parameters, 4 * self.critics.parameters
        # Actor and critics: read, read again by the optimiser, written; gradient written and read; two
        # moments read and written.  Targets: read, then read and written.  New critics read once more.
        network_bytes = 9 * (actor + critics) + 3 * critics + critics
        item = 2 if config.replay_dtype == "float16" else 4
        batch_bytes = config.batch_size * (2 * setup.observation_size * (item + 4) + 4 * setup.n_actions)
        penalty_bytes = 4 * self.shared_parameters().shape[1] if setup.beta > 0 else 0
        act_bytes = actor + 4 * setup.observation_size
        update_bytes = network_bytes + batch_bytes + penalty_bytes
        return (
            dataclasses.replace(count_work(act), bytes=float(act_bytes)),
            dataclasses.replace(count_work(update), bytes=float(update_bytes)),
        )

    def memory_bytes(self) -> dict[str, int]:
        """One agent's memory by kind."""
        item = self.parameters.element_size()
        return {
            "parameters": item * (self.parameters.shape[1] + self.targets.shape[1]),
            "optimiser": item * 2 * self.parameters.shape[1],
            "consensus": self._shared.nbytes(),
            "replay": self.replay.nbytes() // self.n_agents,
            "activations": item * self._activations(),
        }

    def _activations(self) -> int:
        """Numbers that one update holds besides the above: batch, activations, gradients."""
        n, config = self.config.batch_size, self.config
        per_input = config.hidden_size * config.hidden_layers + self.actor.outputs
        batch = n * self.actor.inputs + (n + 2 * n) * per_input
        return batch + self.actor.size + self.critics.size

    # ------------------------------------------------------------------ state

    def reset(self, rows: IntArray, seeds: Sequence[int]) -> None:
        """Give ``rows`` new initial weights (equal seeds, equal weights) and forget all else."""
        drawn: dict[int, Tensor] = {}
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            if seed not in drawn:
                generator = np.random.Generator(np.random.PCG64(seed))
                weights = np.concatenate([self.actor.initial(generator), self.critics.initial(generator)])
                drawn[seed] = torch.from_numpy(weights).to(self.parameters)
            self.start_from(np.array([row]), drawn[seed])
        self.forget(rows)

    def forget(self, rows: IntArray) -> None:
        super().forget(rows)
        self.td_scale[torch.from_numpy(rows).to(self.td_scale.device)] = 0
        self.replay.clear(rows)

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "td_scale": self.td_scale}

    def parts(self) -> dict[str, Stateful | None]:
        return {"replay": self.replay}
