"""Sweeps: what is planned, and that nothing of a sweep is lost or done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from f2a2_sim import sweep
from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.load import dump_scenario, load_scenario

TINY = (
    "learner.hidden_size=8",
    "learner.batch_size=8",
    "learner.replay_transitions=2400",
    "record.baseline_episodes=0",
    "record.tensorboard=false",
    "duration.episodes=1",
)


def test_every_combination_is_planned_once_the_seed_changing_fastest(tmp_path: Path) -> None:
    points = sweep.plan(["a=0"], ["b.x=1,2", "c.y={kind: ring, n: 3},[4, 5]"], [7, 8], tmp_path)
    assert [p.overrides for p in points] == [
        ("a=0", f"b.x={x}", f"c.y={y}", f"seed={seed}")
        for x in "12"
        for y in ("{kind: ring, n: 3}", "[4, 5]")
        for seed in (7, 8)
    ]
    names = [p.name for p in points]
    assert names[0] == "x=1,y=kind-ring-n-3,seed=7"
    assert len(set(names)) == 8
    assert all(p.folder == tmp_path / p.name for p in points)


def test_values_that_are_spelt_alike_get_folders_of_their_own(tmp_path: Path) -> None:
    points = sweep.plan([], ["x=a b,a-b"], [], tmp_path)
    assert len({p.folder for p in points}) == 2


def test_without_anything_to_vary_there_is_one_run(tmp_path: Path) -> None:
    assert [p.overrides for p in sweep.plan(["a=1"], [], [], tmp_path)] == [("a=1",)]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("1-3", [1, 2, 3]), ("5, 1-2", [5, 1, 2]), ("1,1-2", [1, 2])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert sweep.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds"):
        sweep.parse_seeds(text)


@pytest.mark.parametrize("vary", ["scheme", "scheme=", "scheme=a,,b", "=a"])
def test_values_that_are_none(vary: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        sweep.plan([], [vary], [], tmp_path)


def test_a_key_is_varied_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        sweep.plan([], ["a=1", "a=2"], [], tmp_path)


def test_seeds_are_said_in_one_way(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--vary seed: given beside --seeds"):
        sweep.plan([], ["seed=1,2"], [3], tmp_path)


def test_long_values_get_folders_that_can_be_made(tmp_path: Path) -> None:
    long = "[" + ",".join(["{profile: intel_nuc_8}"] * 20) + "]"
    points = sweep.plan([], [f"devices.fleet={long},{long.replace('8', '9')}"], [1, 2], tmp_path)
    assert len({p.folder for p in points}) == 4
    for point in points:
        point.folder.mkdir()


def test_a_run_that_still_lives_is_not_removed(tmp_path: Path) -> None:
    """What a sweep that was killed has started goes on writing, perhaps before its first checkpoint."""
    points = sweep.plan(TINY, [], [1], tmp_path)
    folder = RunFolder.create("quickstart", points[0].folder)
    folder.write_scenario(dump_scenario(load_scenario("quickstart", points[0].overrides)))
    with folder.lock(), pytest.raises(UsageError, match="another process"):
        sweep.check("quickstart", points)
    assert folder.scenario_file.is_file()
    sweep.check("quickstart", points)
    assert not points[0].folder.exists()


def test_nothing_is_written_when_one_combination_cannot_run(tmp_path: Path) -> None:
    points = sweep.plan(TINY, ["consensus.scheme=gossip,gosip"], [], tmp_path / "out")
    with pytest.raises(UsageError, match="gosip"):
        sweep.check("quickstart", points)
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_finished_skipped_and_told_from_another(tmp_path: Path) -> None:
    def points(*fixed: str) -> list[sweep.Point]:
        return sweep.plan((*TINY, *fixed), ["consensus.scheme=gossip,none"], [2], tmp_path)

    page = sweep.run_sweep("quickstart", points(), tmp_path, jobs=2, threads=1, quiet=True)
    assert page == tmp_path / "comparison.html"
    assert "scheme=none,seed=2" in page.read_text(encoding="utf-8")
    for point in points():
        summary = RunFolder.open(point.folder).read_summary()
        assert (summary.status, summary.seed) == (
            "finished",
            load_scenario("quickstart", point.overrides).seed,
        )
    again = points()
    before = {p.name: p.folder.stat().st_mtime_ns for p in again}
    sweep.check("quickstart", again)
    assert {p.state for p in again} == {"finished"}
    sweep.run_sweep("quickstart", again, tmp_path, jobs=2, threads=1, quiet=True)
    assert {p.name: p.folder.stat().st_mtime_ns for p in again} == before
    with pytest.raises(UsageError, match="other settings"):
        sweep.check("quickstart", points("learner.tau=0.1"))


def test_a_run_that_fails_is_named_and_the_others_are_carried_out(tmp_path: Path) -> None:
    points = sweep.plan(TINY, [], [1, 2], tmp_path)
    tmp_path.joinpath("seed=1").write_text("in the way")
    with pytest.raises(RunError, match=r"1 of 2 runs failed:\n.*seed=1"):
        sweep.run_sweep("quickstart", points, tmp_path, jobs=1, threads=1, quiet=True)
    assert RunFolder.open(tmp_path / "seed=2").read_summary().status == "finished"


def test_interrupted_a_sweep_goes_on_by_the_same_command(tmp_path: Path) -> None:
    longer = [*TINY[:-1], "duration.episodes=6"]
    command = [sys.executable, "-m", "f2a2_sim", "sweep", "quickstart", *longer]
    command += ["--seeds", "1-2", "--jobs", "2", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    logs = [tmp_path / "out" / f"seed={seed}" / "log.txt" for seed in (1, 2)]
    scenarios = [log.with_name("scenario.yaml") for log in logs]
    for _ in range(3000):
        if all(path.exists() for path in scenarios) or process.poll() is not None:
            break
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command" in err
    statuses = {RunFolder.open(log.parent).read_summary().status for log in logs}
    assert "interrupted" in statuses
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "comparison.html" in done.stdout
    for log in logs:
        assert RunFolder.open(log.parent).read_summary().status == "finished"
    assert any("resumed from" in log.read_text() for log in logs)
