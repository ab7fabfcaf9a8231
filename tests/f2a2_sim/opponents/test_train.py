from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from typer import Typer
from typer.testing import CliRunner

from f2a2_sim.errors import RunError
from f2a2_sim.opponents.iql import load_opponent
from f2a2_sim.opponents.self_play import TrainSettings
from f2a2_sim.opponents.train import Interrupted, train_opponent, train_opponent_command

from .test_self_play import TINY


def content(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Metadata and tensors; safetensors orders the metadata as it likes, so bytes may differ."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_a_run_of_the_command_leaves_a_policy_and_nothing_else(tmp_path: Path) -> None:
    app = Typer()
    app.command()(train_opponent_command)
    out = tmp_path / "new" / "policy.safetensors"
    words = ["--out", str(out), "--rounds", "10", "--agents", "12", "--steps", "20", "--seed", "3", "--plain"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "round 10  hits" in result.output
    assert list(out.parent.iterdir()) == [out]
    assert out.stat().st_size < 1_000_000
    load_opponent(out, 845, 21)
    with safe_open(out, framework="numpy") as file:
        told = file.metadata()
    assert (told["rounds"], told["seed"]) == ("10", "3")
    assert told["command"] == "python -m f2a2_sim.opponents.train --rounds 10 --agents 12 --seed 3 --steps 20"
    assert TrainSettings(**json.loads(told["settings"])) == TrainSettings(
        rounds=10, agents=12, seed=3, steps=20
    )


def test_interrupted_and_gone_on_with_gives_the_same_file(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_opponent(TINY, whole)
    rounds: list[int] = []
    with pytest.raises(Interrupted, match=r"after round 2 of 4; the same command goes on") as told:
        train_opponent(
            TINY, parts, on_round=lambda r: rounds.append(r.round), should_stop=lambda: len(rounds) == 2
        )
    assert told.value.exit_code == 130
    assert not parts.exists()
    train_opponent(TINY, parts, on_round=lambda r: rounds.append(r.round))
    assert rounds == [1, 2, 3, 4]
    assert content(parts) == content(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts.safetensors", "whole.safetensors"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write there"):
        train_opponent(TINY, tmp_path / "file" / "x.safetensors")
