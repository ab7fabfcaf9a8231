"""What an agent knows of the others' steps where that comes by message (``learner.information: network``).

In a simulation one replay has everybody's steps, and `Knowledge` says which of them an agent may read. Here
an agent's replay has its own steps, and others' only as they are heard: in time, and they are put into the
transition that is about to be remembered, or later, and they are put into the frame where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.learners.joint.replay import JointFleetReplay
from f2a2_sim.simulator.knowledge import Knowledge
from f2a2_sim.simulator.parts import IntArray
from f2a2_sim.simulator.population import Population
from f2a2_sim.worlds.base import AgentSpec
from network.wire import Message

_MOST_STEPS = 2**40
_KEPT = 256
"""Steps of each agent that wait for their turn; of more the newest."""


@dataclass(frozen=True)
class Step:
    """What an agent saw ``[rollouts, size]`` and did ``[rollouts]`` at a step of the world."""

    number: int
    observation: NDArray[np.float32]
    actions: NDArray[np.int64]


class Hearsay(Knowledge):
    """The knowledge of agent ``me``, and what it knows.

    A peer may be a step ahead of the world's next observation: what it tells waits until that is here.
    ``when_amended`` is told (frames back, agent, step) of what is put into the replay afterwards.
    """

    def __init__(
        self,
        me: int,
        specs: list[AgentSpec],
        population: Population,
        replay: JointFleetReplay,
        when_amended: Callable[[int, int, Step], None] = lambda back, agent, step: None,
    ) -> None:
        super().__init__(len(specs))
        self.replay = replay
        self.when_amended = when_amended
        self._me = me
        self._specs = specs
        self._population = population
        self._heard: dict[int, dict[int, Step]] = {}
        self._present = (-1, False)  # the step of the newest own observation; whether one acts on it

    # ------------------------------------------------------------ messages

    def own(self, number: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Fields and tensors that tell the others the own present step, which has that number."""
        observation, actions = self._population.present_step(self._me)
        own = np.ascontiguousarray(observation[:, : self._specs[self._me].observation_size])
        return {"step": number}, {"observation": own, "action": actions}

    def admit(self, message: Message) -> int | None:
        """Keep what another agent tells of a step; its number, or None if it is of no use."""
        number, sender = message.fields.get("step"), message.sender
        observation, actions = message.tensors.get("observation"), message.tensors.get("action")
        if not isinstance(number, int) or not 0 <= number < _MOST_STEPS or observation is None:
            return None
        spec, rollouts = self._specs[sender], self._population.rollouts
        if (
            sender == self._me
            or actions is None
            or observation.dtype != np.float32
            or observation.shape != (rollouts, spec.observation_size)
            or actions.dtype != np.int64
            or actions.shape != (rollouts,)
            or not np.isfinite(observation).all()
            or not ((actions >= 0) & (actions < spec.n_actions)).all()
        ):
            return None
        steps = self._heard.setdefault(sender, {})
        steps[number] = Step(number, np.array(observation), np.array(actions))
        for old in sorted(steps)[:-_KEPT]:
            del steps[old]
        return number

    def hear(self, receivers: IntArray, senders: IntArray, steps: IntArray) -> None:
        """Nothing more: `admit` has kept them, and they count from their turn on."""
        self._take_up()

    def has_heard(self, agents: IntArray) -> bool:
        """Whether all of them have told their present step."""
        number = self._present[0]
        return all(self._newest[:, self._me, agent].max() >= number for agent in agents.tolist())

    # ------------------------------------------------------------ steps

    def advance(self, number: int, acting: bool) -> None:
        """The own observation with this number has been dealt with; ``acting``: somebody acts on it."""
        self._present = (number, acting)
        self._take_up()

    @property
    def _last(self) -> int:
        """The newest step that others may have told of, and whose turn it is."""
        number, acting = self._present
        return number if acting else number - 1

    def _take_up(self) -> None:
        """Know of everything up to there."""
        for sender, steps in self._heard.items():
            told = np.array(sorted(step for step in steps if step <= self._last), dtype=np.int64)
            one = np.ones(len(told), dtype=np.int64)
            super().hear(one * self._me, one * sender, told)

    def complete(self, transition: tuple[Any, ...]) -> None:
        """Put what was heard into the transition that is remembered now, and into those before it."""
        _, observations, played, _, _, following, _ = transition
        now = self._step - 1
        for sender, steps in self._heard.items():
            for number in sorted(step for step in steps if step <= min(now + 1, self._last)):
                step = steps[number]
                if number == now + 1:  # its action is of use with the next transition
                    following[sender, :, : step.observation.shape[1]] = step.observation
                    continue
                del steps[number]
                if number == now:
                    observations[sender, :, : step.observation.shape[1]] = step.observation
                    played[sender] = step.actions
                if self._first <= number <= now and now > self._first:
                    self.replay.amend(now - number, sender, step.observation, step.actions)
                    self.when_amended(now - number, sender, step)

    def begin_episode(self, step: int) -> None:
        """Nothing is known of an episode whose first observation has this number."""
        super().begin_episode(step)
        for steps in self._heard.values():
            for old in [number for number in steps if number < step]:
                del steps[old]

    # ------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "heard": [
                [sender, step.number, step.observation, step.actions]
                for sender, steps in self._heard.items()
                for step in steps.values()
            ],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._heard = {}
        for sender, number, observation, actions in state["heard"]:
            step = Step(int(number), np.array(observation), np.array(actions))
            self._heard.setdefault(int(sender), {})[step.number] = step
