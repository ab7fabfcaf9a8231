"""What has been accepted since the last checkpoint, kept in a file that a killed process leaves behind."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from f2a2_sim.results.folder import disk_errors
from network.wire import Limits, Message, decode, encode

_LENGTH = 8
_HEAD = _LENGTH + 4  # and the checksum


class Journal:
    """Messages appended to a file; what a process has written survives its own kill, whole record by record.

    A record is a length, a checksum, and the frames of a message. What a kill or a power cut has left behind
    the last whole record is not read, and cut off when the journal is opened again.
    """

    def __init__(self, path: Path) -> None:
        """Raises RunError if the disk refuses."""
        self._path = path
        with disk_errors(path):
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (kept open)
            self._file.truncate(_whole_bytes(path.read_bytes()))

    def append(self, message: Message) -> None:
        """Add a message at the end; raises RunError if the disk refuses."""
        body = _packed(encode(message))
        head = len(body).to_bytes(_LENGTH, "little") + zlib.crc32(body).to_bytes(4, "little")
        with disk_errors(self._path):
            left = memoryview(head + body)
            while left:
                left = left[self._file.write(left) :]

    def read(self) -> Iterator[Message]:
        """The messages from the first to the last whole one."""
        return self.records(self._path)

    @staticmethod
    def records(path: Path) -> Iterator[Message]:
        """Those of any journal, also of one that another process writes."""
        for body in _bodies(path.read_bytes()):
            yield decode(_frames(body), Limits())

    def clear(self) -> None:
        """Begin anew: what was in it is in a checkpoint now."""
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


def _bodies(data: bytes) -> Iterator[bytes]:
    """Of the whole records from the first on. A power cut can leave zeros behind them."""
    at = 0
    while at + _HEAD < len(data):
        size = int.from_bytes(data[at : at + _LENGTH], "little")
        checksum = int.from_bytes(data[at + _LENGTH : at + _HEAD], "little")
        body = data[at + _HEAD : at + _HEAD + size]
        if size == 0 or len(body) < size or zlib.crc32(body) != checksum:
            return
        yield body
        at += _HEAD + size


def _whole_bytes(data: bytes) -> int:
    """How much of it is whole records."""
    return sum(_HEAD + len(body) for body in _bodies(data))


def _packed(frames: Sequence[bytes | memoryview]) -> bytes:
    parts = [len(frames).to_bytes(_LENGTH, "little")]
    for frame in frames:
        data = bytes(frame)
        parts += [len(data).to_bytes(_LENGTH, "little"), data]
    return b"".join(parts)


def _frames(body: bytes) -> list[bytes]:
    count = int.from_bytes(body[:_LENGTH], "little")
    frames, at = [], _LENGTH
    for _ in range(count):
        size = int.from_bytes(body[at : at + _LENGTH], "little")
        frames.append(body[at + _LENGTH : at + _LENGTH + size])
        at += _LENGTH + size
    return frames
