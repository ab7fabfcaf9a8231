"""Folders are made once, files are written whole or not at all, and what cannot be read says so."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.results.folder import RunFolder, replacing, replacing_folder, write_atomically
from f2a2_sim.results.report import write_report
from f2a2_sim.results.tables import LINKS, METRICS


def links(n: int = 3) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {
        column.name: np.arange(n, dtype=np.float64) if column.kind == "float" else np.arange(n)
        for column in LINKS.columns
    }
    columns["currently_connected"] = np.ones(n, dtype=bool)
    return columns


def test_two_runs_of_one_scenario_get_two_folders(tmp_path: Path) -> None:
    first = RunFolder.create("magent 256/a", root=tmp_path)
    second = RunFolder.create("magent 256/a", root=tmp_path)
    assert first.path != second.path
    assert first.path.parent == second.path.parent == tmp_path
    assert first.path.name.startswith("magent-256-a-")


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="resume"):
        RunFolder.create("a", out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert RunFolder.create("a", out=tmp_path).path == tmp_path


def test_out_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        RunFolder.create("a", out=tmp_path / "file" / "run")


@pytest.mark.parametrize("made", [False, True])
def test_opening_what_is_no_run_says_so(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "x"
    if made:
        path.mkdir()
    with pytest.raises(UsageError, match="f2a2-sim run"):
        RunFolder.open(path)


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunError, match=r"disk is full.*resume"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as handle:
        handle.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replacing_folder(tmp_path / "one") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a").write_bytes(b"a")
        assert not (tmp_path / "one").exists()
    assert (tmp_path / "one" / "sub" / "a").read_bytes() == b"a"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="disk is full"), replacing_folder(tmp_path / "two") as temporary:
        (temporary / "a").write_bytes(b"a")
    assert os.listdir(tmp_path) == ["one"]


def test_leftovers_of_a_killed_write_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".one.tmp").mkdir()
    (tmp_path / ".one.tmp" / "stale").write_text("")
    with replacing_folder(tmp_path / "one") as temporary:
        (temporary / "new").write_text("")
    assert os.listdir(tmp_path / "one") == ["new"]


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock(), pytest.raises(UsageError, match="another process"), folder.lock():
        pass
    with folder.lock():
        pass


def test_an_error_under_the_lock_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), RunFolder(tmp_path).lock():
        raise FileNotFoundError("mine")


def test_tables_come_back_as_they_were_and_equal_columns_give_equal_bytes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    columns = links()
    columns["latency_mean_s"][1] = np.nan
    folder.write_table(LINKS, columns)
    before = folder.table_file(LINKS).read_bytes()
    back = folder.read_table(LINKS)
    for name, values in columns.items():
        np.testing.assert_array_equal(back[name], values)
        assert back[name].dtype == values.dtype
    folder.write_table(LINKS, back)
    assert folder.table_file(LINKS).read_bytes() == before


def test_a_missing_or_unknown_column_is_a_bug_not_a_file(tmp_path: Path) -> None:
    columns = links()
    columns["extra"] = columns.pop("sent")
    with pytest.raises(KeyError, match=r"sent.*extra"):
        RunFolder(tmp_path).write_table(LINKS, columns)
    assert os.listdir(tmp_path) == []


def test_a_table_of_another_version_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"sender": [1]}), folder.table_file(LINKS))
    with pytest.raises(UsageError, match=r"links\.parquet.*receiver.*another version"):
        folder.read_table(LINKS)


def test_a_newer_column_is_nan_in_an_older_table(make_run: Any) -> None:
    folder = make_run()
    now = folder.read_table(METRICS)
    path = folder.table_file(METRICS)
    pq.write_table(pq.read_table(path).drop_columns(["dual_mean_norm"]), path)
    then = folder.read_table(METRICS)
    assert np.isnan(then.pop("dual_mean_norm")).all() and np.isfinite(now.pop("dual_mean_norm")).all()
    assert all(np.array_equal(then[name], now[name], equal_nan=True) for name in now)
    assert "Dual variables" not in write_report(folder.path).read_text(encoding="utf-8")


def test_damaged_files_name_themselves_and_a_remedy(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(UsageError, match=r"links\.parquet.*resume"):
        folder.read_table(LINKS)
    folder.write_table(LINKS, links())
    data = folder.table_file(LINKS).read_bytes()
    folder.table_file(LINKS).write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match=r"links\.parquet.*damaged"):
        folder.read_table(LINKS)
    with pytest.raises(UsageError, match=r"summary\.json.*resume"):
        folder.read_summary()
    folder.summary_file.write_text('{"scenario": 1}')
    with pytest.raises(UsageError, match=r"summary\.json.*not a summary"):
        folder.read_summary()
    folder.scenario_file.write_text("a: [")
    with pytest.raises(UsageError, match=r"scenario\.yaml.*YAML"):
        folder.read_scenario()
    folder.scenario_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"scenario\.yaml.*cannot be read"):
        folder.read_scenario()
