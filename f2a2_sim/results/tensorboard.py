"""Metrics rows as TensorBoard scalars.

The step axis is world steps. TensorBoard knows one more axis, the time of each event; it is given
virtual time, so its "Relative" axis shows simulated hours. A run that is resumed opens a new event
file that tells TensorBoard to forget what the killed run wrote after the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary as Scalars
from tensorboard.summary.writer.record_writer import RecordWriter

from f2a2_sim.errors import RunError
from f2a2_sim.results.folder import RunFolder

_TAGS = {
    "world": ("alive", "return_mean_per_agent", "hits", "kills", "deaths"),
    "learning": ("updates", "entropy", "q_mean", "td_abs", "critic_loss", "moa_accuracy"),
    "consensus": ("dual_norm", "dual_mean_norm", "disagreement", "staleness_p50_s", "staleness_p95_s"),
    "messages": (
        "sent",
        "delivered",
        "lost",
        "queue_dropped",
        "absent_dropped",
        "expired",
        "in_flight",
        "duplicated",
        "bytes_sent",
    ),
    "devices": ("online", "missed_deadlines", "utilisation", "energy_j"),
}
_EPISODE_TAGS = ("return_mean_per_agent", "hits", "kills", "deaths", "win")


class TensorBoard:
    """Writes one event per metrics row, at once: nothing is lost that a checkpoint counts on."""

    def __init__(self, folder: RunFolder, resumed_at_env_steps: int | None = None) -> None:
        """Open a new event file; ``resumed_at_env_steps`` is the checkpoint's, None for a new run."""
        directory = folder.tensorboard_dir
        directory.mkdir(parents=True, exist_ok=True)
        number = 1 + max((_number(path) for path in directory.glob("events.out.tfevents.*")), default=-1)
        self._path = directory / f"events.out.tfevents.{number:010d}.f2a2-sim"
        self._file = open(self._path, "wb")  # noqa: SIM115 (open as long as the run)
        self._records = RecordWriter(self._file)
        first_step = 0 if resumed_at_env_steps is None else resumed_at_env_steps + 1
        self._write(Event(step=first_step, file_version="brain.Event:2"))
        if resumed_at_env_steps is not None:
            self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Write one metrics row; NaN is left out. RunError if the disk refuses."""
        named = [(f"{group}/{name}", row[name]) for group, names in _TAGS.items() for name in names]
        if row["episode_end"]:
            named += [(f"episode/{name}", row[name]) for name in _EPISODE_TAGS]
        values = [Scalars.Value(tag=tag, simple_value=value) for tag, value in named if math.isfinite(value)]
        self._write(
            Event(wall_time=row["virtual_time_s"], step=row["env_steps"], summary=Scalars(value=values))
        )

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        try:
            self._records.write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"{self._path}: cannot be written ({error.strerror or error}). Free some space (or set"
                " record.tensorboard: false), then go on with f2a2-sim resume"
            ) from error


def _number(path: Path) -> int:
    part = path.name.split(".")[3]
    return int(part) if part.isdigit() else 0
