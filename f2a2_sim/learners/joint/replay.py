"""Replay memory of joint transitions: everybody's observations and actions, every agent's own rewards.

Under ``information: accessible`` observations and actions of all agents reach every device at no cost, so
what they hold is the same and is stored once; which steps an agent has (its device may have been off), its
rewards and its behaviour policy are its own. Nobody reads another agent's. Under ``information: network`` an
agent knows of another's step only what a message has told it: of every step it also keeps how old its
knowledge of each other agent was, and reads that agent's older observation and action instead (zeros if it
knows none).

A *frame* is what all rollouts observe at one time. A step lives in the frame of its observations; its next
observations are the following frame. When the next step begins with just those, the frame becomes its own.
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
from f2a2_sim.learners.replay import stored_as
from f2a2_sim.learners.stacked import zeros

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_NONE = -1

_FEW_STEPS = 1024  # replays of fewer have room for as many ends of episodes
_OLDEST = 127


@dataclass(frozen=True)
class JointTransitions:
    """What ``b`` neighbouring agents drew, ``batch`` transitions each; n is the number of all agents."""

    observations: Tensor  # [b, n, batch, size], padded with zeros to the largest size
    next_observations: Tensor  # the same
    actions: Tensor  # int64 [b, n, batch], everybody's
    logits: Tensor  # [b, batch, actions]: the own behaviour policy's
    rewards: Tensor  # [b, batch]: the own ones
    ended: Tensor  # bool [b, batch]: nothing follows for the agent itself
    followed: Tensor  # bool [b, batch]: the one drawn `rollouts` places later is the next of its rollout
    fresh: Tensor | None = None  # bool [b, n, batch]: o^j and a^j are of the step itself
    next_fresh: Tensor | None = None  # the same of o'^j

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [field for field in vars(self).values() if field is not None]

    def with_tensors(self, tensors: Sequence[Tensor]) -> JointTransitions:
        """The same with others in the place of its `tensors`."""
        names = (name for name, field in vars(self).items() if field is not None)
        return JointTransitions(**dict(zip(names, tensors, strict=True)))


@dataclass(frozen=True)
class Histories:
    """The ``length`` steps before a batch's observations, oldest first; the last ``lengths`` of them count.

    The others lie before the episode's beginning, and mean nothing.
    """

    observations: Tensor  # [b, n, batch, length, size]
    actions: Tensor  # int64 [b, n, batch, length]
    lengths: Tensor  # int64 [b, batch]


class JointFleetReplay:
    """The newest ``transitions // rollouts`` steps of ``rollouts`` parallel episodes of ``n`` agents.

    What lies further back than some more steps of the world than that is forgotten by all, so also by an
    agent whose device was off meanwhile.
    """

    def __init__(
        self,
        n: int,
        observation_size: int,
        n_actions: int,
        transitions: int,
        rollouts: int,
        with_ages: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """``dtype`` is what observations are kept in."""
        self.steps_kept = transitions // rollouts
        if self.steps_kept < 1:
            raise UsageError(
                f"learner.replay_transitions: {transitions} is less than one step of {rollouts} rollouts; "
                f"use at least {rollouts}"
            )
        self.n_agents = n
        self.rollouts = rollouts
        # Every end of an episode takes a frame, and what an agent knew may lie 127 steps before a step.
        spare = self.steps_kept if self.steps_kept < _FEW_STEPS else self.steps_kept // 8
        self._frames = self.steps_kept + max(spare, _OLDEST if with_ages else 0) + 2
        cpu = torch.device("cpu")
        self.device = cpu if device is None else device
        by_rollout = (self._frames, rollouts)
        self._observations = zeros((*by_rollout, n, observation_size), dtype, self.device)
        self._logits = zeros((*by_rollout, n, n_actions), torch.float32, self.device)
        self._actions = torch.zeros((*by_rollout, n), dtype=torch.int8, device=self.device)
        self._rewards = zeros((*by_rollout, n), torch.float32, cpu)
        self._last = np.zeros((rollouts, n, observation_size), dtype=np.float32)  # newest, as kept
        self._ended = np.zeros((self._frames, n), dtype=np.bool_)
        self._episode_step = np.zeros(self._frames, dtype=np.int32)  # frames before it, in its episode
        aged = (self._frames, 2, n, n) if with_ages else (0, 2, n, n)
        self._ages = np.zeros(aged, dtype=np.int8)  # now and following, [i, j]: i's knowledge of j
        # Per agent, a ring of the frames (counted without end) whose steps it remembers.
        self._steps = np.zeros((n, self.steps_kept), dtype=np.int64)
        self._first = np.zeros(n, dtype=np.int64)
        self._held = np.zeros(n, dtype=np.int64)
        self._sums = np.zeros((2, n))  # of each agent's rewards held, and of their squares
        self._newest = _NONE  # frame written last, counted without end
        self._open = False  # it is a mere next observation so far

    @property
    def count(self) -> IntArray:
        """Transitions that each agent holds."""
        return self._held * self.rollouts

    def add(
        self,
        rows: IntArray,
        observations: NDArray[np.float32],
        actions: IntArray,
        logits: NDArray[np.float32],
        rewards: NDArray[np.float32],
        next_observations: NDArray[np.float32],
        terminal: BoolArray,
        ages: tuple[NDArray[np.int8], NDArray[np.int8]] | None = None,
    ) -> int:
        """A step of all rollouts that the agents ``rows`` remember; returns its number in its episode.

        Arrays are of all agents: observations ``[n, rollouts, size]``, actions and rewards ``[n, rollouts]``,
        logits ``[n, rollouts, actions]``, terminal ``[n]``. ``ages`` ``[n, n]``, now and at the next
        observations: how many steps old what i knows of j is, -1: it knows nothing; then every step of the
        world has to be added, remembered by anybody or not.
        """
        now = self._kept(observations.transpose(1, 0, 2))
        if not (self._open and np.array_equal(self._last, now.numpy())):
            self._write(now, 0)
        frame = self._newest
        at = self._place(frame)
        self._actions[at] = torch.from_numpy(np.ascontiguousarray(actions.T)).to(torch.int8)
        self._logits[at] = torch.from_numpy(np.ascontiguousarray(logits.transpose(1, 0, 2)))
        self._rewards[at] = torch.from_numpy(np.ascontiguousarray(rewards.T))
        self._ended[at] = terminal
        if ages is not None:
            self._ages[at] = ages
        full = rows[self._held[rows] == self.steps_kept]
        self._forget_oldest(full)
        self._steps[rows, (self._first[rows] + self._held[rows]) % self.steps_kept] = frame
        self._held[rows] += 1
        self._tally(rows, np.full(len(rows), frame), 1.0)
        number = int(self._episode_step[at])
        self._write(self._kept(next_observations.transpose(1, 0, 2)), number + 1)
        self._open = True
        return number

    def amend(self, back: int, agent: int, observation: NDArray[np.float32], actions: IntArray) -> None:
        """Put another ``agent``'s observation ``[rollouts, size]`` and actions ``[rollouts]`` into the frame
        that was written ``back`` frames before the newest; nothing happens if that is there no more."""
        if not 0 <= back < min(self._newest + 1, self._frames):
            return
        at, size = self._place(self._newest - back), observation.shape[1]
        known = self._kept(observation)
        self._observations[at, :, agent, :size] = known
        self._actions[at, :, agent] = torch.from_numpy(actions).to(torch.int8)
        if back == 0:
            self._last[:, agent, :size] = known.numpy()

    def sample(self, rows: IntArray, uniforms: FloatArray) -> IntArray:
        """Transitions uniformly among those held: uniforms in [0, 1) ``[r, batch]`` -> their numbers."""
        number = (uniforms * self.count[rows, None]).astype(np.int64)
        return self._numbers(rows, *np.divmod(number, self.rollouts))

    def newest(self, rows: IntArray, batch: int) -> IntArray:
        """The newest ``batch`` transitions of each row, oldest first, whole steps: for on-policy learning."""
        steps = -(-batch // self.rollouts)
        step = self._held[rows, None] - steps + np.arange(steps)
        numbers = self._numbers(rows, step[:, :, None], np.arange(self.rollouts)[None, None, :])
        return numbers.reshape(len(rows), -1)

    def gather(self, rows: slice, numbers: IntArray) -> JointTransitions:
        """Read what neighbouring agents drew: ``numbers`` ``[b, batch]`` of `sample`, to `device`."""
        device = self.device
        b, batch = numbers.shape
        flat = numbers.reshape(-1)
        following = self._following(flat)
        at = torch.from_numpy(flat)
        owner = torch.arange(rows.start, rows.stop).repeat_interleave(batch)
        frame = flat // self.rollouts
        ages = self._ages[frame, :, owner.numpy()] if len(self._ages) else None  # [b * batch, 2, n]

        def everybody(stored: Tensor, where: IntArray, age: NDArray[np.int8] | None) -> Tensor:
            taken = self._everybody(stored, where, age)
            return taken.view(b, batch, *taken.shape[1:]).transpose(1, 2)

        followed = np.zeros_like(numbers, dtype=np.bool_)
        followed[:, : -self.rollouts] = (
            numbers[:, self.rollouts :] == following.reshape(numbers.shape)[:, : -self.rollouts]
        )

        def known(age: NDArray[np.int8] | None) -> Tensor | None:
            if age is None:
                return None
            return torch.from_numpy(age == 0).view(b, batch, -1).transpose(1, 2).to(device)

        now, after = (None, None) if ages is None else (ages[:, 0], ages[:, 1])
        return JointTransitions(
            observations=everybody(self._observations, flat, now),
            next_observations=everybody(self._observations, following, after),
            actions=everybody(self._actions, flat, now).long(),
            fresh=known(now),
            next_fresh=known(after),
            logits=self._logits.flatten(0, 1)[at.to(device), owner.to(device)].view(b, batch, -1),
            rewards=self._rewards.flatten(0, 1)[at, owner].view(b, batch).to(device),
            ended=torch.from_numpy(self._ended[frame, owner.numpy()]).view(b, batch).to(device),
            followed=torch.from_numpy(followed).to(device),
        )

    def histories(self, rows: slice, numbers: IntArray, length: int, following: bool) -> Histories:
        """What came before the observations of ``numbers`` ``[b, batch]``, or before the next observations.

        Each step as the agent knew it when it remembered it.
        """
        b, batch = numbers.shape
        flat = self._following(numbers.reshape(-1)) if following else numbers.reshape(-1)
        owner = np.repeat(np.arange(rows.start, rows.stop), batch)
        observations, actions = [], []
        for back in range(length, 0, -1):
            where = (flat - back * self.rollouts) % (self._frames * self.rollouts)
            age = self._ages[where // self.rollouts, 0, owner] if len(self._ages) else None
            observations.append(self._everybody(self._observations, where, age))
            actions.append(self._everybody(self._actions, where, age))

        def by_agent(steps: list[Tensor]) -> Tensor:
            together = torch.stack(steps, dim=2)  # [b * batch, n, length, ...]
            return together.view(b, batch, *together.shape[1:]).transpose(1, 2)

        before = np.minimum(self._episode_step[flat // self.rollouts], length)
        lengths = torch.from_numpy(before.astype(np.int64)).view(b, batch).to(self.device)
        return Histories(by_agent(observations), by_agent(actions).long(), lengths)

    def reward_moments(self, rows: slice) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (of the population) of the rewards that each of ``rows`` holds."""
        return moments_of(self._sums[:, rows], self.count[rows])

    def clear(self, rows: IntArray) -> None:
        """Forget all that ``rows`` hold."""
        self._held[rows] = 0
        self._sums[:, rows] = 0.0

    def nbytes(self) -> int:
        """Memory of one agent's replay, as if it were a device's own."""
        tensors = (self._observations, self._logits, self._rewards, self._actions)
        shared = self._observations.nbytes + self._actions.nbytes
        own = sum(t.nbytes for t in tensors) - shared
        return shared + (own + self._steps.nbytes) // self.n_agents

    def state(self) -> dict[str, Any]:
        """Views of everything; frames that were never written are left out."""
        reached = min(self._newest + 1, self._frames)
        stored = {name: getattr(self, f"_{name}")[:reached] for name in _STORED}
        arrays = {name: getattr(self, f"_{name}") for name in _ARRAYS}
        return {**stored, **arrays, "newest": self._newest, "open": self._open}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of a replay of the same sizes."""
        if np.shape(state["steps"]) != self._steps.shape:
            raise CheckpointError(
                f"checkpoint of a replay of {np.shape(state['steps'])} agents and steps, expected "
                f"{self._steps.shape}; resume with the scenario that the checkpoint was written under"
            )
        self._newest, self._open = int(state["newest"]), bool(state["open"])
        reached = min(self._newest + 1, self._frames)
        for name in _STORED:
            mine = getattr(self, f"_{name}")
            mine[:reached] = torch.as_tensor(state[name]) if isinstance(mine, Tensor) else state[name]
        for name in _ARRAYS:
            getattr(self, f"_{name}")[...] = state[name]
        self._last[...] = self._observations[self._place(self._newest)].cpu().numpy()

    def _kept(self, observations: NDArray[np.float32]) -> Tensor:
        """As they will be read again, on the CPU."""
        return stored_as(self._observations.dtype, torch.from_numpy(np.array(observations)))

    def _place(self, frame: int) -> int:
        return frame % self._frames

    def _numbers(self, rows: IntArray, step: IntArray, rollout: IntArray) -> IntArray:
        """Place * rollouts + rollout of each agent's ``step``-th step held, from its oldest."""
        shape = (len(rows),) + (1,) * (step.ndim - 1)
        row, first = rows.reshape(shape), self._first[rows].reshape(shape)
        frame = self._steps[row, (first + step) % self.steps_kept]
        return np.asarray(frame % self._frames * self.rollouts + rollout, dtype=np.int64)

    def _everybody(self, stored: Tensor, where: IntArray, age: NDArray[np.int8] | None) -> Tensor:
        """What is stored ``[m, n, ...]`` at ``where`` ``[m]``, or ``age`` ``[m, n]`` frames before."""
        if age is None:
            return stored.flatten(0, 1).index_select(0, torch.from_numpy(where).to(stored.device))
        places = self._back(where[:, None], age) * self.n_agents + np.arange(self.n_agents)
        taken = stored.flatten(0, 2).index_select(0, torch.from_numpy(places.reshape(-1)).to(stored.device))
        taken = taken.view(len(where), self.n_agents, *stored.shape[3:])
        taken[torch.from_numpy(age < 0).to(stored.device)] = 0
        return taken

    def _back(self, numbers: IntArray, age: NDArray[np.int8]) -> IntArray:
        """The same rollout, so many frames before (unknown: the frame itself)."""
        back = np.maximum(age, 0).astype(np.int64) * self.rollouts
        return np.asarray((numbers - back) % (self._frames * self.rollouts))

    def _following(self, numbers: IntArray) -> IntArray:
        return (numbers + self.rollouts) % (self._frames * self.rollouts)

    def _write(self, observations: Tensor, episode_step: int) -> None:
        """Put observations into the next frame; a step that lay there, or led there, is forgotten."""
        self._newest += 1
        while True:
            held = np.flatnonzero(self._held)
            late = held[self._steps[held, self._first[held]] <= self._newest - self._frames]
            if late.size == 0:
                break
            self._forget_oldest(late)
        at = self._place(self._newest)
        self._last[...] = observations.numpy()
        self._observations[at] = torch.from_numpy(self._last)
        self._episode_step[at] = episode_step
        self._open = False

    def _forget_oldest(self, rows: IntArray) -> None:
        if rows.size == 0:
            return
        self._tally(rows, self._steps[rows, self._first[rows]], -1.0)
        self._first[rows] = (self._first[rows] + 1) % self.steps_kept
        self._held[rows] -= 1

    def _tally(self, rows: IntArray, frames: IntArray, sign: float) -> None:
        places = torch.from_numpy(frames % self._frames)
        rewards = self._rewards[places, :, torch.from_numpy(rows)].numpy().astype(np.float64)
        self._sums[0, rows] += sign * rewards.sum(axis=1)
        self._sums[1, rows] += sign * np.square(rewards).sum(axis=1)


_STORED = ("observations", "logits", "rewards", "actions", "ended", "ages", "episode_step")
_ARRAYS = ("steps", "first", "held", "sums")


def moments_of(sums: FloatArray, count: IntArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation ``[n]`` of ``count`` numbers, from sums of them and their squares ``[2, n]``."""
    count = np.maximum(count, 1)
    mean = sums[0] / count
    return mean, np.sqrt(np.maximum(sums[1] / count - mean**2, 0.0))


def padded_observations(
    observations: NDArray[np.float32] | Sequence[NDArray[np.float32]], rollouts: int
) -> NDArray[np.float32]:
    """One array per agent, ``[size]`` or ``[rollouts, size]`` -> ``[n, rollouts, largest size]``."""
    size = max(seen.shape[-1] for seen in observations)
    padded = np.zeros((len(observations), rollouts, size), dtype=np.float32)
    for row, seen in zip(padded, observations, strict=True):
        row[:, : seen.shape[-1]] = seen
    return padded
