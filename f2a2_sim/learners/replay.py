"""Replay memory of a fleet: one ring per agent, every observation stored once.

A ring is a sequence of *frames*.  A transition lives in the frame of its observation; its next
observation is the following frame.  When the next transition begins with just that observation the
frame becomes its own, so a step of an unbroken episode costs one frame.  When it does not (the
episode ended by its time limit, or steps were missed) the frame stays as a mere end, and when the
transition is terminal there is none, because nothing will be bootstrapped from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.stacked import zeros

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Gathered:
    """Transitions of a block, all but their observations."""

    actions: Tensor  # int64 [b, n, 1]
    logits: Tensor  # [b, n, k]
    rewards: Tensor  # [b, n]
    ended: Tensor  # [b, n]: the transition is terminal
    now: Tensor  # [b, n]: where the observations lie
    following: Tensor  # and the next ones; of a terminal transition, its observation again


class FleetReplay:
    """``agents`` rings of ``capacity + 1`` frames: ``capacity`` transitions when no episode breaks off.

    Each end without a terminal transition takes the place of one transition.
    """

    def __init__(
        self,
        agents: int,
        capacity: int,
        observation_size: int,
        n_actions: int,
        observation_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.frames_per_agent = capacity + 1
        shape = (agents, self.frames_per_agent)
        self.observations = zeros((*shape, observation_size), observation_dtype, device)
        self.logits = zeros((*shape, n_actions), torch.float32, device)
        self.actions = torch.zeros(shape, dtype=torch.int16, device=device)
        self.rewards = torch.zeros(shape, dtype=torch.float32, device=device)
        self.terminal = torch.zeros(shape, dtype=torch.bool, device=device)
        self._newest = np.zeros(agents, dtype=np.int64)  # frame written last
        self._open = np.zeros(agents, dtype=np.bool_)  # it is a next observation
        self._order = np.zeros(shape, dtype=np.int32)  # ring of the frames that hold transitions
        self._oldest = np.zeros(agents, dtype=np.int64)  # position in _order
        self._reached = 0  # frames that any agent has written
        self.count = np.zeros(agents, dtype=np.int64)
        """Transitions held by each agent."""

    def add(
        self,
        rows: IntArray,
        observations: Tensor,
        actions: Tensor,
        logits: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        terminal: NDArray[np.bool_],
    ) -> None:
        """Store one transition for each of ``rows`` (distinct); tensors are ``[r, ...]``, on the device."""
        dtype = self.observations.dtype
        stored = stored_as(dtype, observations)
        at = torch.from_numpy(rows).to(stored.device)
        newest = torch.from_numpy(self._newest[rows]).to(stored.device)
        same = (self.observations[at, newest] == stored).all(dim=1).cpu().numpy()
        fresh = ~(self._open[rows] & same)
        self._write(rows[fresh], stored[torch.from_numpy(fresh).to(stored.device)])

        frame = self._newest[rows]
        where = (at, torch.from_numpy(frame).to(stored.device))
        self.actions[where] = actions.to(torch.int16)
        self.logits[where] = logits.to(torch.float32)
        self.rewards[where] = rewards.to(torch.float32)
        self.terminal[where] = torch.from_numpy(terminal).to(stored.device)
        self._order[rows, (self._oldest[rows] + self.count[rows]) % self.frames_per_agent] = frame
        self.count[rows] += 1

        goes_on = ~terminal
        following = stored_as(dtype, next_observations)
        self._write(rows[goes_on], following[torch.from_numpy(goes_on).to(stored.device)])
        self._open[rows] = goes_on

    def sample(self, rows: IntArray, uniforms: NDArray[np.float64]) -> IntArray:
        """Frames of transitions, uniform over those held: ``uniforms`` in [0, 1) ``[r, n]`` -> ``[r, n]``."""
        number = (uniforms * self.count[rows, None]).astype(np.int64)
        position = (self._oldest[rows, None] + number) % self.frames_per_agent
        return np.asarray(self._order[rows[:, None], position], dtype=np.int64)

    def gather(self, rows: slice, frames: Tensor) -> Gathered:
        """Read transitions ``frames`` ``[b, n]`` of neighbouring ``rows``; for observations see `observe`."""
        b, n = frames.shape
        first = torch.arange(rows.start, rows.stop, device=frames.device).unsqueeze(1) * self.frames_per_agent
        places = first + frames
        flat = places.view(-1)
        ended = self.terminal.view(-1).index_select(0, flat).view(b, n)
        return Gathered(
            actions=self.actions.view(-1).index_select(0, flat).view(b, n, 1).to(torch.int64),
            logits=self.logits.flatten(0, 1).index_select(0, flat).view(b, n, -1),
            rewards=self.rewards.view(-1).index_select(0, flat).view(b, n),
            ended=ended,
            now=places,
            following=first + torch.where(ended, frames, (frames + 1) % self.frames_per_agent),
        )

    def observe(self, places: Tensor, out: Tensor) -> None:
        """Write the observations at ``places`` ``[b, n]`` to ``out`` ``[b, n, obs]``."""
        out.copy_(self.observations.flatten(0, 1).index_select(0, places.view(-1)).view(out.shape))

    def clear(self, rows: IntArray) -> None:
        """Forget everything of ``rows``."""
        for array in (self._newest, self._oldest, self.count):
            array[rows] = 0
        self._open[rows] = False

    def nbytes(self) -> int:
        """Memory of all rings."""
        tensors = (self.observations, self.logits, self.actions, self.rewards, self.terminal)
        control = (self._newest, self._open, self._order, self._oldest, self.count)
        return sum(t.numel() * t.element_size() for t in tensors) + sum(a.nbytes for a in control)

    def state(self) -> dict[str, Any]:
        """Views of everything; frames that no agent has reached yet are left out."""
        reached = self._reached
        return {
            "observations": self.observations[:, :reached],
            "logits": self.logits[:, :reached],
            "actions": self.actions[:, :reached],
            "rewards": self.rewards[:, :reached],
            "terminal": self.terminal[:, :reached],
            "newest": self._newest,
            "open": self._open,
            "order": self._order,
            "oldest": self._oldest,
            "count": self.count,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of a replay of the same sizes."""
        for name in ("observations", "logits", "actions", "rewards", "terminal"):
            saved = torch.as_tensor(state[name])
            self._reached = saved.shape[1]
            getattr(self, name)[:, : self._reached].copy_(saved)
        for name in ("newest", "open", "order", "oldest"):
            getattr(self, f"_{name}")[...] = np.asarray(state[name])
        self.count[...] = np.asarray(state["count"])

    def _write(self, rows: IntArray, observations: Tensor) -> None:
        """Put one observation into the next frame of each row; what was there is forgotten."""
        if rows.size == 0:
            return
        frame = (self._newest[rows] + 1) % self.frames_per_agent
        oldest = self._oldest[rows]
        overwritten = (self.count[rows] > 0) & (self._order[rows, oldest] == frame)
        self._oldest[rows] = (oldest + overwritten) % self.frames_per_agent
        self.count[rows] -= overwritten
        device = self.observations.device
        self.observations[torch.from_numpy(rows).to(device), torch.from_numpy(frame).to(device)] = (
            observations
        )
        self._newest[rows] = frame
        self._reached = max(self._reached, int(frame.max()) + 1)


def stored_as(dtype: torch.dtype, observations: Tensor) -> Tensor:
    """Observations as a replay memory keeps them; UsageError if float16 cannot hold one."""
    stored = observations.to(dtype)
    if stored.dtype == torch.float16 and bool(torch.isinf(stored).any()):
        raise UsageError(
            "learner.replay_dtype: float16 cannot hold an observation beyond 65504; "
            "use learner.replay_dtype: float32"
        )
    return stored
