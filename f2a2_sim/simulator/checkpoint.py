"""Checkpoints: the whole state of a run on disk, whole or not at all.

A checkpoint is a folder: ``state.json`` (plain data), ``tensors-NNN.safetensors`` (arrays and tensors), and
``manifest.json``, which names the format's version, the run it belongs to, and every file with its size
and checksum. It is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from f2a2_sim.errors import CheckpointError
from f2a2_sim.results.folder import RunFolder, replacing_folder
from f2a2_sim.simulator.packing import pack, unpack

if TYPE_CHECKING:
    from f2a2_sim.scenario.schema import CheckpointConfig

FORMAT = 3
_FILE_BYTES = 128 * 1024 * 1024
_PARAMETERS = "/learner/parameters"
_DTYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    path: Path
    number: int


def write_checkpoint(
    folder: RunFolder, number: int, state: Mapping[str, Any], run_id: str, keep: int
) -> Path:
    """Save ``state`` as checkpoint ``number`` and remove all but the newest ``keep``.

    ``run_id`` identifies scenario and seed: only a run of the same can go on from it. Raises RunError if
    the disk refuses; earlier checkpoints are then still there.
    """
    path = folder.checkpoints_dir / f"{number:06d}"
    tree, tensors = pack(state)
    with replacing_folder(path) as temporary:
        files = {}
        for index, part in enumerate(_parts(tensors)):
            name = f"tensors-{index:03d}.safetensors"
            files[name] = _put(temporary / name, _safetensors(part))
        files["state.json"] = _put(temporary / "state.json", [json.dumps(tree).encode()])
        manifest = {"format": FORMAT, "run_id": run_id, "number": number, "files": files}
        _put(temporary / "manifest.json", [json.dumps(manifest, indent=1).encode()])
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old.path, ignore_errors=True)
    return path


def list_checkpoints(folder: RunFolder) -> list[Checkpoint]:
    """Complete checkpoints, oldest first; leftovers of an interrupted write are not among them."""
    if not folder.checkpoints_dir.is_dir():
        return []
    numbered = [path for path in folder.checkpoints_dir.iterdir() if path.name.isdigit() and path.is_dir()]
    return [Checkpoint(path, int(path.name)) for path in sorted(numbered, key=lambda p: int(p.name))]


def is_due(config: CheckpointConfig, passed_s: float, episodes: int, least_s: float = 0.0) -> bool:
    """Whether it is time for one, so many seconds and episodes after the last; by the clock not before
    ``least_s``."""
    return (config.every_wall_s is not None and passed_s >= max(config.every_wall_s, least_s)) or (
        config.every_episodes is not None and episodes >= config.every_episodes
    )


def find_checkpoint(folder: RunFolder, number: int | None = None) -> Checkpoint:
    """The checkpoint with that number, or the newest; CheckpointError if there is none."""
    there = list_checkpoints(folder)
    if not there:
        raise CheckpointError(
            f"{folder.checkpoints_dir}: holds no checkpoint, so this run cannot go on. Start it anew:"
            f" {folder.how_to_start_anew}"
        )
    if number is None:
        return there[-1]
    for checkpoint in there:
        if checkpoint.number == number:
            return checkpoint
    names = ", ".join(str(c.number) for c in there)
    raise CheckpointError(
        f"--checkpoint {number}: there is none of that number in {folder.path}; there are {names}"
    )


def read_checkpoint(folder: RunFolder, checkpoint: Checkpoint, run_id: str) -> Any:
    """The state saved there. CheckpointError names the file that is damaged, and what to do."""
    manifest = _read_manifest(folder, checkpoint)
    if manifest["run_id"] != run_id:
        raise CheckpointError(
            f"{checkpoint.path}: is a checkpoint of another scenario or seed than {folder.scenario_file}."
            " Put back the checkpoints folder that belongs to this run, or start the run anew"
        )
    _verify(folder, checkpoint, manifest)
    tensors: dict[str, Tensor] = {}
    slices: dict[str, list[Tensor]] = {}
    for name in sorted(manifest["files"]):
        if name.endswith(".safetensors"):
            for key, tensor in _load_tensors(folder, checkpoint, name).items():
                whole, _, piece = key.partition("#")
                if piece:
                    slices.setdefault(whole, []).append(tensor)
                else:
                    tensors[whole] = tensor
    for whole in list(slices):
        tensors[whole] = torch.cat(slices.pop(whole))
    tree = json.loads((checkpoint.path / "state.json").read_text())
    return unpack(tree, tensors)


def read_tensors(folder: RunFolder, checkpoint: Checkpoint, ending: str) -> dict[str, Tensor]:
    """Only the tensors whose path in the state ends so (for a policy without the rest of the run)."""
    manifest = _read_manifest(folder, checkpoint)
    _verify(folder, checkpoint, manifest)
    found: dict[str, list[Tensor]] = {}
    for name in sorted(manifest["files"]):
        if name.endswith(".safetensors"):
            for key, tensor in _load_tensors(folder, checkpoint, name).items():
                if key.partition("#")[0].endswith(ending):
                    found.setdefault(key.partition("#")[0], []).append(tensor)
    return {key: torch.cat(parts) if len(parts) > 1 else parts[0] for key, parts in found.items()}


def read_policies(folder: RunFolder, checkpoint: Checkpoint) -> list[Tensor]:
    """The parameters ``[agents, P]`` of each fleet saved there, and nothing else."""
    tensors = read_tensors(folder, checkpoint, _PARAMETERS)
    return [tensors[path] for path in sorted(tensors, key=_fleet_number)]


def _fleet_number(path: str) -> int:
    """Of ``/simulation/population/fleets/N/learner/parameters``: N."""
    return int(path.removesuffix(_PARAMETERS).rsplit("/", 1)[1])


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Tensors in files of bounded size, so that writing them needs little memory beside them.

    A tensor larger than a file is cut along its first axis into ``path#piece``.
    """
    part: dict[str, Tensor] = {}
    filled = 0
    for path, tensor in tensors.items():
        for key, piece in _pieces(path, tensor):
            size = piece.numel() * piece.element_size()
            if part and filled + size > _FILE_BYTES:
                yield part
                part, filled = {}, 0
            part[key] = piece
            filled += size
    if part:
        yield part


def _pieces(path: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    size = tensor.numel() * tensor.element_size()
    if size <= _FILE_BYTES or tensor.dim() == 0:
        yield path, tensor
        return
    rows = max(1, tensor.shape[0] * _FILE_BYTES // size)
    for number, start in enumerate(range(0, tensor.shape[0], rows)):
        yield f"{path}#{number:05d}", tensor[start : start + rows]


def _safetensors(part: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file of ``part``, chunk by chunk: the library would copy every tensor twice.

    Layout: length of the header (uint64, little-endian), the header (JSON, padded with spaces to a multiple
    of 8), and the numbers. Larger items come first, so that each tensor lies at a multiple of its item size.
    """
    ordered = sorted(part.items(), key=lambda item: -item[1].element_size())
    header: dict[str, Any] = {}
    end = 0
    for key, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, tensor in ordered:
        dense = tensor.cpu().contiguous()
        flat = dense.as_strided((dense.numel(),), (1,))  # of one element, any stride counts as dense
        yield flat.view(torch.uint8).numpy().data


def _put(path: Path, chunks: Iterable[bytes | memoryview]) -> dict[str, int]:
    size = checksum = 0
    with open(path, "wb", buffering=0) as file:
        for chunk in chunks:
            _write_all(file, chunk)
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return {"bytes": size, "crc32": checksum}


def _write_all(file: FileIO, chunk: bytes | memoryview) -> None:
    """One write() takes at most 2 GiB, and may take less."""
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]


def _read_manifest(folder: RunFolder, checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.path / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        known = isinstance(manifest, dict) and {"format", "run_id", "files"} <= manifest.keys()
    except (OSError, ValueError):
        raise _damaged(folder, checkpoint, path, "is missing or not JSON") from None
    if not known:
        raise _damaged(folder, checkpoint, path, "is not a manifest")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: format {manifest['format']}, but this version of f2a2-sim reads format {FORMAT}."
            " Resume with the version that wrote it (summary.json names it)"
        )
    return dict(manifest)


def _verify(folder: RunFolder, checkpoint: Checkpoint, manifest: Mapping[str, Any]) -> None:
    for name, expected in manifest["files"].items():
        path = checkpoint.path / name
        try:
            data = path.read_bytes()
        except OSError:
            raise _damaged(folder, checkpoint, path, "is missing") from None
        if len(data) != expected["bytes"]:
            raise _damaged(folder, checkpoint, path, f"has {len(data)} bytes instead of {expected['bytes']}")
        if zlib.crc32(data) != expected["crc32"]:
            raise _damaged(folder, checkpoint, path, "does not match its checksum")


def _load_tensors(folder: RunFolder, checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    path = checkpoint.path / name
    try:
        return dict(safetensors.torch.load_file(path))
    except (SafetensorError, OSError) as error:
        raise _damaged(folder, checkpoint, path, f"is not a safetensors file ({error})") from None


def _damaged(folder: RunFolder, checkpoint: Checkpoint, path: Path, what: str) -> CheckpointError:
    others = [c.number for c in list_checkpoints(folder) if c.number != checkpoint.number]
    if others:
        remedy = f"Go on from an earlier one: f2a2-sim resume {folder.path} --checkpoint {others[-1]}"
    else:
        remedy = f"There is no other one; start the run anew: {folder.how_to_start_anew}"
    return CheckpointError(f"{path}: {what}; the checkpoint is damaged. {remedy}")
