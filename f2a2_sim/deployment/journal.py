"""What has been accepted since the last checkpoint, kept in a file that a killed process leaves behind."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from network.wire import Limits, Message, decode, encode

_LENGTH = 8


class Journal:
    """Messages appended to a file; what a process has written survives its own kill, whole record by record.

    A record is a length, a checksum, and the frames of a message. A torn last record, which a kill in the
    middle of a write can leave, is not read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (kept open)

    def append(self, message: Message) -> None:
        """Add a message at the end."""
        body = _packed(encode(message))
        head = len(body).to_bytes(_LENGTH, "little") + zlib.crc32(body).to_bytes(4, "little")
        self._file.write(head + body)

    def read(self) -> Iterator[Message]:
        """The messages from the first to the last whole one."""
        return self.records(self._path)

    @staticmethod
    def records(path: Path) -> Iterator[Message]:
        """Those of any journal, also of one that another process writes."""
        data = path.read_bytes()
        at = 0
        while at + _LENGTH + 4 <= len(data):
            size = int.from_bytes(data[at : at + _LENGTH], "little")
            checksum = int.from_bytes(data[at + _LENGTH : at + _LENGTH + 4], "little")
            body = data[at + _LENGTH + 4 : at + _LENGTH + 4 + size]
            if len(body) < size or zlib.crc32(body) != checksum:
                return
            yield decode(_frames(body), Limits())
            at += _LENGTH + 4 + size

    def clear(self) -> None:
        """Begin anew: what was in it is in a checkpoint now."""
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


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
