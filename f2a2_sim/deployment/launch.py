"""Starting roles: the world here, agents here, or a world with all agents as processes of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from f2a2_sim.compute import prepare_torch
from f2a2_sim.deployment.agent import AgentNode, AgentOptions
from f2a2_sim.deployment.keyring import Keys
from f2a2_sim.deployment.world import WorldOptions, WorldServer
from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.interruption import interruption
from f2a2_sim.results.folder import RunFolder, write_atomically
from f2a2_sim.results.progress import make_progress
from f2a2_sim.results.summary import Summary
from f2a2_sim.scenario.load import dump_scenario, load_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.baseline import measure_random_policy
from f2a2_sim.simulator.build import build_world
from network.keys import WORLD, agent_name, make_keys

_GRACE_S = 30.0  # for agents to end after they have been told to
_MOST_PROCESSES = 16


def host_world(
    scenario: Scenario,
    bind: str,
    keys: Keys,
    out: Path | None = None,
    progress: bool = True,
) -> tuple[RunFolder, Summary]:
    """Host a scenario's world until its run is over; the folder and the summary of the run."""
    folder = RunFolder.create(scenario.name, out)
    with folder.lock():
        folder.write_scenario(dump_scenario(scenario))
        return folder, _serve(scenario, folder, WorldOptions(bind), keys, progress, resuming=False)


def host_world_again(
    run_dir: Path, bind: str, keys: Keys, progress: bool = True
) -> tuple[RunFolder, Summary]:
    """Go on hosting a run whose world was killed or interrupted; agents that still run find it again."""
    folder = RunFolder.open(run_dir)
    scenario = load_scenario(folder.scenario_file)
    with folder.lock():
        return folder, _serve(scenario, folder, WorldOptions(bind), keys, progress, resuming=True)


def _serve(
    scenario: Scenario,
    folder: RunFolder,
    options: WorldOptions,
    keys: Keys,
    progress: bool,
    resuming: bool,
) -> Summary:
    display = make_progress(scenario, folder, enabled=progress)
    security = keys.security(WORLD)
    with display, interruption(give_up_at_second=True) as interrupted:
        baseline = None
        if not resuming:
            display.on_event("measuring the random policy")
            baseline = measure_random_policy(scenario)
            display.baseline(baseline)
        server = WorldServer(scenario, folder, security, options, display, baseline, interrupted)
        return server.serve(resuming)


def take_part(numbers: Sequence[int], options: AgentOptions, keys: Keys) -> dict[int, str]:
    """Be these agents until the world ends the run; why each ended. Several agents are several threads.

    Raises what the first of them that failed has raised; UsageError for one address of several agents.
    """
    if options.address is not None and len(numbers) > 1:
        raise UsageError(
            f"--address {options.address}: is that of one agent, and there are {len(numbers)}; start each "
            "with a command and an address of its own"
        )
    prepare_torch("cpu", threads=1)
    ends: dict[int, str] = {}
    failures: list[Exception] = []
    with interruption(give_up_at_second=True) as interrupted:

        def stopped() -> bool:
            return interrupted() or bool(failures)

        def be(number: int) -> None:
            own = replace(options, number=number)
            if options.folder is not None and len(numbers) > 1:
                own = replace(own, folder=options.folder / agent_name(number))
            try:
                ends[number] = AgentNode(own, keys.security(agent_name(number)), stopped).run()
            except Exception as error:  # whatever it is, the process ends with it
                failures.append(error)

        if len(numbers) == 1:
            be(numbers[0])
        else:
            threads = [threading.Thread(target=be, args=(n,), name=agent_name(n)) for n in numbers]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
    if failures:
        raise failures[0]
    return ends


def launch(
    scenario: Scenario,
    processes: int | None = None,
    out: Path | None = None,
    insecure: bool = False,
    emulate_network: bool = False,
    progress: bool = True,
) -> tuple[RunFolder, Summary]:
    """Start a world and all its agents as processes of this machine, and see them to the end.

    ``processes``: how many processes share the agents; None = one each, at most 16.
    """
    n = len(build_world(scenario).agents)
    count = _processes_for(n, processes)
    folder = RunFolder.create(scenario.name, out)
    keys = Keys(None)
    if not insecure:
        keys = Keys(folder.path / "keys")
        make_keys(folder.path / "keys", [WORLD, *(agent_name(agent) for agent in range(n))])
    with folder.lock():
        folder.write_scenario(dump_scenario(scenario))
        write_atomically(_options_file(folder), json.dumps({"emulate_network": emulate_network}).encode())
        crew = _Crew(folder, n, count, keys, emulate_network)
        return folder, _see_through(scenario, folder, keys, crew, progress, resuming=False)


def launch_again(
    run_dir: Path, processes: int | None = None, emulate_network: bool = False, progress: bool = True
) -> tuple[RunFolder, Summary]:
    """Go on with a launched run that was interrupted or killed: everybody from the own newest checkpoint.

    Its network is emulated if it was before, or from now on if ``emulate_network``.
    """
    folder = RunFolder.open(run_dir)
    if _options_file(folder).is_file():
        emulate_network |= bool(json.loads(_options_file(folder).read_text())["emulate_network"])
    scenario = load_scenario(folder.scenario_file)
    n = len(build_world(scenario).agents)
    count = _processes_for(n, processes)
    keys = Keys(folder.path / "keys" if (folder.path / "keys").is_dir() else None)
    with folder.lock():
        crew = _Crew(folder, n, count, keys, emulate_network)
        return folder, _see_through(scenario, folder, keys, crew, progress, resuming=True)


def _options_file(folder: RunFolder) -> Path:
    """What a run was launched with that is not in its scenario."""
    return folder.path / "launch.json"


def _processes_for(agents: int, asked: int | None) -> int:
    """How many processes share the agents; UsageError for more than there are agents."""
    if asked is not None and not 1 <= asked <= agents:
        raise UsageError(f"--processes {asked}: expected 1 to {agents}, the number of agents")
    return min(agents, _MOST_PROCESSES) if asked is None else asked


def _see_through(
    scenario: Scenario, folder: RunFolder, keys: Keys, crew: _Crew, progress: bool, resuming: bool
) -> Summary:
    """Host the world and its crew to the end."""
    try:
        options = WorldOptions("tcp://127.0.0.1:*", crew.start, crew.look)
        return _serve(scenario, folder, options, keys, progress, resuming)
    finally:
        crew.end()


class _Crew:
    """The processes of the agents."""

    def __init__(self, folder: RunFolder, agents: int, count: int, keys: Keys, emulate: bool) -> None:
        self._folder = folder
        self._shares = [list(range(first, agents, count)) for first in range(count)]
        self._keys = keys
        self._emulate = emulate
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: list[Any] = []

    def start(self, world: str) -> None:
        """Start them all; they take ``world`` for its endpoint."""
        (self._folder.path / "agents").mkdir(exist_ok=True)
        for index, share in enumerate(self._shares):
            command = [sys.executable, "-m", "f2a2_sim.cli", "agent", "--world", world]
            for number in share:
                command += ["--id", str(number)]
            place = self._folder.path / "agents"
            command += ["--out", str(place if len(share) > 1 else place / agent_name(share[0]))]
            command += ["--world-timeout-s", "60"]
            command += ["--insecure"] if self._keys.folder is None else ["--keys", str(self._keys.folder)]
            command += ["--emulate-network"] if self._emulate else []
            log = open(place / f"process-{index}.log", "wb")  # noqa: SIM115 (closed at the end)
            self._logs.append(log)
            # Of a session of its own, so that Ctrl-C reaches the world first, which then tells the agents.
            self._processes[index] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def look(self) -> None:
        """Raise RunError if a process has failed."""
        for index, process in list(self._processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self._processes[index]
            if status == 2 or status == 1:
                log = self._folder.path / "agents" / f"process-{index}.log"
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
                names = ", ".join(agent_name(number) for number in self._shares[index][:5])
                raise RunError(f"{names}: ended with status {status}: {last[0]} (all of it: {log})")

    def end(self) -> None:
        """Wait for those that still run; then stop them."""
        until_s = time.monotonic() + _GRACE_S
        for process in self._processes.values():
            try:
                process.wait(max(until_s - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(2.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for log in self._logs:
            log.close()
