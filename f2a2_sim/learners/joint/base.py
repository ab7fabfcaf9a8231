"""What all learners with joint critics have in common: rows, replay, acting, consensus, costs, saved states.

A fleet is all agents of a world. A row of ``parameters`` is [critic | actor | moments of what the actor
sees]; the critic, which has one shape for all, is the consensus variable (paper, 5.1.2), or its attention
block. Every agent trains its own row, from its own rewards; of the others it knows what
`f2a2_sim.learners.joint.replay` says, and their policies, or models of them (MOA), as
`JointFleet._logits_known` says.

A learner is a subclass that names its critic's size and does one update of a block of agents.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from devices.compute import Work
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import Batch, BoolArray, FleetSetup, FloatArray, IntArray
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.fleet import StackedFleet, Stateful
from f2a2_sim.learners.joint.actors import Actors, FrozenActors
from f2a2_sim.learners.joint.drawn import Drawn, choose
from f2a2_sim.learners.joint.lone_mlp import LoneMlps, passes_of
from f2a2_sim.learners.joint.modelling import Modelling
from f2a2_sim.learners.joint.replay import JointFleetReplay, JointTransitions
from f2a2_sim.learners.pool import BlockPool, one_thread
from f2a2_sim.learners.recorded import RecordedUpdates, recording_wanted
from f2a2_sim.learners.stacked import (
    MlpArrays,
    MlpShape,
    StackedMlp,
    add_logit_decay,
    blocks_of,
    zeros,
)
from f2a2_sim.learners.work import count_work

Made = TypeVar("Made")

STATISTICS = ("entropy", "q_mean", "td_abs", "critic_loss", "importance_mean")
ACCURACY = "moa_accuracy"


_MOST_ACTIONS = 127  # an int8 each


class JointFleet(StackedFleet):
    """All agents of a world with one learner (see `f2a2_sim.learners.base.Learner` for the interface)."""

    joint_information: ClassVar[bool] = True
    on_policy: ClassVar[bool] = False
    recordable: ClassVar[bool] = False

    def __init__(self, config: LearnerConfig, setup: FleetSetup) -> None:
        if config.normalise_td:
            raise UsageError(
                f"learner.normalise_td = true: {config.name} has td_clip for this; set it to false"
            )
        self.config = config
        self.setup = setup
        sizes = setup.observation_sizes
        if len(sizes) != len(setup.seeds):
            raise UsageError(
                f"learner.name = {config.name}: needs all {len(sizes)} agents of the world in one fleet, "
                f"got {len(setup.seeds)}"
            )
        self.actor_shape = MlpShape(max(sizes), config.hidden_size, config.hidden_layers, setup.n_actions)
        self.critic_columns = slice(0, self.critic_size())
        self.actor_columns = slice(self.critic_columns.stop, self.critic_columns.stop + self.actor_shape.size)
        moments = slice(self.actor_columns.stop, self.actor_columns.stop + 2 * max(sizes))
        super().__init__(config, setup, moments.stop)
        n = self.n_agents
        self.gradient = zeros((n, self.actor_columns.stop), setup.dtype, setup.device)
        self.actors = Actors(
            self.actor_shape, sizes, self.parameters[:, self.actor_columns], self.parameters[:, moments]
        )
        self.replay = JointFleetReplay(
            n,
            max(sizes),
            setup.n_actions,
            config.replay_transitions,
            setup.rollouts,
            with_ages=config.information == "network",
            device=setup.device,
            dtype=getattr(torch, config.replay_dtype),
        )
        self.moa: Modelling | None = None
        if config.moa is not None:
            self.moa = Modelling(config.moa, setup, config.learning_rate, self.parameters[:0])
        if config.batch_size < 2:
            raise UsageError(
                f"learner.batch_size = {config.batch_size}: rewards are standardised over a batch, and one "
                "transition has no spread; use at least 2"
            )
        if setup.n_actions > _MOST_ACTIONS:
            raise UsageError(
                f"learner.name = {config.name}: its replay knows at most {_MOST_ACTIONS} actions, and agents "
                f"of this world have {setup.n_actions}; use f2a2_isac"
            )
        held = self.replay.steps_kept * setup.rollouts
        if held < self._transitions_needed():
            raise UsageError(
                f"learner.replay_transitions: {config.replay_transitions} keeps {held}, an update waits for "
                f"{self._transitions_needed()} (batch_size, warmup_transitions); use at least that many"
            )
        self._pool = BlockPool()
        self._policies = FrozenActors(self.actors)
        recorded = self.recordable and self.moa is None and recording_wanted(setup.device)
        self._recorded = RecordedUpdates() if recorded else None
        self._passes: dict[tuple[int, int, int], StackedMlp | LoneMlps] = {}
        self._kept: dict[tuple[str, int, int], Any] = {}
        self.reset(np.arange(n), setup.seeds)

    # ------------------------------------------------------------------ what a learner says

    @abstractmethod
    def critic_size(self) -> int:
        """Floats of one agent's critics, padding included."""

    @abstractmethod
    def initial_critic(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Initial parameters of one agent's critics ``[critic_size]``."""

    @abstractmethod
    def update_block(self, worker: int, drawn: Drawn) -> Tensor:
        """Critic step, target step, actor step of neighbouring agents; `STATISTICS` as ``[5, b]``.

        Only rows of ``drawn.run`` may be written, and of all others none may be read: blocks run at once. If
        the class says that it is ``recordable``, an update's operations are recorded and then repeated
        without asking again: what changes from update to update must be in tensors, and these stay in place.
        """

    @property
    def resampled_draws(self) -> int:
        """Uniforms of one transition beside that of its choice: a~, a~' of everybody, then `Drawn.noise`."""
        return 2 * self.n_agents

    def target_logits(self, run: slice, next_logits: Tensor, noise: Tensor) -> Tensor:
        """From what a~' is drawn ``[b, n, batch, actions]``: by default everybody's policy at o'."""
        return next_logits

    @property
    def seen_sizes(self) -> tuple[int, ...]:
        """What a critic sees of each agent: its observation and, if that may be old, whether it is not."""
        extra = 1 if self.config.information == "network" else 0
        return tuple(size + extra for size in self.setup.observation_sizes)

    def seen(self, observations: Tensor, fresh: Tensor | None) -> Tensor:
        """What the critics see, ``[b, n, batch, size]`` padded: of each agent its `seen_sizes` come first."""
        observations = observations.to(self.parameters.dtype)
        if fresh is None:
            return observations
        whole = torch.nn.functional.pad(observations, (0, 1))
        last = self._last_seen.expand(*whole.shape[:3], 1)
        return whole.scatter_(-1, last, fresh.unsqueeze(-1).to(whole.dtype))

    @cached_property
    def _last_seen(self) -> Tensor:
        """Where an agent's `seen_sizes` end: int64 ``[1, n, 1, 1]``."""
        return torch.tensor(self.seen_sizes, device=self.setup.device).sub_(1).view(1, -1, 1, 1)

    # ------------------------------------------------------------------ acting and remembering

    @torch.inference_mode()
    def act(
        self, rows: IntArray, observations: NDArray[np.float32], uniforms: FloatArray
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """Observations ``[r, rollouts, size]``, uniforms ``[r, rollouts]`` -> actions ``[r, rollouts]`` and
        logits ``[r, rollouts, actions]``."""
        with one_thread():  # a few rows each: nothing to share
            seen = torch.from_numpy(observations).to(self.parameters)
            logits = self.actors.logits(torch.from_numpy(rows).to(seen.device), seen)
            actions = choose(logits, torch.from_numpy(uniforms).to(seen.device))
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
        ages: tuple[NDArray[np.int8], NDArray[np.int8]] | None = None,
    ) -> None:
        """A step of all rollouts that ``rows`` remember, see `JointFleetReplay.add`."""
        number = self.replay.add(
            rows, observations, actions, logits, rewards, next_observations, terminal, ages
        )
        if self.moa is not None:
            known = None if ages is None else ages[0]
            self.moa.observe(rows, observations, actions, number == 0, known)

    def gather(self, observations: NDArray[np.float32], actions: IntArray) -> None:
        """Random trajectories for the models of the others, see `Modelling.gather`."""
        assert self.moa is not None
        self.moa.gather(observations, actions)

    def can_update(self, rows: IntArray) -> BoolArray:
        """Whether each row holds ``warmup_transitions``, and at least a batch."""
        return np.asarray(self.replay.count[rows] >= self._transitions_needed())

    def _transitions_needed(self) -> int:
        return max(self.config.warmup_transitions, self.transitions_per_update)

    @property
    def transitions_per_update(self) -> int:
        """``batch_size``, and on policy as many more as make whole steps of all rollouts."""
        size, rollouts = self.config.batch_size, self.setup.rollouts
        return -(-size // rollouts) * rollouts if self.on_policy else size

    @property
    def draws_per_update(self) -> int:
        """Uniforms of one update."""
        models = 0 if self.moa is None else self.moa.draws_per_update
        return self.transitions_per_update * (1 + self.resampled_draws) + models

    def draw_batch(self, rows: IntArray, uniforms: FloatArray) -> Batch:
        """Choose transitions uniformly among those held, or on policy the newest ones."""
        n = self.transitions_per_update
        numbers = self.replay.newest(rows, n) if self.on_policy else self.replay.sample(rows, uniforms[:, :n])
        return Batch(numbers, uniforms[:, n:])

    # ------------------------------------------------------------------ learning

    @torch.inference_mode()
    def update(self, rows: IntArray, batch: Batch) -> dict[str, FloatArray]:
        """One update of each row; what it knows of the others' policies is from before all of them.

        Models of the others learn first, and the accuracy of what they expected is a statistic.
        """
        statistics: dict[str, FloatArray] = {name: np.empty(len(rows)) for name in STATISTICS}
        statistics[ACCURACY] = np.full(len(rows), np.nan)
        if self.moa is not None:
            assert batch.resample is not None
            for_models = batch.resample[:, -self.moa.draws_per_update :]
            statistics[ACCURACY] = self.moa.update(rows, for_models)[ACCURACY]
            batch = Batch(batch.indices, batch.resample[:, : -self.moa.draws_per_update])
        on_cpu = self.setup.device.type == "cpu"  # elsewhere all agents are one block
        blocks = list(blocks_of(rows, self.config.block_agents if on_cpu else self.n_agents))
        recorded = self._recorded if on_cpu or len(blocks) == 1 else None
        with one_thread():
            self._policies.freeze()

        def update_block(worker: int, block: tuple[slice, IntArray]) -> None:
            run, positions = block
            drawn = batch.take(positions)
            due = self.actors_due(run)

            with torch.inference_mode():
                read = self._read(run, drawn)
                assert drawn.resample is not None
                uniforms = torch.from_numpy(drawn.resample).to(read.rewards.device)

                def learn(*given: Tensor) -> Tensor:
                    transitions = read.with_tensors(given[:-1])
                    told = self._draw(worker, run, due, transitions, given[-1], drawn.indices)
                    return self.update_block(worker, told)

                given, kind = [*read.tensors(), uniforms], (worker, run.start, run.stop, due.tobytes())
                values = learn(*given) if recorded is None else recorded.run(kind, given, learn)
            for name, column in zip(STATISTICS, values.cpu().numpy(), strict=True):
                statistics[name][positions] = column

        self._pool.map(update_block, blocks)
        return statistics

    def _read(self, run: slice, batch: Batch) -> JointTransitions:
        """What a block's agents drew, with rewards as the learner sees them."""
        read = self.replay.gather(run, batch.indices)
        rewards = read.rewards.to(self.parameters.dtype)
        if self.config.normalise_rewards:
            mean, deviation = (torch.from_numpy(m).to(rewards) for m in self.replay.reward_moments(run))
            scale = torch.where(deviation > 0, 1.0 / deviation, 0.0)
            rewards = (rewards - mean.unsqueeze(1)) * scale.unsqueeze(1)
        return dataclasses.replace(read, rewards=rewards)

    def _draw(
        self,
        worker: int,
        run: slice,
        due: BoolArray,
        read: JointTransitions,
        uniforms: Tensor,
        numbers: IntArray,
    ) -> Drawn:
        def logits(following: bool) -> Tensor:
            return self._logits_known(worker, run, read, numbers, following)

        next_logits = logits(True)
        shape = next_logits.shape[:3]
        count = shape[1] * shape[2]
        noise = uniforms[:, 2 * count :].view(*read.rewards.shape, -1)
        target_logits = self.target_logits(run, next_logits, noise)
        next_others = choose(target_logits, uniforms[:, count : 2 * count].view(shape))
        now = uniforms[:, :count].view(shape)
        return Drawn(run, due, read, next_logits, next_others, partial(logits, False), now, noise)

    def _logits_known(
        self,
        worker: int,
        run: slice,
        read: JointTransitions,
        numbers: IntArray,
        following: bool,
    ) -> Tensor:
        """What neighbouring agents know of everybody's policy at o, or at o' ``[b, n, batch, actions]``.

        The own one, and of the others the true ones, or without these what the models of them expect.
        """
        seen = (read.next_observations if following else read.observations).to(self.parameters.dtype)
        if self.moa is None:
            return self._policies.logits(seen)
        before = self.replay.histories(run, numbers, self.moa.config.history_steps, following)
        logits = self.moa.predict(worker, run, seen, before)
        own = torch.arange(run.start, run.stop, device=seen.device)
        each = torch.arange(len(own), device=seen.device)
        logits[each, own] = self.actors.logits(own, seen[each, own])
        return logits

    def step(self, run: slice, columns: slice, counts: Tensor | None = None) -> None:
        """One step of Adam along `gradient` + grad R + lambda + beta (w~ - w), see `descend`.

        ``counts`` ``[b]``: which step this is for those columns, if not that of the agent's updates.
        """
        rows = self.kept(f"adam {columns.start}", run, lambda: self.adam_rows(run, columns))
        if counts is not None:
            rows = dataclasses.replace(rows, steps=list(counts.unbind(0)))
        self.descend(run, columns, rows, self.gradient[run, columns])

    def kept(self, name: str, run: slice, make: Callable[[], Made]) -> Made:
        """Views of what belongs to neighbouring agents, made once: it costs as much as using them."""
        key = (name, run.start, run.stop)
        if key not in self._kept:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made

    def mlp_arrays(self, name: str, shape: MlpShape, rows: Tensor, run: slice, columns: slice) -> MlpArrays:
        """Views of the networks of neighbouring agents, ``columns`` of ``rows``."""
        return self.kept(name, run, lambda: shape.arrays(rows[run, columns]))

    def follow_targets(self, run: slice) -> None:
        """theta' <- (1 - tau) theta' + tau theta."""
        self.targets[run].lerp_(self.parameters[run, self.critic_columns], self.config.tau)

    def actor_pass(self, worker: int, drawn: Drawn) -> tuple[StackedMlp | LoneMlps, Tensor, Tensor]:
        """The own policies at o: the pass to go back through, its inputs, logits ``[b, batch, actions]``."""
        run = drawn.run
        b, batch = drawn.rewards.shape
        inputs = self.actors.inputs(run, drawn.of_own(drawn.transitions.observations).to(drawn.rewards.dtype))
        key = (worker, b, batch)
        if key not in self._passes:
            self._passes[key] = passes_of(self.actor_shape, b, batch, inputs)
        network = self._passes[key]
        arrays = self.mlp_arrays("actor", self.actor_shape, self.parameters, run, self.actor_columns)
        return network, inputs, network.forward(arrays, inputs)[0]

    def step_actor(
        self,
        drawn: Drawn,
        network: StackedMlp | LoneMlps,
        inputs: Tensor,
        logits: Tensor,
        logit_gradient: Tensor,
    ) -> None:
        """Descend along ``logit_gradient`` ``[b, batch, actions]`` after `actor_pass`; moments follow.

        Both only for agents whose actor is due. With it goes the gradient of logit_decay * mean(logits^2).
        """
        run = drawn.run
        if self.config.logit_decay > 0.0:
            add_logit_decay(logit_gradient, logits, self.config.logit_decay)
        columns = self.actor_columns
        arrays = self.mlp_arrays("actor", self.actor_shape, self.parameters, run, columns)
        out = self.mlp_arrays("actor gradient", self.actor_shape, self.gradient, run, columns)
        network.backward(arrays, inputs, logit_gradient.unsqueeze(0), out)
        seen = drawn.of_own(drawn.transitions.observations).to(inputs.dtype)
        counts = self.actor_counts(run)
        for part, _ in blocks_of(np.flatnonzero(drawn.due), len(counts)):
            rows = slice(run.start + part.start, run.start + part.stop)
            self.step(rows, self.actor_columns, counts[part])
            self.actors.follow(rows, seen[part])

    def actors_due(self, run: slice) -> BoolArray:
        """Whose actors will take a step in their next update ``[b]``."""
        return np.ones(run.stop - run.start, dtype=np.bool_)

    def actor_counts(self, run: slice) -> Tensor:
        """Which step of its actor each agent's present update takes ``[b]``, where one is due."""
        return self.adam.steps[run]

    # ------------------------------------------------------------------ consensus

    def consensus_columns(self) -> slice:
        """The critic, or its attention block."""
        shared = self.setup.shared
        if shared == "actor":
            raise UsageError(
                f"consensus.shared = actor: learner {self.config.name} shares its critic; use critic"
            )
        return self.attention_columns() if shared == "attention" else self.critic_columns

    def attention_columns(self) -> slice:
        """Columns of the critic's attention block."""
        raise UsageError(
            f"consensus.shared = attention: the critic of {self.config.name} has no attention; use critic"
        )

    # ------------------------------------------------------------------ costs

    def count_work(self) -> tuple[Work, Work]:
        """Of one action of every rollout and of one update; every operation reads and writes whole."""
        n, rollouts = self.n_agents, self.setup.rollouts
        config = self.config.model_copy(
            update={
                "replay_transitions": self.config.batch_size + 2 * rollouts,
                "warmup_transitions": 0,
                "moa": None,
            }
        )
        setup = dataclasses.replace(self.setup, device=torch.device("cpu"))
        probe = type(self)(config, setup)
        every, row = np.arange(n), np.zeros(1, dtype=np.int64)
        shape = (n, rollouts)
        seen = np.zeros((*shape, self.actor_shape.inputs), dtype=np.float32)
        logits = np.zeros((*shape, self.setup.n_actions), dtype=np.float32)
        nothing = np.zeros(shape, dtype=np.float32)
        while not probe.can_update(row)[0]:
            actions = np.zeros(shape, dtype=np.int64)
            ages = np.zeros((n, n), dtype=np.int8)
            known = (ages, ages) if config.information == "network" else None
            probe.remember(every, seen, actions, logits, nothing, seen, np.zeros(n, dtype=np.bool_), known)
        batch = probe.draw_batch(row, np.zeros((1, probe.draws_per_update)))

        acting = count_work(lambda: probe.act(row, seen[:1], np.zeros((1, rollouts))))
        updating = count_work(lambda: probe.update(row, batch))
        if self.moa is not None:
            updating += self.moa.work(self.transitions_per_update)
        return acting, updating

    def memory_bytes(self) -> dict[str, int]:
        """One agent's memory by kind."""
        item = self.parameters.element_size()
        own = {
            "parameters": item * (self.parameters.shape[1] + self.targets.shape[1]),
            "optimiser": item * 3 * self.parameters.shape[1],
            "consensus": self._shared.nbytes(),
            "replay": self.replay.nbytes(),
            "activations": item * self.activations(),
        }
        models = {} if self.moa is None else self.moa.models.memory_bytes()
        return {kind: size + models.get(kind, 0) for kind, size in own.items()}

    @abstractmethod
    def activations(self) -> int:
        """Numbers that one agent's update holds at once, besides parameters and gradients."""

    # ------------------------------------------------------------------ state

    def reset(self, rows: IntArray, seeds: Sequence[int]) -> None:
        """Give ``rows`` new weights and forget all else: equal seeds give equal critics, but own actors."""
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            critic = self.initial_critic(np.random.default_rng(seed))
            actor = self.actors.initial(row, np.random.default_rng([seed, row]))
            size = self.actor_shape.inputs
            weights = np.concatenate([critic, actor, np.zeros(size), np.ones(size)])
            self.start_from(np.array([row]), torch.from_numpy(weights).to(self.parameters))
        self.forget(rows)
        self.replay.clear(rows)
        if self.moa is not None and len(rows) < self.n_agents:  # at first its own constructor has done so
            self.moa.reset(rows, seeds)

    def parts(self) -> dict[str, Stateful | None]:
        return {"replay": self.replay, "moa": self.moa}
