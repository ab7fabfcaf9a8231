"""Runs of real processes from their start to their end: limits, options, and what stands in the logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
import zmq
from typer.testing import CliRunner

from f2a2_sim.cli import app
from f2a2_sim.deployment.launch import launch
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.load import dump_scenario, load_scenario
from f2a2_sim.scenario.schema import Scenario
from network.keys import Members
from tests.f2a2_sim.deployment.roles import N_AGENTS, SMALL, Roles


def small(folder: Path, **changes: object) -> Scenario:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return load_scenario(path)


@pytest.mark.parametrize("limit", ["virtual_time_s", "wall_time_s"])
def test_a_limit_of_time_ends_a_run_in_the_middle_of_an_episode(limit: str, tmp_path: Path) -> None:
    world = {**SMALL["world"], "env_args": {"N": N_AGENTS, "max_cycles": 100_000}, "episode_steps": 100_000}
    scenario = small(tmp_path, world=world, duration={"episodes": None, limit: 10.0})
    folder, summary = launch(scenario, 1, tmp_path / "run", insecure=True, progress=False)
    assert summary.status == "finished" and summary.episodes == 0
    assert summary.env_steps < 100_000
    assert "the limit of time is reached" in folder.log_file.read_text()


def test_more_processes_than_agents_are_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create("small", tmp_path / "run")
    folder.write_scenario(dump_scenario(small(tmp_path)))
    result = CliRunner().invoke(app, ["launch", str(folder.path), "--resume", "--processes", "4"])
    assert result.exit_code == 2
    assert "--processes 4: expected 1 to 3, the number of agents" in result.output


def knock(endpoint: str, kind: int, name: str, members: Members) -> zmq.Socket[bytes]:
    """A stranger, who knows the public keys of all, at a member's door."""
    socket = zmq.Context.instance().socket(kind)
    socket.linger = 0
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = members.public_key(name).encode()
    socket.connect(endpoint)
    return socket


def test_a_strangers_attempts_stand_in_the_logs(tmp_path: Path) -> None:
    run = Roles(tmp_path, keys=True)
    assert run.keys is not None
    strangers = []
    try:
        run.start_all()
        members = Members.load(run.keys / "members.json")
        world, other, agent = (folder / "log.txt" for folder in (run.world_dir, *map(run.agent_dir, (0, 1))))
        run.wait_for(lambda: agent.is_file() and other.is_file(), 120.0)
        strangers.append(knock(run.endpoint, zmq.DEALER, "world", members))
        strangers.append(knock(f"tcp://127.0.0.1:{run.ports[1]}", zmq.PUSH, "agent-1", members))
        refused = "refused a connection with a key that is no member's (1 so far)"
        for log in (world, agent):
            run.wait_for(lambda log=log: refused in log.read_text())  # type: ignore[misc]
        assert refused not in other.read_text()
    finally:
        for socket in strangers:
            socket.close()
        run.close()


@pytest.mark.parametrize("role", ["world", "launch"])
@pytest.mark.parametrize("said", [["seed=5"], ["--out", "elsewhere"]])
def test_what_a_run_that_goes_on_has_already_is_refused(role: str, said: list[str], tmp_path: Path) -> None:
    folder = RunFolder.create("small", tmp_path / "run")
    folder.write_scenario(dump_scenario(small(tmp_path)))
    keys = ["--insecure"] if role == "world" else []
    result = CliRunner().invoke(app, [role, str(folder.path), *said, *keys, "--resume"])
    assert result.exit_code == 2
    assert f"{' '.join(said)}: a run that goes on keeps its settings" in " ".join(result.output.split())


def test_one_address_is_that_of_one_agent() -> None:
    command = ["agent", "--world", "tcp://127.0.0.1:1", "--id", "0", "--id", "1", "--insecure"]
    result = CliRunner().invoke(app, [*command, "--address", "tcp://10.0.0.1:5701"])
    assert result.exit_code == 2
    assert "--address tcp://10.0.0.1:5701: is that of one agent, and there are 2" in " ".join(
        result.output.split()
    )
