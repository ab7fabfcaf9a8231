"""A network that is really cut: namespaces joined by veth pairs, of which one is taken down and up again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.f2a2_sim.deployment.roles import ENDLESS, N_AGENTS, Roles


def netns() -> ModuleType:
    """scripts/netns.py, which is no package."""
    path = Path(__file__).parents[3] / "scripts" / "netns.py"
    spec = importlib.util.spec_from_file_location("netns", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def why_not() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    name = f"f2a2-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        veth = ["ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other"]
        if made.returncode == 0:
            made = subprocess.run(veth, capture_output=True, text=True, check=False)
        return f"no namespaces here: {made.stderr.strip()}" if made.returncode else None
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_a_cut_between_namespaces_heals(tmp_path: Path) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    spaces = netns().Spaces(3)
    space = {"world": 0, "agent-0": 1, "agent-1": 2, "agent-2": 1}
    hosts = {role: spaces.address(number) for role, number in space.items()}
    with spaces:
        run = Roles(
            tmp_path,
            keys=True,
            hosts=hosts,
            before=lambda role: ["ip", "netns", "exec", spaces.name(space[role])],
            duration=ENDLESS,
        )
        try:
            run.start_all()
            run.wait_for(lambda: run.world_steps() > 25, 120.0)
            had = [run.remembered(number) for number in range(N_AGENTS)]
            before = run.world_steps()
            spaces.cut(space["agent-1"], down=True)
            run.wait_for(lambda: run.world_steps() > before + 60)
            spaces.cut(space["agent-1"], down=False)
            run.wait_for_word("agent-1 takes part again")
            run.wait_for(lambda: run.remembered(1) > had[1])  # it goes on learning
            assert run.interrupt().status == "interrupted"
            assert "agent-1 is absent: silent for 2 s" in (run.world_dir / "log.txt").read_text()
            for number in range(N_AGENTS):
                assert run.remembered(number) >= had[number] > 0
            assert run.remembered(1) > had[1]
        finally:
            run.close()
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert spaces.name(0) not in left
