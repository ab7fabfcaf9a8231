"""A lockstep scenario without losses ends with the same parameters, simulated and as real processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from f2a2_sim.api import run
from f2a2_sim.deployment.launch import launch
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import LINKS, TIMELINE, Columns
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_policies

BATTLE = [
    "world.agents=12",
    "world.episode_steps=40",
    "duration.episodes=2",
    "learner.batch_size=32",
]
TREASURES = [
    "world.episode_steps=60",
    "duration.episodes=2",
    "learner.hidden_size=32",
    "learner.batch_size=64",
]
HEARSAY = [
    *TREASURES,
    "learner.information=network",
    "network.topology={kind: ring}",
    # So long an agent would wait for what its neighbours did: longer than the world waits for an agent.
    "world.observation_latency_s=300",
    "world.action_latency_s=300",
]


def activities(timeline: Columns) -> Counter[tuple[int, str]]:
    """How often each agent did each thing, but for waits, which depend on who is faster."""
    rows = zip(timeline["agent"].tolist(), timeline["kind"].tolist(), strict=True)
    return Counter((agent, kind) for agent, kind in rows if kind != "wait")


@pytest.mark.parametrize(
    ("name", "changes", "updates", "insecure"),
    [
        ("battle_16", BATTLE, 12 * 11, True),
        ("ctc_8", TREASURES, 8 * 12, False),
        ("ctc_8", HEARSAY, 8 * 12, True),
    ],
    ids=["isac_battle", "sac_treasures", "sac_treasures_by_messages"],
)
def test_simulated_and_real_runs_are_equal(
    name: str, changes: list[str], updates: int, insecure: bool, tmp_path: Path
) -> None:
    """Sixteen agents and 200 updates take a minute each way: ``f2a2-sim run battle_16`` and ``launch``."""
    patience = ["deployment.lockstep_timeout_s=60", "deployment.lost_after_s=60"]
    quick = ["record.baseline_episodes=0", "record.tensorboard=false", "consensus.wait_timeout_s=60"]
    scenario = load_scenario(name, [*changes, *quick, *patience])
    simulated = run(scenario, tmp_path / "simulated", threads=1)
    folder, real = launch(scenario, 2, tmp_path / "real", insecure=insecure, progress=False)

    assert real.status == "finished"
    assert real.updates == simulated.summary.updates >= updates
    assert real.return_mean_per_agent == simulated.summary.return_mean_per_agent
    assert real.messages == simulated.summary.messages
    assert real.bytes_sent == simulated.summary.bytes_sent
    theirs = RunFolder(simulated.folder)
    for ours, expected in zip(
        read_policies(folder, find_checkpoint(folder)),
        read_policies(theirs, find_checkpoint(theirs)),
        strict=True,
    ):
        assert torch.equal(ours, expected)
        assert not torch.equal(ours[0], ours[1]), "agents have learnt on their own"
    mine, modelled = folder.read_table(TIMELINE), theirs.read_table(TIMELINE)
    assert activities(mine) == activities(modelled)
    page = folder.report_file.read_text()
    assert "Timeline of some devices" in page and "virtual time" not in page
    columns = ("sender", "receiver", "sent", "delivered")
    mine, modelled = folder.read_table(LINKS), theirs.read_table(LINKS)
    assert sorted(zip(*(mine[c].tolist() for c in columns), strict=True)) == sorted(
        zip(*(modelled[c].tolist() for c in columns), strict=True)
    )
