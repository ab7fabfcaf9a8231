"""Real processes that are killed, stopped and started again: the run ends, and nothing accepted is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import DEVICES, METRICS
from tests.f2a2_sim.deployment.roles import ENDLESS, N_AGENTS, Roles

KILLS = int(os.environ.get("F2A2_FAULT_KILLS", "3"))
"""Times that somebody is killed in the middle; 20 in the long mode."""


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    made: list[Roles] = []

    def make(**changes: object) -> Roles:
        made.append(Roles(tmp_path, **changes))
        return made[-1]

    yield make  # type: ignore[misc]
    for each in made:
        each.close()


def test_anybody_may_be_killed_and_come_back(roles) -> None:  # type: ignore[no-untyped-def]
    episodes = 8 + 2 * KILLS
    run = roles(duration={"episodes": episodes})
    rng = np.random.default_rng(KILLS)
    run.start_all()
    run.wait_for(lambda: run.world_steps() > 30, 120.0)
    on_disk = [0] * N_AGENTS
    for kill in range(KILLS):
        role = ["world", *(f"agent-{n}" for n in range(N_AGENTS))][int(rng.integers(0, N_AGENTS + 1))]
        if kill == 0:
            role = "world"
        before = run.world_steps()
        at = before + int(rng.integers(1, 25))
        run.wait_for(lambda at=at: run.world_steps() >= at)  # type: ignore[misc]
        if run.world_steps() >= 25 * (episodes - 1):
            break
        run.kill(role)
        if role != "world":
            number = int(role.removeprefix("agent-"))
            on_disk[number] = max(on_disk[number], run.remembered(number))
        run.start(role)
    summary = run.end(240.0)
    assert summary.status == "finished" and summary.episodes == episodes
    assert summary.env_steps == 25 * episodes
    for number in range(N_AGENTS):
        assert run.remembered(number) >= on_disk[number] > -1
    rows = RunFolder(run.world_dir).read_table(METRICS)
    assert rows["env_steps"].tolist() == sorted(set(rows["env_steps"].tolist())), "no step counted twice"
    assert (np.diff(rows["updates"]) >= -40).all()  # a killed agent loses its updates since its checkpoint
    assert summary.messages.delivered > 0  # what a killed agent has counted since its checkpoint is not known


def test_an_agent_that_stands_still_is_waited_for_only_so_long(roles) -> None:  # type: ignore[no-untyped-def]
    world = {
        "env": "mpe2.simple_spread_v3:parallel_env",
        "env_args": {"N": N_AGENTS, "max_cycles": 25},
        "episode_steps": 25,
        "mode": "lockstep",
    }
    run = roles(world=world, duration=ENDLESS)
    run.start_all()
    run.wait_for(lambda: run.world_steps() > 30, 120.0)
    stopped = run.processes["agent-1"]
    stopped.send_signal(signal.SIGSTOP)
    before = run.world_steps()
    run.wait_for(lambda: run.world_steps() > before + 30)
    run.wait_for_word("agent-1 is absent: no action within 1 s")
    stopped.send_signal(signal.SIGCONT)
    run.wait_for_word("agent-1 takes part again")
    assert run.interrupt().missed_deadlines > 0


def test_a_cut_network_heals(roles) -> None:  # type: ignore[no-untyped-def]
    """Two seconds of silence count as absence; the others go on, and afterwards all take part again."""
    run = roles(duration=ENDLESS)
    wires = run.put_on_wires(1)
    run.start_all()
    run.wait_for_word("everybody is there")
    run.wait_for(lambda: run.world_steps() > 30, 120.0)
    for wire in wires:
        wire.cut()
    before = run.world_steps()
    run.wait_for(lambda: run.world_steps() > before + 80)
    for wire in wires:
        wire.heal()
    run.wait_for_word("agent-1 takes part again")
    summary = run.interrupt()
    assert summary.status == "interrupted" and summary.env_steps > before + 80
    log = (run.world_dir / "log.txt").read_text()
    assert "agent-1 is absent: silent for 2 s" in log
    devices = RunFolder(run.world_dir).read_table(DEVICES)
    assert devices["off_s"][1] > 1.0 and devices["off_s"][0] == 0.0
    assert devices["missed_deadlines"][1] > 30 + devices["missed_deadlines"][0]


def test_a_world_that_misses_somebody_says_whom(roles) -> None:  # type: ignore[no-untyped-def]
    run = roles(deployment={"start_timeout_s": 5.0})
    for role in ("world", "agent-0", "agent-2"):
        run.start(role)
    assert run.processes["world"].wait(60) == 1
    said = (run.folder / "world.out").read_text()
    assert "agent-1: not there after 5 s (deployment.start_timeout_s)" in said
    assert "Traceback" not in said


def test_who_learns_of_others_by_messages_comes_back_with_what_it_was_told(roles) -> None:  # type: ignore[no-untyped-def]
    learner = {
        "name": "f2a2_sac",
        "information": "network",
        "hidden_size": 16,
        "batch_size": 16,
        "replay_transitions": 2000,
        "update_every_steps": 5,
    }
    run = roles(learner=learner, duration=ENDLESS)
    run.start_all()
    run.wait_for(lambda: run.world_steps() > 240, 120.0)
    run.kill("agent-1")
    on_disk = run.remembered(1)
    assert on_disk > 30
    run.start("agent-1")
    run.wait_for_word("back from checkpoint", "agent-1")
    run.wait_for(lambda: run.remembered(1) > on_disk + 20)  # it goes on, with all that it had
    summary = run.interrupt()
    assert (run.agent_dir(1) / "log.txt").read_text().count("back from checkpoint") == 1
    assert run.remembered(1) > on_disk + 20
    assert summary.updates > 3 * 20
    assert summary.messages.delivered > 2 * 20 * 25, "steps are messages"
