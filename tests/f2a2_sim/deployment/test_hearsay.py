"""An agent that hears of the others' steps late, early or never knows just what a simulated one does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch

from devices.compute import Work
from f2a2_sim.deployment.agent_memory import AgentMemory
from f2a2_sim.deployment.hearsay import Hearsay
from f2a2_sim.learners.joint.replay import JointFleetReplay
from f2a2_sim.randomness import Streams
from f2a2_sim.simulator.knowledge import Knowledge
from f2a2_sim.simulator.population import Fleet, Population
from f2a2_sim.worlds.base import AgentSpec
from network.wire import Message

N, ME, ROLLOUTS, ACTIONS = 4, 1, 2, 3
SIZES = (2, 3, 1, 3)
SPECS = [AgentSpec(f"agent_{k}", size, ACTIONS) for k, size in enumerate(SIZES)]


class Store:
    """A learner that only remembers."""

    joint_information = True

    def __init__(self, replay: JointFleetReplay) -> None:
        self.replay = replay

    def remember(self, *transition: Any) -> None:
        self.replay.add(*transition)


def population(replay: JointFleetReplay) -> Population:
    nothing = Work(0.0, 0.0, 0)
    fleet = Fleet(np.arange(N), Store(replay), None, nothing, nothing)  # type: ignore[arg-type]
    made = Population([fleet], [0] * N, Streams(1, N), ROLLOUTS, Knowledge(N))
    made._logits = [np.zeros((N, ROLLOUTS, ACTIONS), dtype=np.float32)]
    return made


SIZE = (N, max(SIZES), ACTIONS, 40 * ROLLOUTS, ROLLOUTS)


@dataclass
class Twins:
    """The same agent, simulated among all others, and alone in its process."""

    simulated: Population
    deployed: Population
    hearsay: Hearsay

    @classmethod
    def born(cls) -> Twins:
        replay = JointFleetReplay(*SIZE, with_ages=True)
        simulated, deployed = population(JointFleetReplay(*SIZE, with_ages=True)), population(replay)
        deployed.knowledge = hearsay = Hearsay(ME, SPECS, deployed, replay)
        return cls(simulated, deployed, hearsay)


def own_only(everybody: list[np.ndarray]) -> list[np.ndarray]:
    return [seen if agent == ME else np.zeros_like(seen) for agent, seen in enumerate(everybody)]


def play(twins: Twins, rng: np.random.Generator, episodes: int, steps: int) -> None:
    """Episodes in which every step that is told takes 0 to 5 steps to arrive, or never does."""
    number, under_way = 0, []
    actions = np.zeros((N, ROLLOUTS), dtype=np.int64)
    for _ in range(episodes):
        for step in range(steps + 1):
            seen = [rng.standard_normal((ROLLOUTS, size)).astype(np.float32) for size in SIZES]
            chosen = rng.integers(0, ACTIONS, (N, ROLLOUTS))
            done, acted = step == steps, rng.random() < 0.9
            arrived = [m for m in under_way if m[0] <= number]
            under_way = [m for m in under_way if m[0] > number]
            for agent in range(N) if not done else []:
                if agent == ME or rng.random() < 0.3:
                    continue
                early, late = rng.random() < 0.3, int(rng.integers(0, 6))
                tensors = {"observation": seen[agent], "action": chosen[agent]}
                message = Message("copy", agent, 1, 1 + number, 0.0, {"step": number}, tensors)
                under_way.append((number + 1 + (0 if early else late), message, early))
                if early:  # the peer is faster than the world's message to this agent
                    hear(twins.hearsay, message)
            for _, message, early in arrived:
                assert twins.simulated.knowledge is not None
                twins.simulated.knowledge.hear(*whom(message))
                if not early:
                    hear(twins.hearsay, message)
            for twin, those in ((twins.simulated, seen), (twins.deployed, own_only(seen))):
                twin.observe(those)
                if step == 0:
                    twin.begin_episode(number)
                    continue
                played = actions.copy()
                if twin is twins.deployed:
                    played[np.arange(N) != ME] = 0
                rows = np.array([ME] if acted else [], dtype=np.int64)
                twin.remember(rows, np.ones((N, ROLLOUTS), np.float32), np.zeros(N, np.bool_), played)
            actions = chosen
            twins.hearsay.advance(number, acting=not done)
            number += not done


def whom(message: Message) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([ME]), np.array([message.sender]), np.array([message.fields["step"]])


def hear(hearsay: Hearsay, message: Message) -> None:
    assert hearsay.admit(message) == message.fields["step"]
    hearsay.hear(*whom(message))


def read(replay: JointFleetReplay) -> dict[str, torch.Tensor]:
    """All that agent ME reads of what it holds, with what came before it."""
    rows, held = slice(ME, ME + 1), int(replay.count[ME])
    numbers = replay.newest(np.array([ME]), held)
    drawn = replay.gather(rows, numbers)
    before = replay.histories(rows, numbers, 2, False)
    after = {f"after_{f.name}": getattr(before, f.name) for f in fields(before)}
    found = {f.name: getattr(drawn, f.name) for f in fields(drawn)} | after
    inside = torch.arange(2).flip(0) < before.lengths.unsqueeze(-1)  # the last ``lengths`` of two
    found["after_observations"] = before.observations * inside[:, None, :, :, None]
    found["after_actions"] = before.actions * inside[:, None]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_read_is_the_same_simulated_and_deployed(seed: int) -> None:
    twins = Twins.born()
    play(twins, np.random.default_rng(seed), episodes=3, steps=9)
    theirs, ours = read(twins.simulated.fleets[0].learner.replay), read(twins.hearsay.replay)  # type: ignore[attr-defined]
    assert theirs.keys() == ours.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=0, msg=name)
    assert theirs["fresh"].any() and not theirs["fresh"].all()


def test_a_journal_brings_back_what_was_heard_late() -> None:
    twins = Twins.born()
    memory = AgentMemory.__new__(AgentMemory)
    journal: list[tuple[str, dict[str, Any], dict[str, np.ndarray]]] = []
    memory._write = lambda *record: journal.append(record)  # type: ignore[method-assign]
    twins.deployed.when_remembered(memory._keep)
    twins.hearsay.when_amended = memory._keep_heard
    play(twins, np.random.default_rng(7), episodes=3, steps=9)
    assert {kind for kind, _, _ in journal} == {"transition", "heard"}
    again = Twins.born()
    memory._parts = again  # type: ignore[assignment]
    for kind, told, tensors in journal:
        memory._read(Message(kind, ME, 0, 1, 0.0, told, tensors), again.deployed.fleets[0].learner)
    for name, expected in read(twins.hearsay.replay).items():
        torch.testing.assert_close(read(again.hearsay.replay)[name], expected, rtol=0, atol=0, msg=name)


def told(sender: int = 0, step: object = 3, observation: object = None, action: object = None) -> Message:
    tensors = {
        "observation": np.zeros((ROLLOUTS, SIZES[0]), np.float32) if observation is None else observation,
        "action": np.zeros(ROLLOUTS, np.int64) if action is None else action,
    }
    return Message("copy", sender, 1, 1, 0.0, {"step": step}, tensors)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        told(step=-1),
        told(step=2**50),
        told(step="3"),
        told(sender=ME),
        told(sender=1),
        told(observation=np.zeros((ROLLOUTS, SIZES[0] + 1), np.float32)),
        told(observation=np.zeros((ROLLOUTS, SIZES[0]), np.float64)),
        told(observation=np.full((ROLLOUTS, SIZES[0]), np.nan, np.float32)),
        told(action=np.full(ROLLOUTS, ACTIONS, np.int64)),
        told(action=np.full(ROLLOUTS, -1, np.int64)),
        told(action=np.zeros(ROLLOUTS, np.int8)),
        told(action=np.zeros(ROLLOUTS + 1, np.int64)),
    ],
)
def test_steps_of_no_use_are_not_kept(bad: Message) -> None:
    hearsay = Twins.born().hearsay
    assert hearsay.admit(told()) == 3
    assert hearsay.admit(bad) is None
    assert hearsay.state()["heard"][0][:2] == [0, 3] and len(hearsay.state()["heard"]) == 1


def test_of_steps_that_wait_only_the_newest_are_kept() -> None:
    hearsay = Twins.born().hearsay
    for step in range(1000):
        hearsay.admit(told(step=step))
    kept = [number for _, number, _, _ in hearsay.state()["heard"]]
    assert kept == list(range(1000 - 256, 1000))
