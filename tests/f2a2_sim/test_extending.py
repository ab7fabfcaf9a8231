"""docs/extending.md: the world and the learner that it prints run, from outside the package, as it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import learner_factory, make_fleet
from f2a2_sim.learners.config import LearnerConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with the document's code in it."""
    world, learner = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "myworld.py").write_text(world, encoding="utf-8")
    (tmp_path / "mylearner.py").write_text(learner, encoding="utf-8")
    return tmp_path


def commands() -> list[list[str]]:
    lines = re.findall(r"^ {4}PYTHONPATH=\. f2a2-sim (.*)$", TEXT, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def run(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "f2a2_sim", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_documents_commands_run(beside: Path) -> None:
    assert len(commands()) == 2
    for number, arguments in enumerate(commands()):
        done = run(beside, [*arguments, "--out", f"run{number}"])
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads((beside / f"run{number}" / "summary.json").read_text())
        assert summary["status"] == "finished" and summary["updates"] > 1000
        assert summary["messages"]["delivered"] > 100
    entropy = pq.read_table(beside / "run1" / "metrics.parquet")["entropy"].to_pylist()
    known = [value for value in entropy if value is not None]
    assert min(known) < 1.0 and max(known) < 1.0987  # it began at random, ln 3, and left that


def test_a_learner_that_is_not_there_is_said(beside: Path) -> None:
    done = run(beside, ["validate", "quickstart", "learner.name=mylearner:Nobody"])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "learner.name" in done.stdout + done.stderr
    with pytest.raises(UsageError, match="did you mean 'f2a2_sac'"):
        learner_factory("f2a2_sca")


def test_args_are_for_learners_of_your_own() -> None:
    with pytest.raises(UsageError, match="f2a2_isac takes none"):
        make_fleet(LearnerConfig(args={"step": 1}), None)  # type: ignore[arg-type]
