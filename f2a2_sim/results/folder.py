"""A run is a folder: its paths, how it is made, and how its files are written whole or not at all.

A file is written under a temporary name, fsynced, and renamed over the old one; then the directory
is fsynced. Whatever happens on the way (a full disk, a kill), the old file stays as it was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.results.summary import Summary
from f2a2_sim.results.tables import Columns, TableSchema, from_arrow, to_arrow

_TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; making the object touches nothing on disk."""

    settings_name: ClassVar[str] = "scenario.yaml"
    made_by: ClassVar[str] = "f2a2-sim run"

    path: Path

    @property
    def scenario_file(self) -> Path:
        return self.path / self.settings_name

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def trace_file(self) -> Path:
        return self.path / "trace.json"

    @property
    def tensorboard_dir(self) -> Path:
        return self.path / "tensorboard"

    @property
    def how_to_start_anew(self) -> str:
        """The command that does what this run did, from its beginning."""
        return f"{self.made_by} {self.scenario_file}"

    @property
    def checkpoints_dir(self) -> Path:
        return self.path / "checkpoints"

    def table_file(self, schema: TableSchema) -> Path:
        return self.path / schema.path

    @classmethod
    def create(cls, scenario_name: str, out: Path | None = None, root: Path = Path("runs")) -> Self:
        """Make the folder of a new run: ``out``, or ``root/<scenario>-<time>``.

        Raises UsageError if ``out`` holds something already, RunError if it cannot be made.
        """
        if out is None:
            return cls._create_named(scenario_name, root)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f"--out {out}: already exists and is not an empty folder. Name a new one, or go on with the"
                f" run in it: f2a2-sim resume {out}"
            )
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        return cls(out)

    @classmethod
    def _create_named(cls, scenario_name: str, root: Path) -> Self:
        safe_name = re.sub(r"[^A-Za-z0-9_.-]+", "-", scenario_name).strip("-.") or "run"
        stem = f"{safe_name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for number in range(1, 1000):
            path = root / (stem if number == 1 else f"{stem}-{number}")
            with disk_errors(path):
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    continue
            return cls(path)
        raise RunError(
            f"{root}: a thousand folders named {stem} exist already. Remove some, or name one with --out"
        )

    @classmethod
    def open(cls, path: Path) -> Self:
        """The folder of a run that exists; UsageError if it is none."""
        if not path.is_dir():
            raise UsageError(
                f"{path}: no such run folder. Run folders are made by {cls.made_by}, below runs/"
            )
        folder = cls(path)
        if not folder.scenario_file.is_file():
            raise UsageError(
                f"{path}: not a run folder, it has no {cls.settings_name}."
                f" Name a folder made by {cls.made_by}"
            )
        return folder

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; UsageError if another process does. A killed process lets go of it."""
        with disk_errors(self.path):
            handle = open(self.path / ".lock", "a")  # noqa: SIM115 (closed below; errors of the block are not ours)
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.path}: another process is writing this run. Wait until it has ended,"
                    " or stop it first"
                ) from None
            yield

    def write_table(self, schema: TableSchema, columns: Mapping[str, Any]) -> None:
        """Write one parquet table, atomically; equal columns give equal bytes."""
        buffer = io.BytesIO()
        pq.write_table(to_arrow(schema, columns), buffer, compression="zstd", write_statistics=True)
        write_atomically(self.table_file(schema), buffer.getvalue())

    def read_table(self, schema: TableSchema) -> Columns:
        """Read one parquet table; UsageError if it is missing, damaged, or of another version."""
        path = self.table_file(schema)
        if not path.is_file():
            raise UsageError(
                f"{path}: no such file. The run has not written its tables yet; go on with it:"
                f" f2a2-sim resume {self.path}"
            )
        try:
            return from_arrow(schema, pq.read_table(path))
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"{path}: cannot be read ({error}). It is damaged; f2a2-sim resume {self.path} writes it anew"
            ) from None
        except KeyError as error:
            raise UsageError(
                f"{path}: lacks a column ({error.args[0]}). It was written by another version of f2a2-sim;"
                " read it with that one"
            ) from None

    def write_summary(self, summary: Summary) -> None:
        write_atomically(self.summary_file, (summary.to_json() + "\n").encode())

    def read_summary(self) -> Summary:
        """summary.json; UsageError if it is missing or damaged."""
        try:
            return Summary.from_json(self._read_text(self.summary_file))
        except ValueError as error:
            raise UsageError(
                f"{self.summary_file}: not a summary of a run ({_first_line(error)}). It is damaged or of"
                f" another version; f2a2-sim resume {self.path} writes it anew"
            ) from None

    def write_scenario(self, text: str) -> None:
        write_atomically(self.scenario_file, text.encode())

    def read_scenario(self) -> dict[str, Any]:
        """The resolved scenario as plain data; UsageError if it is missing or damaged."""
        try:
            scenario = yaml.safe_load(self._read_text(self.scenario_file))
        except yaml.YAMLError as error:
            raise UsageError(f"{self.scenario_file}: not valid YAML ({_first_line(error)})") from None
        if not isinstance(scenario, dict):
            raise UsageError(
                f"{self.scenario_file}: holds no keys. It is damaged; restore it or start a new run"
            )
        return scenario

    def _read_text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UsageError(
                f"{path}: no such file. The run has not written it yet; go on with it:"
                f" f2a2-sim resume {self.path}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read ({error})") from None


class BaselineFolder(RunFolder):
    """The folder of a baseline's training: settings, curves, summary and checkpoints."""

    settings_name: ClassVar[str] = "baseline.yaml"
    made_by: ClassVar[str] = "f2a2-sim baseline"

    @property
    def how_to_start_anew(self) -> str:
        return f"{self.made_by}, with what {self.scenario_file} says"

    @classmethod
    def holds_one(cls, path: Path) -> bool:
        """Whether that is the folder of a baseline."""
        return (path / cls.settings_name).is_file()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, whole or not at all; RunError if the disk refuses."""
    with replacing(path) as handle:
        handle.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    Raises RunError (what, why, remedy) on a full disk or any other refusal of the file system.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _fsync_directory(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, that becomes ``path`` when the block ends well and vanishes when it does not.

    Every file in it is fsynced before the rename. ``path`` must not exist yet: a checkpoint is never
    overwritten.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
                else:
                    _fsync_directory(file)
            _fsync_directory(temporary)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _fsync_directory(path.parent)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the file system's refusals into errors for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = _free_bytes(path)
            raise RunError(
                f"{path}: the disk is full ({free / 1e6:.1f} MB free), it was not written and what was there"
                " before is unharmed. Free some space, then go on with f2a2-sim resume"
            ) from error
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}). Check the folder's rights"
        ) from error


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
