"""Runs survive what happens to real ones: kills, interruptions, damaged files, disks that refuse.

What a signal or a kill does is tried on processes of their own, through the command line.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from f2a2_sim import api
from f2a2_sim.api import resume, run_identity
from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.replay import write_replay
from f2a2_sim.results.tables import METRICS, compare_metrics
from f2a2_sim.scenario.yaml_source import parse_yaml
from f2a2_sim.simulator.checkpoint import list_checkpoints, read_tensors
from tests.f2a2_sim.simulator.conftest import BASE, CHURNING, merged, scenario_of

SLOW_ENOUGH = {
    "duration": {"episodes": 4},
    "world": {"agents": 16},
    "learner": {"hidden_size": 32},
    "checkpoint": {"every_wall_s": 0.2, "keep": 3},
    "record": {"tensorboard": True, "baseline_episodes": 1},
}
"""Some seconds of everything that can go wrong, saved five times a second."""


def cli(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "f2a2_sim", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def metrics_of(run_dir: Path) -> dict[str, np.ndarray]:
    return RunFolder.open(run_dir).read_table(METRICS)


@pytest.fixture(scope="module")
def scenario_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "survive.yaml"
    path.write_text(yaml.safe_dump(merged(merged(BASE, CHURNING), SLOW_ENOUGH)))
    return path


@pytest.fixture(scope="module")
def undisturbed(scenario_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    code, _, err = finished(cli("run", scenario_file, "--out", run_dir))
    assert code == 0, err
    return run_dir


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.01)
    pytest.fail("what was waited for did not happen within a minute")


def checkpoints(run_dir: Path) -> list[Path]:
    return sorted(p for p in (run_dir / "checkpoints").glob("*") if p.name.isdigit())


def test_killed_again_and_again_a_run_ends_as_if_it_never_was(
    scenario_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """kill -9 three times, each at another moment after another checkpoint, then resume to the end."""
    run_dir = tmp_path / "killed"
    rng = np.random.default_rng(0)
    process = cli("run", scenario_file, "--out", run_dir)
    for _ in range(3):
        seen = len(checkpoints(run_dir))
        newest = checkpoints(run_dir)[-1].name if seen else ""
        wait_for(
            lambda newest=newest: checkpoints(run_dir)[-1:] > [run_dir / "checkpoints" / newest], process
        )
        time.sleep(float(rng.uniform(0.0, 0.4)))
        assert process.poll() is None, "the run was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        assert finished(process)[0] == -signal.SIGKILL
        process = cli("resume", run_dir)
    code, _, err = finished(process)
    assert code == 0, err
    assert compare_metrics(metrics_of(undisturbed), metrics_of(run_dir)) == []
    ours, theirs = (RunFolder.open(d).read_summary() for d in (run_dir, undisturbed))
    assert ours.messages == theirs.messages
    assert ours.messages.lost > 0 and ours.messages.in_flight > 0
    assert ours.status == "finished"


def test_interrupted_a_run_saves_itself_and_says_how_to_go_on(
    scenario_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "interrupted"
    process = cli("run", scenario_file, "checkpoint.every_wall_s=1000", "--out", run_dir)
    wait_for(lambda: (run_dir / "tensorboard").is_dir(), process)
    time.sleep(0.8)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert code == 130
    assert f"f2a2-sim resume {run_dir}" in out + err
    assert "Traceback" not in err
    assert RunFolder.open(run_dir).read_summary().status == "interrupted"
    assert (run_dir / "report.html").is_file()
    code, _, err = finished(cli("resume", run_dir))
    assert code == 0, err
    assert compare_metrics(metrics_of(undisturbed), metrics_of(run_dir)) == []


def clear_refusal(process: subprocess.Popen[str], expected_code: int) -> str:
    code, _, err = finished(process)
    assert code == expected_code, err
    assert "Traceback" not in err
    return err.replace("\n", " ")


def test_interrupted_before_the_first_row_of_metrics_a_run_still_has_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages have been sent by then, but nothing has been recorded of them."""

    @contextmanager
    def after_800_events(**_: bool) -> Iterator[Callable[[], bool]]:
        looks = itertools.count()
        yield lambda: next(looks) > 800

    monkeypatch.setattr(api, "interruption", after_800_events)
    late = {"record": {"every_steps": 1000}, "world": {"episode_steps": 100}}
    result = api.run(scenario_of(SLOW_ENOUGH, late), out=tmp_path / "run")
    assert result.status == "interrupted"
    assert result.summary.messages.sent > 0
    assert len(result.metrics()["row"]) == 0
    assert "messages" in (result.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["state.json", "tensors-000.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["one byte", "cut short", "missing"])
def test_a_damaged_checkpoint_is_named_and_an_older_one_serves(
    undisturbed: Path, tmp_path: Path, file: str, damage: str
) -> None:
    run_dir = tmp_path / "damaged"
    shutil.copytree(undisturbed, run_dir)
    newest, older = checkpoints(run_dir)[-1], checkpoints(run_dir)[-2]
    victim = newest / file
    data = bytearray(victim.read_bytes())
    if damage == "missing":
        victim.unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        victim.write_bytes(data if damage == "one byte" else data[: len(data) // 2])
    with pytest.raises(CheckpointError) as refusal:
        resume(run_dir)
    assert refusal.value.exit_code == 2
    assert str(victim) in str(refusal.value)
    assert f"--checkpoint {int(older.name)}" in str(refusal.value)


def test_going_on_from_an_older_checkpoint_gives_the_same_end(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "older"
    shutil.copytree(undisturbed, run_dir)
    older = checkpoints(run_dir)[0]
    code, _, err = finished(cli("resume", run_dir, "--checkpoint", str(int(older.name))))
    assert code == 0, err
    assert compare_metrics(metrics_of(undisturbed), metrics_of(run_dir)) == []


def test_a_finished_run_keeps_its_policies_and_nothing_else(undisturbed: Path) -> None:
    folder = RunFolder.open(undisturbed)
    whole, last = list_checkpoints(folder)[-2:]
    kept, before = read_tensors(folder, last, ""), read_tensors(folder, whole, "/learner/parameters")
    assert kept.keys() == before.keys()
    assert {name: tensor.shape for name, tensor in kept.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert any((kept[name] != before[name]).any() for name in kept)  # those of the end
    assert write_replay(undisturbed, undisturbed / "film.gif", max_steps=2).is_file()


def test_a_finished_run_says_that_it_is(undisturbed: Path) -> None:
    before = (undisturbed / "summary.json").read_bytes()
    with pytest.raises(UsageError, match="has finished"):
        resume(undisturbed)
    assert (undisturbed / "summary.json").read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "foreign"
    shutil.copytree(undisturbed, run_dir)
    scenario = (run_dir / "scenario.yaml").read_text()
    (run_dir / "scenario.yaml").write_text(scenario.replace("seed: 3", "seed: 4"))
    assert "another scenario or seed" in clear_refusal(cli("resume", run_dir), 2)


def test_a_run_from_before_a_key_was_added_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "older"
    shutil.copytree(undisturbed, run_dir)
    folder = RunFolder.open(run_dir)
    text = folder.scenario_file.read_text()
    older = text.replace("  td_clip: null\n", "")
    assert older != text
    folder.scenario_file.write_text(older)
    checkpoint = list_checkpoints(folder)[-2]  # the last one is of a run that is over
    with pytest.raises(CheckpointError, match="another scenario or seed"):
        resume(run_dir, checkpoint=checkpoint.number)
    run_id = run_identity(parse_yaml(older, "older").data)
    manifest = json.loads((checkpoint.path / "manifest.json").read_text())
    (checkpoint.path / "manifest.json").write_text(json.dumps(manifest | {"run_id": run_id}))
    assert resume(run_dir, checkpoint=checkpoint.number).status == "finished"
    assert compare_metrics(metrics_of(run_dir), metrics_of(undisturbed)) == []


def test_a_run_without_checkpoints_says_so(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "empty"
    shutil.copytree(undisturbed, run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        resume(run_dir)


def test_a_disk_that_refuses_a_checkpoint_ends_the_run_but_not_the_folder(
    scenario_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The first checkpoints fit, later ones do not: a limit on the size of files stands for the disk's."""
    run_dir = tmp_path / "refused"
    process = cli("run", scenario_file, "--out", run_dir)
    wait_for(lambda: checkpoints(run_dir), process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    err = clear_refusal(process, 1)
    assert str(run_dir) in err
    assert checkpoints(run_dir)
    assert not list((run_dir / "checkpoints").glob(".*"))
    code, _, err = finished(cli("resume", run_dir))
    assert code == 0, err
    assert compare_metrics(metrics_of(undisturbed), metrics_of(run_dir)) == []


def test_two_processes_cannot_write_one_run(undisturbed: Path) -> None:
    with RunFolder.open(undisturbed).lock(), pytest.raises(UsageError, match="another process"):
        resume(undisturbed)
