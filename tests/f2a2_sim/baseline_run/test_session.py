"""`f2a2-sim baseline`: what it writes, what it refuses, and that kills and signals change no curve.

What a signal or a kill does is tried on processes of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from f2a2_sim.baseline_run.session import go_on, train
from f2a2_sim.baseline_run.settings import BaselineSettings
from f2a2_sim.cli import app
from f2a2_sim.errors import CheckpointError
from f2a2_sim.results.curves import curves_schema
from f2a2_sim.results.folder import BaselineFolder
from f2a2_sim.results.tables import TableSchema, compare_metrics
from f2a2_sim.worlds.particle import RoverTower

SMALL = ["hidden_size=16", "heads=2", "batch_size=60", "replay_transitions=900", "rollouts=4"]
STATISTICS = dict.fromkeys(("critic_loss", "critic_norm", "policy_norm", "entropy"), "")
EPISODES = 160
OFTEN = "from f2a2_sim.baseline_run import session; session.SECONDS_BETWEEN_CHECKPOINTS = 0.1\n"
MAIN = "from f2a2_sim.cli import main; main()"


def schema() -> TableSchema:
    return curves_schema(RoverTower.agents, STATISTICS)


def curves(folder: Path) -> dict[str, np.ndarray]:
    return BaselineFolder.open(folder).read_table(schema())


def cli(*arguments: str | Path) -> subprocess.Popen[str]:
    """The command line, saving ten times a second."""
    return subprocess.Popen(
        [sys.executable, "-c", OFTEN + MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def training(out: Path) -> list[str]:
    return ["baseline", "maac", "rover_tower", *SMALL, "--episodes", str(EPISODES), "--out", str(out)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = CliRunner().invoke(app, [*training(out), "--threads", "1"])
    assert done.exit_code == 0, done.output
    return out


def wait_for_checkpoint(folder: Path, newer_than: int, process: subprocess.Popen[str]) -> int:
    for _ in range(3000):
        there = [int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit()]
        if there and max(there) > newer_than:
            return max(there)
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("no checkpoint within half a minute")


def test_it_writes_curves_and_a_summary(undisturbed: Path) -> None:
    table = curves(undisturbed)
    assert table["episodes"].tolist() == list(range(4, EPISODES + 1, 4))
    assert (table["transitions"] == 25 * table["episodes"]).all()
    assert table["updates"][-1] == 160  # 4 in a hundred of 4,000 transitions
    own = np.stack([table[f"return_{agent}"] for agent in RoverTower.agents])
    np.testing.assert_allclose(own.mean(axis=0), table["return_mean_per_agent"], rtol=1e-12)
    np.testing.assert_allclose(own[:4].sum(axis=0), own[4:].sum(axis=0), rtol=1e-5)  # both of a pair
    assert np.isfinite(table["critic_loss"][1:]).all() and (np.diff(table["wall_s"]) > 0).all()
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert (summary["status"], summary["episodes"], summary["updates"]) == ("finished", EPISODES, 160)
    assert summary["config"]["hidden_size"] == 16 and summary["config"]["tau"] == 0.001
    assert summary["return_mean_per_agent"] == pytest.approx(table["return_mean_per_agent"].mean())
    assert set(summary["wall_breakdown_s"]) == {"acting", "world", "learning", "saving", "other"}
    assert sum(summary["wall_breakdown_s"].values()) == pytest.approx(summary["wall_time_s"], abs=0.5)


def test_a_row_without_updates_has_no_statistics(tmp_path: Path) -> None:
    settings = BaselineSettings.of("maac", "rover_tower", [*SMALL, "batch_size=150"], 8, 1)
    train(settings, tmp_path / "run")
    table = curves(tmp_path / "run")
    assert table["updates"].tolist() == [0, 4] and np.isnan(table["entropy"]).tolist() == [True, False]


def test_killed_and_then_stopped_its_curves_are_those_of_an_undisturbed_training(
    undisturbed: Path, tmp_path: Path
) -> None:
    """kill -9 after a checkpoint; resumed, SIGTERM after another; resumed to the end."""
    folder = tmp_path / "disturbed"
    process = cli(*training(folder), "--threads", "1")
    seen = wait_for_checkpoint(folder, 0, process)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the training was over before it could be killed"

    process = cli("resume", folder, "--threads", "1")
    wait_for_checkpoint(folder, seen, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and f"Go on with: f2a2-sim resume {folder}" in err
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert len(curves(folder)["episodes"]) < EPISODES // 4

    assert go_on(folder, threads=1).summary.status == "finished"
    assert compare_metrics(curves(undisturbed), curves(folder), schema()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mac", "ctc"], "baseline mac: there is none of that name; use maac, maddpg, coma, ma_ac, iql"),
        (["maac", "battle"], "world battle: the baselines are trained in ctc or rover_tower"),
        (["maac", "ctc", "batch_siz=3"], "batch_siz = 3: no such key; did you mean batch_size?"),
        (["maac", "ctc", "heads=x"], "heads = x: expected a valid integer; change heads"),
        (["maac", "ctc", "tau=2", "discount=-1"], "discount = -1: expected greater than or equal to 0"),
        (["maac", "ctc", "heads"], "heads: expected key=value"),
        (["maac", "ctc", "heads=[1"], "heads=[1"),
        (["maac", "ctc", "heads=3"], "3 heads cannot share 128 hidden units"),
        (["maac", "ctc", "replay_transitions=500"], "batch_size: 1024 is more than replay_transitions, 500"),
        (["maac", "ctc", "--episodes", "0"], "--episodes"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_written(arguments: list[str], told: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["baseline", *arguments, "--out", str(out)], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and told in done.stderr
    assert not out.exists()


def test_a_folder_that_is_taken_and_a_training_that_is_over(undisturbed: Path) -> None:
    before = (undisturbed / "curves.parquet").read_bytes()
    done = CliRunner().invoke(app, training(undisturbed))
    assert done.exit_code == 2 and "already exists" in done.stderr
    done = CliRunner().invoke(app, ["resume", str(undisturbed)])
    assert done.exit_code == 2 and "this training has finished" in done.stderr
    assert (undisturbed / "curves.parquet").read_bytes() == before


def test_a_checkpoint_of_other_settings_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    (undisturbed / "checkpoints").rename(undisturbed / "kept")
    try:
        folder.mkdir()
        (folder / "checkpoints").symlink_to(undisturbed / "kept")
        text = (undisturbed / "baseline.yaml").read_text()
        (folder / "baseline.yaml").write_text(text.replace("tau: 0.001", "tau: 0.002"))
        with pytest.raises(CheckpointError, match="checkpoint of another scenario or seed"):
            go_on(folder)
    finally:
        (undisturbed / "kept").rename(undisturbed / "checkpoints")
