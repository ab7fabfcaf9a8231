#!/usr/bin/env python3
"""A deployed run over real interfaces on one machine: world and agents in network namespaces of their own.

Needs root (``ip netns``). Each namespace has one end of a veth pair; the other ends are ports of a bridge in
a namespace of its own, so nothing of the machine's own network is touched. What the script makes (namespaces,
and with them their interfaces, and processes) it removes at its end, also if it fails or is interrupted.

    sudo .venv/bin/python scripts/netns.py battle_16 --out runs/spaces
    sudo .venv/bin/python scripts/netns.py battle_16 --out runs/emulated --emulate-network
    sudo .venv/bin/python scripts/netns.py battle_16 --out runs/cut --cut-after 10 --cut-for 8
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SUBNET = "10.77.0"
PORT = 5700
START_S = 180.0
GRACE_S = 20.0


class Spaces:
    """Network namespaces 0 .. count-1, joined by a bridge; removed at the end of a ``with`` block."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._prefix = f"f2a2-{os.getpid()}"
        self._made: list[str] = []

    @property
    def _switch(self) -> str:
        return f"{self._prefix}-switch"

    def name(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    def address(self, number: int) -> str:
        return f"{SUBNET}.{number + 1}"

    def __enter__(self) -> Spaces:
        try:
            self._make(self._switch)
            ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
            ip("-n", self._switch, "link", "set", "bridge", "up")
            for number in range(self.count):
                self._make(self.name(number))
                port = self._port(number)
                ip("link", "add", "uplink", "netns", self.name(number), "type", "veth",
                   "peer", "name", port, "netns", self._switch)  # fmt: skip
                ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
                ip("-n", self.name(number), "addr", "add", f"{self.address(number)}/24", "dev", "uplink")
                ip("-n", self.name(number), "link", "set", "uplink", "up")
                ip("-n", self.name(number), "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def cut(self, number: int, down: bool) -> None:
        """Take a namespace's link to the bridge down, or up again."""
        ip("-n", self._switch, "link", "set", self._port(number), "down" if down else "up")

    def run(self, number: int, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in a namespace."""
        with open(log, "wb") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name(number), *command],
                stdout=file, stderr=file, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @staticmethod
    def _port(number: int) -> str:
        return f"port{number}"

    def _make(self, name: str) -> None:
        ip("netns", "add", name)
        self._made.append(name)

    def _remove(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False)
        self._made = []


def ip(*arguments: str) -> None:
    """Raises CalledProcessError with what ``ip`` has to say."""
    subprocess.run(["ip", *arguments], check=True)


def main() -> int:
    options = parse()
    if os.geteuid() != 0:
        print("scripts/netns.py: needs root to make network namespaces; run it with sudo", file=sys.stderr)
        return 2
    from f2a2_sim.scenario.load import load_scenario
    from f2a2_sim.simulator.build import build_world
    from network.keys import WORLD, agent_name, make_keys

    agents = len(build_world(load_scenario(options.scenario, options.overrides)).agents)
    out = Path(options.out).resolve()
    place = out.parent / f"{out.name}-agents"
    place.mkdir(parents=True)
    keys = place / "keys"
    make_keys(keys, [WORLD, *(agent_name(agent) for agent in range(agents))])
    program = [sys.executable, "-m", "f2a2_sim.cli"]
    world_at = f"tcp://{SUBNET}.1:{PORT}"
    processes: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    with Spaces(1 + options.spaces) as spaces:
        try:
            world = spaces.run(
                0, *program, "world", options.scenario, *options.overrides, "--bind", world_at,
                "--keys", str(keys), "--out", str(out), "--quiet", log=place / "world.log",
            )  # fmt: skip
            processes.append(world)
            crews = options.spaces * options.processes
            for crew in range(crews):
                space = 1 + crew % options.spaces
                numbers = [text for member in range(crew, agents, crews) for text in ("--id", str(member))]
                emulate = ["--emulate-network"] if options.emulate_network else []
                agent = spaces.run(
                    space, *program, "agent", "--world", world_at, *numbers, *emulate,
                    "--bind", f"tcp://{spaces.address(space)}:*", "--keys", str(keys),
                    "--join-timeout-s", str(START_S), "--out", str(place / f"crew-{crew}"),
                    log=place / f"crew-{crew}.log",
                )  # fmt: skip
                processes.append(agent)
            if options.cut_after is not None:
                cut_and_heal(spaces, out / "log.txt", world, options.cut_after, options.cut_for)
            status = world.wait()
        finally:
            end(processes)
    print(f"Run folder: {out}\nLogs:       {place}")
    if status:
        print((place / "world.log").read_text(errors="replace"), file=sys.stderr)
    return status


def cut_and_heal(
    spaces: Spaces, log: Path, world: subprocess.Popen[bytes], after_s: float, for_s: float
) -> None:
    """So long after everybody has come: take the last namespace's link down, and up again."""
    until_s = time.monotonic() + START_S
    while world.poll() is None and not (log.is_file() and "everybody is there" in log.read_text()):
        if time.monotonic() > until_s:
            return
        time.sleep(0.1)
    time.sleep(after_s)
    last = spaces.count - 1
    spaces.cut(last, down=True)
    print(f"cut {spaces.address(last)} off", flush=True)
    try:
        time.sleep(for_s)
    finally:
        spaces.cut(last, down=False)
        print("healed", flush=True)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Let those who still run end by themselves, if the first, the world, has; then make them."""
    until_s = time.monotonic() + (GRACE_S if processes and processes[0].poll() is not None else 0.0)
    for stop in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until_s - time.monotonic(), 0.1))
        for process in processes:
            if process.poll() is None:
                stop(process)
        until_s = time.monotonic() + GRACE_S
    for process in processes:
        process.wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenario", help="a YAML file, or a shipped scenario's name")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of the scenario to change")
    parser.add_argument("--out", required=True, help="folder of the run, new")
    parser.add_argument("--spaces", type=int, default=2, help="namespaces for the agents, beside the world's")
    parser.add_argument("--processes", type=int, default=1, help="processes of agents in each of them")
    parser.add_argument("--emulate-network", action="store_true", help="the scenario's links on top")
    parser.add_argument("--cut-after", type=float, help="seconds until the last namespace is cut off")
    parser.add_argument("--cut-for", type=float, default=5.0, help="seconds until that is healed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
