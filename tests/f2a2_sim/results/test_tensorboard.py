"""TensorBoard reads back what was recorded, and forgets what a killed run wrote after its checkpoint."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from f2a2_sim.errors import RunError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import METRICS
from f2a2_sim.results.tensorboard import TensorBoard


def row(step: int, episode_return: float, end: bool = False) -> dict[str, Any]:
    values: dict[str, Any] = {c.name: 0 if c.kind == "int" else 0.0 for c in METRICS.columns}
    values.update(env_steps=step, virtual_time_s=step * 0.5, return_mean_per_agent=episode_return)
    values.update(episode_end=end, hits=float("nan"))
    return values


def scalars(directory: Path, tag: str) -> list[tuple[int, float, float]]:
    accumulator = EventAccumulator(str(directory / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.wall_time, event.value) for event in accumulator.Scalars(tag)]


def test_rows_come_back_with_steps_and_virtual_time(tmp_path: Path) -> None:
    writer = TensorBoard(RunFolder(tmp_path))
    for step in (20, 40, 60):
        writer.on_row(row(step, step / 100, end=step == 60))
    writer.close()
    assert scalars(tmp_path, "world/return_mean_per_agent") == [
        (20, 10.0, pytest.approx(0.2)),
        (40, 20.0, pytest.approx(0.4)),
        (60, 30.0, pytest.approx(0.6)),
    ]
    assert [step for step, _, _ in scalars(tmp_path, "episode/return_mean_per_agent")] == [60]
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert "world/hits" not in accumulator.Tags()["scalars"]


def test_a_resumed_run_replaces_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    killed = TensorBoard(RunFolder(tmp_path))
    for step in (20, 40, 60, 80):
        killed.on_row(row(step, -1.0))
    # a kill cuts the last record short
    only = next((tmp_path / "tensorboard").iterdir())
    only.write_bytes(only.read_bytes()[:-7])
    killed.close()
    resumed = TensorBoard(RunFolder(tmp_path), resumed_at_env_steps=40)
    for step in (60, 80, 100):
        resumed.on_row(row(step, 1.0))
    resumed.close()
    found = scalars(tmp_path, "world/return_mean_per_agent")
    assert [(step, value) for step, _, value in found] == [(20, -1), (40, -1), (60, 1), (80, 1), (100, 1)]


def test_a_full_disk_is_an_error_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TensorBoard(RunFolder(tmp_path))

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._records, "write", lambda _: full())
    with pytest.raises(RunError, match=r"No space left.*resume"):
        writer.on_row(row(20, 0.0))
    writer.close()
