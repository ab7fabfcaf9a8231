"""Central training: parallel episodes in lock-step, and rounds of updates in between.

As in MAAC's original, all rollouts begin and end their episodes together, an episode's end by its time limit
is not terminal, and a round of updates follows the steps after which (transitions mod ``steps_per_round``)
is less than the number of rollouts, once a batch is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.baselines.config import CentralConfig
from f2a2_sim.baselines.joint_replay import JointReplay
from f2a2_sim.errors import UsageError
from f2a2_sim.randomness import Streams

Observations = list[NDArray[np.float32]]
Statistics = dict[str, NDArray[np.float64]]
Timed = Callable[[str], AbstractContextManager[None]]
"""Makes a block that is counted as ``acting``, ``world`` or ``learning``."""


class ParallelEpisodes(Protocol):
    """``rollouts`` copies of a world in lock-step.

    Observations are float32 by group of neighbouring agents with equal sizes (`group_agents`), each
    ``[rollouts, group, size]``, in arrays that are not written to again.  ``state`` is everything that
    changes, random streams included.
    """

    @property
    def observation_sizes(self) -> tuple[int, ...]: ...

    @property
    def n_actions(self) -> int: ...

    @property
    def rollouts(self) -> int: ...

    def reset(self) -> Observations: ...

    def step(self, actions: NDArray[np.int64]) -> tuple[Observations, NDArray[np.float32]]:
        """Take actions int64 ``[rollouts, n]``; observations, and rewards float32 ``[rollouts, n]``."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Draws:
    """Uniforms in [0, 1) by purpose: ``each`` from a stream per agent, ``common`` from one for all."""

    def __init__(self, streams: Streams, n_agents: int) -> None:
        self._streams = streams
        self._agents = np.arange(n_agents)
        self._nobody = np.zeros(1, dtype=np.int64)

    def each(self, purpose: str, n: int) -> NDArray[np.float64]:
        """``[n_agents, n]``."""
        return self._streams.family(purpose).uniform(self._agents, n)

    def common(self, purpose: str, n: int) -> NDArray[np.float64]:
        """``[n]``."""
        return np.asarray(self._streams.family(purpose).uniform(self._nobody, n)[0])


class CentralLearner(Protocol):
    """Learns for all agents from what all of them saw, did and were paid."""

    statistics: Mapping[str, str]
    """What `learn` shows: a sentence by name."""

    def act(self, observations: Observations, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """Actions ``[rollouts, n]`` while training, by uniforms ``[n, rollouts]``."""
        ...

    def learn(self, replay: JointReplay, draws: Draws) -> Statistics:
        """One update; what it showed, each ``[n]`` or ``[1]``."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class EpisodeReport:
    """What is logged when the parallel episodes end.

    ``mean_episode_rewards`` ``[n]``: each agent's undiscounted return with raw rewards, the mean over these
    episodes (the original's ``agent<i>/mean_episode_rewards``).  ``statistics``: means of those of
    `CentralLearner.learn` over the updates during the episodes; empty if there were none.
    """

    episodes: int
    transitions: int
    updates: int
    mean_episode_rewards: NDArray[np.float64]
    statistics: Statistics


class CentralTrainer:
    """Trains a learner in a world of parallel episodes; ``streams`` gives all randomness but the world's."""

    def __init__(
        self,
        world: ParallelEpisodes,
        episode_steps: int,
        config: CentralConfig,
        learner: CentralLearner,
        streams: Streams,
        timed: Timed = lambda part: nullcontext(),
    ) -> None:
        self.config = config
        self.world = world
        self.episode_steps = episode_steps
        self.learner = learner
        self.replay = JointReplay(
            world.observation_sizes, config.replay_transitions, world.rollouts, episode_steps
        )
        if config.batch_size > self.replay.steps_kept * world.rollouts:
            raise UsageError(
                f"batch_size: {config.batch_size} is more than replay_transitions, "
                f"{config.replay_transitions}, can ever hold; make one of them fit the other"
            )
        self.transitions = 0  # all rollouts together, since the beginning
        self.updates = 0
        self.episodes = 0
        self._streams = streams
        self.draws = Draws(streams, len(world.observation_sizes))
        self._timed = timed
        self._observations: Observations = []
        self._step = 0  # of the running episodes; 0: they have not begun
        self._returns = np.zeros(len(world.observation_sizes))
        self._statistics: Statistics = {}
        self._updates_before = 0  # the running episodes

    def run(self, episodes: int) -> Iterator[EpisodeReport]:
        """Train until ``episodes`` have ended since the beginning; a report per batch of episodes."""
        while self.episodes < episodes:
            report = self.step()
            if report is not None:
                yield report

    def step(self) -> EpisodeReport | None:
        """One step of all rollouts and the updates that follow it; a report if the episodes ended."""
        with self._timed("world"):
            if self._step == 0:
                self._observations = self.world.reset()
        with self._timed("acting"):
            uniforms = self.draws.each("act", self.world.rollouts)
            actions = self.learner.act(self._observations, uniforms)
        with self._timed("world"):
            following, rewards = self.world.step(actions)
        with self._timed("learning"):
            self.replay.add(self._observations, actions, rewards, following)
        self._observations = following
        self._returns += rewards.mean(axis=0, dtype=np.float64)
        self.transitions += self.world.rollouts
        self._step += 1
        if self._updates_are_due():
            with self._timed("learning"):
                for _ in range(self.config.updates_per_round):
                    self._update()
        return self._end_episodes() if self._step == self.episode_steps else None

    def _updates_are_due(self) -> bool:
        stored = len(self.replay) >= self.config.batch_size
        return stored and self.transitions % self.config.steps_per_round < self.world.rollouts

    def _update(self) -> None:
        for name, value in self.learner.learn(self.replay, self.draws).items():
            self._statistics[name] = self._statistics.get(name, 0.0) + value
        self.updates += 1

    def _end_episodes(self) -> EpisodeReport:
        self.episodes += self.world.rollouts
        done = self.updates - self._updates_before
        statistics = {name: total / done for name, total in self._statistics.items()}
        report = EpisodeReport(
            self.episodes, self.transitions, self.updates, self._returns.copy(), statistics
        )
        self._step = 0
        self._returns[:] = 0.0
        self._statistics = {}
        self._updates_before = self.updates
        return report

    def state(self) -> dict[str, Any]:
        """Everything that changes: views of the living state, to be written before the next step."""
        return {
            "world": self.world.state(),
            "learner": self.learner.state(),
            "replay": self.replay.state(),
            "streams": self._streams.state(),
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "observations": self._observations,
            "returns": self._returns,
            "statistics": self._statistics,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from a `state` of a training with the same seed."""
        self.world.load_state(state["world"])
        self.learner.load_state(state["learner"])
        self.replay.load_state(state["replay"])
        self._streams.load_state(state["streams"])
        for name in _COUNTS:
            setattr(self, name, int(state["counts"][name]))
        self._observations = [np.array(seen, dtype=np.float32) for seen in state["observations"]]
        self._returns[:] = state["returns"]
        self._statistics = {name: np.array(value) for name, value in state["statistics"].items()}


_COUNTS = ("transitions", "updates", "episodes", "_step", "_updates_before")
