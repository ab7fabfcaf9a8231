"""What an agent comes back from, and what it begins with: put together from real parts, without a world."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment.agent_memory import AgentMemory
from f2a2_sim.deployment.assembly import AgentParts, assemble
from f2a2_sim.deployment.clock import RunClock
from f2a2_sim.deployment.links import AgentLinks
from f2a2_sim.errors import RunError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.load import dump_scenario, load_scenario
from network.security import Security
from network.voice import Voice
from tests.f2a2_sim.deployment.roles import N_AGENTS, SMALL

SIZE, ACTIONS = 18, 5
LEARNER = {
    "name": "f2a2_sac",
    "hidden_size": 16,
    "batch_size": 16,
    "replay_transitions": 2000,
    "update_every_steps": 1,
}


class Agents:
    """Agents 0 of one run, as after a restart each."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        path = folder / "small.yaml"
        world = {**SMALL["world"], "mode": "lockstep", "period_s": None}
        path.write_text(yaml.safe_dump({**SMALL, "world": world, "learner": LEARNER}))
        self.scenario = load_scenario(path)
        self.folder = RunFolder(folder / "agent-0")
        self.folder.path.mkdir()
        self.folder.write_scenario(dump_scenario(self.scenario))
        self._closing = closing

    def parts(self, start: np.ndarray | None = None) -> AgentParts:
        clock = RunClock()
        voice = Voice(0, clock)
        links = AgentLinks("tcp://127.0.0.1:1", "tcp://127.0.0.1:*", None, Security.insecure(), voice, print)
        self._closing.callback(links.close)
        welcome = say.Welcome(
            scenario=dump_scenario(self.scenario),
            run_id="r",
            run_s=0.0,
            observation_sizes=[SIZE] * N_AGENTS,
            action_counts=[ACTIONS] * N_AGENTS,
            rollouts=1,
        )
        parts = assemble(0, welcome, start, clock, links, voice.session, emulate_network=False)
        nothing: Any = lambda *_: None  # noqa: E731
        parts.labour.when_done(nothing, parts.training.update_done, parts.exchange.mix_done)
        parts.training.start()
        return parts

    def memory(self, parts: AgentParts) -> AgentMemory:
        memory = AgentMemory(parts, self.folder, "r-0")
        self._closing.callback(memory.close)
        return memory


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    with ExitStack() as closing:
        yield Agents(tmp_path, closing)


def live(parts: AgentParts, steps: range) -> None:
    rng, me = np.random.default_rng(steps.start), np.array([0])
    for step in steps:
        seen = [rng.standard_normal(SIZE).astype(np.float32) for _ in range(N_AGENTS)]
        parts.population.observe(seen)
        if step:
            rewards, ended = np.zeros(N_AGENTS, np.float32), np.zeros(N_AGENTS, np.bool_)
            parts.population.remember(me, rewards, ended, np.zeros(N_AGENTS, np.int64))
        parts.labour.request_actions(me, step)
        parts.training.tick(me)
        parts.labour.work_off()


def test_an_update_that_waited_for_the_others_policies_is_made_after_a_restart(agents: Agents) -> None:
    before = agents.parts()
    before.labour.may_update = lambda: False
    memory = agents.memory(before)
    memory.restore()
    live(before, range(40))
    assert before.labour.owes and before.updates == 0
    memory.save()
    after = agents.parts()
    assert agents.memory(after).restore() is not None
    live(after, range(40, 45))
    assert after.updates == 1, "and waits for its neighbours' copies then"


def test_an_agent_begins_with_what_the_world_says(agents: Agents) -> None:
    usual = agents.parts()
    start = np.linspace(-1, 1, usual.fleet.learner.parameters.shape[1], dtype=np.float32)
    parts = agents.parts(start)
    for row in parts.fleet.learner.parameters.numpy():
        np.testing.assert_array_equal(row, start)
    assert not np.array_equal(usual.fleet.learner.parameters[0].numpy(), start)
    with pytest.raises(RunError, match="starts from"):
        agents.parts(start[1:])
