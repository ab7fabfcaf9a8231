"""A checkpoint's files hold what they were given, and are what they claim to be."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.simulator import checkpoint
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint

DTYPES = sorted(checkpoint._DTYPE_NAMES, key=str)


def state() -> dict[str, Any]:
    return {
        "number": torch.tensor(2.5),
        "nothing": torch.zeros(0, 3),
        "columns": torch.arange(60, dtype=torch.int16).view(6, 10)[:, :4],
        "turned": torch.arange(12.0).view(3, 4).T,
        "array": np.arange(5),
        "alone": torch.zeros(1).as_strided((1,), (0,)),
        "repeated": torch.ones(1).expand(4),
        **{str(dtype): torch.tensor([[0, 1], [1, 0], [1, 1]]).to(dtype) for dtype in DTYPES},
    }


@pytest.mark.parametrize("file_bytes", [1 << 20, 40])
def test_what_is_read_is_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_bytes: int
) -> None:
    """In one file, and in files so small that tensors are cut."""
    monkeypatch.setattr(checkpoint, "_FILE_BYTES", file_bytes)
    folder = RunFolder.create("saved", out=tmp_path / "run")
    path = write_checkpoint(folder, 1, state(), "run", keep=1)
    assert (len(list(path.glob("*.safetensors"))) > 3) == (file_bytes == 40)
    again = read_checkpoint(folder, find_checkpoint(folder), "run")
    expected = state()
    assert isinstance(again["array"], np.ndarray)
    for name, value in expected.items():
        assert again[name].dtype == value.dtype and again[name].shape == value.shape, name
        assert (again[name] == value).all(), name


def test_tensors_are_plain_safetensors_files_with_their_checksums(tmp_path: Path) -> None:
    folder = RunFolder.create("saved", out=tmp_path / "run")
    path = write_checkpoint(folder, 1, state(), "run", keep=1)
    loaded = safetensors.torch.load((path / "tensors-000.safetensors").read_bytes())
    assert torch.equal(loaded["/columns"], state()["columns"])
    assert torch.equal(loaded["/turned"], state()["turned"])
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert files.keys() == {"tensors-000.safetensors", "state.json"}
    for name, noted in files.items():
        data = (path / name).read_bytes()
        assert noted == {"bytes": len(data), "crc32": zlib.crc32(data)}
