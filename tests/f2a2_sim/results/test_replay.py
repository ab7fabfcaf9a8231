"""Films hold one frame a step with a caption, and come from the policies that the checkpoint holds."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.learners.base import FleetSetup, make_fleet
from f2a2_sim.randomness import Streams
from f2a2_sim.results.film import Word, captioned, write_film
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.replay import load_policy, play, write_replay
from f2a2_sim.scenario.load import dump_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_world
from f2a2_sim.simulator.checkpoint import write_checkpoint

AGENTS, OBSERVED, ACTIONS = 12, 845, 21


def scenario() -> Scenario:
    return Scenario.model_validate(
        {
            "name": "film",
            "duration": {"episodes": 1},
            "world": {"agents": AGENTS, "episode_steps": 6},
            "learner": {"hidden_size": 8, "batch_size": 4, "replay_transitions": 1200},
        }
    )


def learner_of(seed: int) -> Any:
    seeds = [seed + agent for agent in range(AGENTS)]
    learner = make_fleet(scenario().learner, FleetSetup(OBSERVED, ACTIONS, seeds=seeds, army_size=AGENTS))
    with torch.no_grad():
        learner.parameters.mul_(30.0)
    return learner


def saved_run(path: Path, parameters: torch.Tensor, fleets: int = 1) -> RunFolder:
    """A run folder with a scenario and one checkpoint, shaped as the simulator shapes them."""
    folder = RunFolder.create("film", out=path)
    folder.write_scenario(dump_scenario(scenario()))
    saved = [
        {"learner": {"parameters": parameters.clone(), "targets": parameters + 1}} for _ in range(fleets)
    ]
    write_checkpoint(folder, 3, {"simulation": {"population": {"fleets": saved}}}, "run", keep=2)
    return folder


def test_the_policies_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    learner = learner_of(7)
    folder = saved_run(tmp_path / "run", learner.parameters)
    world = build_world(scenario())
    step = world.reset(5)
    step.alive[3] = False
    chosen = load_policy(folder, scenario(), world, Streams(0, AGENTS))(step, step.alive)
    uniforms = Streams(0, AGENTS).family("replay").uniform(np.arange(AGENTS))[:, 0]
    expected, _ = learner.act(np.arange(AGENTS), np.asarray(step.observations), uniforms)
    other, _ = learner_of(100).act(np.arange(AGENTS), np.asarray(step.observations), uniforms)
    expected[3] = world.default_action
    assert chosen.tolist() == expected.tolist()
    assert chosen.tolist() != other.tolist()


def test_a_film_shows_the_start_and_every_step(tmp_path: Path) -> None:
    folder = saved_run(tmp_path / "run", learner_of(7).parameters)
    path = write_replay(folder.path)
    assert path == folder.path / "replay.gif"
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == 7
        assert film.width >= 480
    first = path.read_bytes()
    assert write_replay(folder.path).read_bytes() == first
    assert write_replay(folder.path, seed=1).read_bytes() != first
    with Image.open(write_replay(folder.path, tmp_path / "short.gif", max_steps=2)) as film:
        assert getattr(film, "n_frames", 1) == 3


def test_mp4(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((101, 480, 3), shade, dtype=np.uint8) for shade in (0, 80, 160)]
    path = tmp_path / "film.mp4"
    write_film(path, [captioned(frame, [Word("x")]) for frame in frames], fps=4)
    assert path.read_bytes()[4:8] == b"ftyp"
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


def test_every_frame_has_its_own_numbers() -> None:
    world = build_world(scenario())
    frames = play(world, lambda step, alive: np.full(len(alive), world.default_action), seed=1, max_steps=3)
    assert len(frames) == 4
    strips = [frame[: frames[0].shape[1] // 20] for frame in frames]
    assert len({strip.tobytes() for strip in strips}) == 4


@pytest.mark.parametrize("shape", [(64, 64), (97, 131), (640, 640)])
def test_captions_fit_and_sides_are_even(shape: tuple[int, int]) -> None:
    plain = np.full((*shape, 3), 200, dtype=np.uint8)
    words = [
        Word("step 200/200"),
        Word("red 256"),
        Word("blue 256"),
        Word("hits 1,234"),
        Word("return -0.123"),
    ]
    frame = captioned(plain, words)
    assert frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0 and frame.shape[1] >= 480
    background = frame[1, 1]
    strip = frame[: round(0.05 * frame.shape[1]), :]
    text_columns = np.flatnonzero((strip != background).any(axis=(0, 2)))
    assert text_columns.size and text_columns[-1] < frame.shape[1] - 4


def test_names_and_checkpoints_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved_run(tmp_path / "run", learner_of(1).parameters)
    with pytest.raises(UsageError, match=r"\.gif or \.mp4"):
        write_replay(folder.path, tmp_path / "film.avi")
    with pytest.raises(CheckpointError, match="none of that number"):
        write_replay(folder.path, checkpoint=99)
    wrong = saved_run(tmp_path / "wrong", learner_of(1).parameters[:, :-1].clone())
    with pytest.raises(CheckpointError, match=r"shape.*scenario\.yaml"):
        write_replay(wrong.path)
    two = saved_run(tmp_path / "two", learner_of(1).parameters, fleets=2)
    with pytest.raises(CheckpointError, match="2 fleets"):
        write_replay(two.path)
    real_import = builtins.__import__

    def without_ffmpeg(name: str, *rest: Any, **named: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return real_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_ffmpeg)
    with pytest.raises(UsageError, match=r"f2a2-sim\[video\]"):
        write_replay(folder.path, tmp_path / "film.mp4")
