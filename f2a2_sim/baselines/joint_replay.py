"""Replay memory of joint transitions from rollouts in lock-step, every observation stored once.

A *frame* is what all rollouts observe at one time.  A transition lives in the frame of its observations; its
next observations are the following frame.  When the next step begins with just those, the frame becomes its
own; at an episode's end it does not, and the frame stays as a mere end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.learners.attention_shape import AgentGroup, group_agents
from f2a2_sim.learners.stacked import zeros

FloatMatrix = NDArray[np.float32]


@dataclass(frozen=True)
class JointBatch:
    """Transitions of all agents; observations by group ``[group, batch, size]``."""

    observations: list[Tensor]
    actions: Tensor  # int64 [n, batch]
    rewards: Tensor  # [n, batch], by the sampler's mean and standard deviation
    next_observations: list[Tensor]
    ended: Tensor  # [n, batch]: 1 where nothing follows

    def on(self, device: torch.device) -> JointBatch:
        """The same there."""
        if device.type == "cpu":
            return self
        return JointBatch(
            [seen.to(device) for seen in self.observations],
            self.actions.to(device),
            self.rewards.to(device),
            [seen.to(device) for seen in self.next_observations],
            self.ended.to(device),
        )


class JointReplay:
    """The newest ``transitions // rollouts`` steps of ``rollouts`` parallel episodes.

    Episodes of fewer than ``episode_steps`` spend more frames on their ends and so leave fewer transitions.
    """

    def __init__(
        self, observation_sizes: Sequence[int], transitions: int, rollouts: int, episode_steps: int
    ) -> None:
        self.steps_kept = transitions // rollouts
        if self.steps_kept < 1:
            raise UsageError(
                f"replay_transitions: {transitions} is less than a step of {rollouts} rollouts; "
                f"use at least {rollouts}"
            )
        self.rollouts = rollouts
        self.groups: tuple[AgentGroup, ...] = group_agents(observation_sizes)
        n = len(observation_sizes)
        frames = self.steps_kept + self.steps_kept // episode_steps + 3
        cpu = torch.device("cpu")
        self._observations = [
            zeros((frames, rollouts, g.count, g.observation_size), torch.float32, cpu) for g in self.groups
        ]
        self._actions = np.zeros((frames, rollouts, n), dtype=np.int8)
        self._rewards = zeros((frames, rollouts, n), torch.float32, cpu).numpy()
        self._frame_of = np.zeros(self.steps_kept, dtype=np.int64)  # ring: where each step lies
        self._added = 0  # steps ever
        self._count = 0  # steps held
        self._newest = -1  # frame written last, counted without end
        self._sum = np.zeros(n)
        self._squares = np.zeros(n)

    def __len__(self) -> int:
        """Transitions held."""
        return self._count * self.rollouts

    def add(
        self,
        observations: Sequence[FloatMatrix],
        actions: NDArray[np.int64],
        rewards: FloatMatrix,
        next_observations: Sequence[FloatMatrix],
    ) -> None:
        """Store a step of all rollouts: observations by group ``[rollouts, group, size]``, the others
        ``[rollouts, n]``."""
        if not self._continues(observations):
            self._write(observations)
        if self._count == self.steps_kept:
            self._forget_oldest()
        frame = self._newest % self._frames
        self._actions[frame] = actions
        self._rewards[frame] = rewards
        self._frame_of[self._added % self.steps_kept] = self._newest
        self._added += 1
        self._count += 1
        self._tally(rewards, 1.0)
        self._write(next_observations)
        if self._added % self.steps_kept == 0:
            self._tally_afresh()

    def reward_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation (of the population) of each agent's rewards over all held: ``[n]``."""
        mean = self._sum / len(self)
        return mean, np.sqrt(np.maximum(self._squares / len(self) - mean**2, 0.0))

    def sample(self, uniforms: NDArray[np.float64]) -> JointBatch:
        """Transitions drawn with replacement by uniforms in [0, 1) ``[batch]``."""
        return self.take((uniforms * len(self)).astype(np.int64))

    def take(self, numbers: NDArray[np.int64]) -> JointBatch:
        """Transitions by number, from the oldest held, rollout by rollout within a step: ``[batch]``.

        Rewards are standardised by `reward_moments`; those of an agent that always gets the same are 0.
        """
        step, rollout = np.divmod(numbers, self.rollouts)
        oldest = self._added - self._count
        counted = self._frame_of[(oldest + step) % self.steps_kept]
        frame, following = counted % self._frames, (counted + 1) % self._frames
        mean, deviation = self.reward_moments()
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        rewards = ((self._rewards[frame, rollout] - mean) * scale).T.astype(np.float32)
        return JointBatch(
            self._observe(frame, rollout),
            torch.from_numpy(self._actions[frame, rollout].T.astype(np.int64)),
            torch.from_numpy(rewards),
            self._observe(following, rollout),
            torch.zeros(rewards.shape),
        )

    def newest(self, transitions: int) -> tuple[JointBatch, NDArray[np.bool_]]:
        """The newest whole steps of at most so many transitions (at least one step), in their order.

        And ``[steps]``, after which of them the next one goes on from its next observations.
        """
        steps = min(max(1, transitions // self.rollouts), self._count)
        batch = self.take(np.arange(len(self) - steps * self.rollouts, len(self)))
        frames = self._frame_of[(self._added - steps + np.arange(steps)) % self.steps_kept]
        return batch, np.append(np.diff(frames) == 1, False)

    def nbytes(self) -> int:
        """Memory of everything, as if every page had been touched."""
        observations = sum(t.numel() * t.element_size() for t in self._observations)
        return observations + self._actions.nbytes + self._rewards.nbytes + self._frame_of.nbytes

    def state(self) -> dict[str, Any]:
        """Views of everything; frames that were never written are left out."""
        reached = min(self._newest + 1, self._frames)
        return {
            "observations": [stored[:reached] for stored in self._observations],
            "actions": self._actions[:reached],
            "rewards": self._rewards[:reached],
            "frame_of": self._frame_of,
            "added": self._added,
            "count": self._count,
            "newest": self._newest,
            "sum": self._sum,
            "squares": self._squares,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of a replay of the same sizes."""
        if state["frame_of"].shape != self._frame_of.shape:
            raise CheckpointError(
                f"checkpoint of a replay of {len(state['frame_of'])} steps, expected {self.steps_kept}; "
                "continue with the same replay_transitions and rollouts"
            )
        self._added, self._count, self._newest = (int(state[key]) for key in ("added", "count", "newest"))
        reached = min(self._newest + 1, self._frames)
        for stored, saved in zip(self._observations, state["observations"], strict=True):
            stored[:reached].copy_(torch.as_tensor(saved))
        self._actions[:reached] = state["actions"]
        self._rewards[:reached] = state["rewards"]
        for name in ("frame_of", "sum", "squares"):
            getattr(self, f"_{name}")[...] = state[name]

    @property
    def _frames(self) -> int:
        return len(self._actions)

    def _continues(self, observations: Sequence[FloatMatrix]) -> bool:
        """Whether the frame written last holds just these."""
        if self._newest < 0:
            return False
        frame = self._newest % self._frames
        return all(
            np.array_equal(stored[frame].numpy(), seen)
            for stored, seen in zip(self._observations, observations, strict=True)
        )

    def _write(self, observations: Sequence[FloatMatrix]) -> None:
        """Put observations into the next frame; a step that lay there, or led there, is forgotten."""
        self._newest += 1
        while self._count and self._oldest_frame() <= self._newest - self._frames:
            self._forget_oldest()
        frame = self._newest % self._frames
        for stored, seen in zip(self._observations, observations, strict=True):
            stored[frame].copy_(torch.from_numpy(seen))

    def _oldest_frame(self) -> int:
        return int(self._frame_of[(self._added - self._count) % self.steps_kept])

    def _forget_oldest(self) -> None:
        self._tally(self._rewards[self._oldest_frame() % self._frames], -1.0)
        self._count -= 1

    def _tally(self, rewards: FloatMatrix, sign: float) -> None:
        exact = rewards.astype(np.float64)
        self._sum += sign * exact.sum(axis=0)
        self._squares += sign * np.square(exact).sum(axis=0)

    def _tally_afresh(self) -> None:
        """Once in each round of the ring, so that roundings of subtracted sums do not add up for ever."""
        held = (self._added - self._count + np.arange(self._count)) % self.steps_kept
        self._sum[:] = 0.0
        self._squares[:] = 0.0
        for part in np.array_split(self._frame_of[held] % self._frames, max(1, len(held) // 4096)):
            self._tally(self._rewards[part].reshape(-1, self._rewards.shape[-1]), 1.0)

    def _observe(self, frame: NDArray[np.int64], rollout: NDArray[np.int64]) -> list[Tensor]:
        place = torch.from_numpy(frame * self.rollouts + rollout)
        return [stored.flatten(0, 1).index_select(0, place).transpose(0, 1) for stored in self._observations]
