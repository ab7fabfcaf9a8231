"""Real processes of a small deployed run, to be killed, cut off and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from f2a2_sim.deployment.journal import Journal
from f2a2_sim.interruption import EXIT_INTERRUPTED
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.summary import Summary
from f2a2_sim.simulator.checkpoint import find_checkpoint, list_checkpoints, read_checkpoint
from network.keys import WORLD, agent_name, make_keys
from tests.f2a2_sim.deployment.proxy import Wire

N_AGENTS = 3
ENDLESS = {"episodes": 1_000_000}
"""Ended with `Roles.interrupt` once a test has seen what it waited for, however slow the machine is."""

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "duration": {"episodes": 8},
    "world": {
        "env": "mpe2.simple_spread_v3:parallel_env",
        "env_args": {"N": N_AGENTS, "max_cycles": 25},
        "episode_steps": 25,
        "mode": "realtime",
        "period_s": 0.05,
    },
    "learner": {"hidden_size": 16, "batch_size": 16, "replay_transitions": 30_000},
    "consensus": {"beta": 0.1, "penalty_step": 0.3, "wait": "neighbours", "wait_timeout_s": 0.3},
    "network": {"topology": {"kind": "complete"}, "link": {"profile": "loopback"}},
    "record": {"every_steps": 25, "baseline_episodes": 0, "tensorboard": False},
    "checkpoint": {"every_wall_s": 1.5},
    "deployment": {"start_timeout_s": 90.0, "lockstep_timeout_s": 1.0, "lost_after_s": 2.0},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Roles:
    """A world and its agents, each a process of its own on this machine's loopback; ``keys``: with CURVE.

    ``hosts``: addresses of those roles that are elsewhere; ``before``: what comes before a role's command.
    """

    def __init__(
        self,
        folder: Path,
        keys: bool = False,
        hosts: Mapping[str, str] | None = None,
        before: Callable[[str], list[str]] = lambda role: [],
        **changes: Any,
    ) -> None:
        self.folder = folder
        self._hosts = hosts or {}
        self._before = before
        self.keys = folder / "keys" if keys else None
        if self.keys is not None:
            make_keys(self.keys, [WORLD, *(agent_name(number) for number in range(N_AGENTS))])
        self.scenario = folder / "small.yaml"
        self.scenario.write_text(yaml.safe_dump({**SMALL, **changes}))
        self.world_dir = folder / "world"
        self.endpoint = f"tcp://{self.host('world')}:{free_port()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.wires: dict[int, tuple[Wire, Wire]] = {}
        self.ports = {number: free_port() for number in range(N_AGENTS)}

    def host(self, role: str) -> str:
        return self._hosts.get(role, "127.0.0.1")

    def put_on_wires(self, number: int) -> tuple[Wire, Wire]:
        """Let an agent reach the world, and its peers reach it, by wires that can be cut."""
        world_port = int(self.endpoint.rpartition(":")[2])
        self.wires[number] = Wire(world_port), Wire(self.ports[number])
        return self.wires[number]

    def agent_dir(self, number: int) -> Path:
        return self.folder / f"agent-{number}"

    def start(self, role: str) -> None:
        """Start "world" or "agent-N", or start it again."""
        if role == "world":
            again = (self.world_dir / "scenario.yaml").exists()
            new = [str(self.scenario), "--out", str(self.world_dir)]
            command = ["world", *([str(self.world_dir), "--resume"] if again else new)]
            command += ["--bind", self.endpoint, "-q"]
        else:
            number = int(role.removeprefix("agent-"))
            world = self.endpoint
            command = ["agent", "--id", str(number), "--out", str(self.agent_dir(number))]
            command += ["--bind", f"tcp://{self.host(role)}:{self.ports[number]}"]
            if number in self.wires:
                to_world, to_agent = self.wires[number]
                world = f"tcp://127.0.0.1:{to_world.port}"
                command += ["--address", f"tcp://127.0.0.1:{to_agent.port}"]
            command += ["--world", world]
        command += ["--insecure"] if self.keys is None else ["--keys", str(self.keys)]
        with open(self.folder / f"{role}.out", "ab") as out:
            self.processes[role] = subprocess.Popen(
                [*self._before(role), sys.executable, "-m", "f2a2_sim.cli", *command],
                stdout=out,
                stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def start_all(self) -> None:
        for role in ("world", *(f"agent-{n}" for n in range(N_AGENTS))):
            self.start(role)

    def kill(self, role: str, how: signal.Signals = signal.SIGKILL) -> None:
        process = self.processes.pop(role)
        process.send_signal(how)
        process.wait(30)

    def wait_for(self, what: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Until that is so; AssertionError with the logs after the limit, or if a role has failed."""
        until_s = time.monotonic() + limit_s
        while not what():
            for role, process in self.processes.items():
                assert process.poll() in (None, 0), f"{role} failed\n{self.words()}"
            assert time.monotonic() < until_s, self.words()
            time.sleep(0.05)

    def words(self) -> str:
        """All that the roles have said."""
        files = [*sorted(self.folder.glob("*.out")), *sorted(self.folder.glob("*/log.txt"))]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def end(self, limit_s: float = 120.0) -> Summary:
        """Wait for the run's end; its summary."""
        self.wait_for(lambda: self.processes["world"].poll() is not None, limit_s)
        for process in self.processes.values():
            assert process.wait(30) == 0, self.words()
        return RunFolder.open(self.world_dir).read_summary()

    def interrupt(self, limit_s: float = 120.0) -> Summary:
        """Stop the world as ^C does, and wait until all have ended; the summary so far."""
        world = self.processes.pop("world")
        world.send_signal(signal.SIGINT)
        assert world.wait(limit_s) == EXIT_INTERRUPTED, self.words()
        for process in self.processes.values():
            assert process.wait(30) == 0, self.words()
        return RunFolder.open(self.world_dir).read_summary()

    def wait_for_word(self, text: str, role: str = "world", limit_s: float = 120.0) -> None:
        """Until that stands in the role's log."""
        log = (self.world_dir if role == "world" else self.folder / role) / "log.txt"
        self.wait_for(lambda: log.exists() and text in log.read_text(), limit_s)

    def world_steps(self) -> int:
        """Steps that the world has in its journal or checkpoint; -1 before the first checkpoint."""
        folder = RunFolder(self.world_dir)
        if not list_checkpoints(folder):
            return -1
        state = read_checkpoint(folder, find_checkpoint(folder), "deployed world")
        if "simulation" in state:
            return 10**9
        steps = [m.fields["step"] + 1 for m in Journal.records(self.world_dir / "journal")]
        return max([int(state["play"]["env_steps"]), *steps])

    def remembered(self, number: int) -> int:
        """Transitions that an agent has on disk: in its newest checkpoint and its journal."""
        folder = RunFolder(self.agent_dir(number))
        held, last = 0, -1
        if list_checkpoints(folder):
            run_id = (self.agent_dir(number) / "run_id").read_text()
            state = read_checkpoint(folder, find_checkpoint(folder), run_id)
            replay = state["population"]["fleets"][0]["learner"]["replay"]
            held = int(np.sum(replay["held" if "held" in replay else "count"]))
            last = int(state["last_step"])
        for message in Journal.records(self.agent_dir(number) / "journal"):
            if message.kind == "transition" and message.sequence > last:
                held += message.tensors["0"].size  # the rows that remember it
        return held

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for pair in self.wires.values():
            for wire in pair:
                wire.close()
