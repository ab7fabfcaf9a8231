"""Keys of the processes of a deployment: who is who, and the files that say so.

Every process has a pair of CURVE keys. Its secret stays in its own file, ``NAME.key``, readable by its owner
only; the public keys of all are in ``members.json``, which every process gets a copy of.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import zmq
from zmq.utils import z85

from network.errors import KeyFileError

WORLD = "world"
MEMBERS_FILE = "members.json"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NEW_KEYS = "make new ones: f2a2-sim keys FOLDER --agents N"
_FILE_BYTES = 16 * 1024 * 1024


def agent_name(number: int) -> str:
    """The name of an agent's process."""
    return f"agent-{number}"


@dataclass(frozen=True)
class Identity:
    """Name and keys of one process; the keys are text of 40 characters (Z85)."""

    name: str
    public_key: str
    secret_key: str = field(repr=False)


def make_keys(folder: Path, names: Sequence[str]) -> Path:
    """Write a key file for each name, and ``members.json``, whose path is returned: all of them or nothing.

    Raises KeyFileError if the folder holds anything already, or cannot be written.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise KeyFileError("name", name, "small letters, digits and -", "choose another name")
    if len(set(names)) != len(names):
        raise KeyFileError("names", list(names), "each name once", "leave out the repetition")
    folder = folder.absolute()
    in_the_way = KeyFileError(
        "folder", str(folder), "a new or empty folder, as keys are never overwritten", "choose another one"
    )
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise in_the_way
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # of mode 0700
    except OSError as error:
        _cannot_write(folder, error)
    try:
        members = {}
        for name in names:
            public, secret = (key.decode() for key in zmq.curve_keypair())
            members[name] = public
            _write(draft / f"{name}.key", {"name": name, "public_key": public, "secret_key": secret}, 0o600)
        _write(draft / MEMBERS_FILE, members, 0o644)
        os.rename(draft, folder)  # the system refuses if somebody has put something there meanwhile
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise in_the_way from error
        _cannot_write(folder, error)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder / MEMBERS_FILE


def load_identity(path: Path) -> Identity:
    """The identity in a key file; raises KeyFileError if it is missing, damaged or readable by others."""
    content = _read(path, "key", forbidden=0o077, remedy=f"let only its owner read it: chmod 600 {path}")
    texts = isinstance(content, dict) and all(isinstance(value, str) for value in content.values())
    if not texts or content.keys() != {"name", "public_key", "secret_key"}:
        _damaged("key", path, "name, public_key and secret_key")
    identity = Identity(**content)
    if not _NAME.fullmatch(identity.name):
        _damaged("key", path, "a name of small letters, digits and -")
    if not (_is_key(identity.public_key) and _is_key(identity.secret_key)):
        _damaged("key", path, "two CURVE keys of 40 characters")
    if zmq.curve_public(identity.secret_key.encode()).decode() != identity.public_key:
        _damaged("key", path, "a public key that belongs to the secret one")
    return identity


class Members:
    """Who may take part: names and their public keys."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """``keys``: public key of each name; raises KeyFileError for what is not a name or a key."""
        for name, key in keys.items():
            if not _NAME.fullmatch(name):
                raise KeyFileError("members", name, "small letters, digits and -", _NEW_KEYS)
            if not _is_key(key):
                raise KeyFileError(f"members.{name}", key, "a CURVE key of 40 characters", _NEW_KEYS)
        self._keys = dict(keys)
        self._names = {key: name for name, key in keys.items()}
        if len(self._names) != len(self._keys):
            raise KeyFileError("members", sorted(keys), "another key for each name", _NEW_KEYS)

    @classmethod
    def load(cls, path: Path) -> Members:
        """The members in a file; raises KeyFileError if it is missing, damaged or writable by all."""
        content = _read(path, "members", forbidden=0o002, remedy=f"let not all write it: chmod o-w {path}")
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content.values()):
            _damaged("members", path, "a public key for each name")
        return cls(content)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the file."""
        return tuple(self._keys)

    def public_key(self, name: str) -> str:
        """The key of a member; raises KeyFileError for a name that is none."""
        try:
            return self._keys[name]
        except KeyError:
            known = ", ".join(self.names[:8]) + (", ..." if len(self._keys) > 8 else "")
            raise KeyFileError("member", name, f"one of {known}", f"use its name, or {_NEW_KEYS}") from None

    def name_of(self, public_key: str) -> str | None:
        """The member with this key, or None."""
        return self._names.get(public_key)


def _is_key(text: str) -> bool:
    """Whether it is 32 bytes in Z85."""
    if len(text) != 40 or not text.isascii() or not set(text.encode()) <= set(z85.Z85CHARS):
        return False
    # Five characters can stand for more than four bytes, and then for no key.
    with contextlib.suppress(ValueError, struct.error):
        return z85.encode(z85.decode(text.encode())) == text.encode()
    return False


def _write(path: Path, content: Mapping[str, str], mode: int) -> None:
    """A new file that has its mode from the beginning, and is on the disk at the end."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, key: str, forbidden: int, remedy: str) -> Any:
    """The JSON in a file that has none of the ``forbidden`` bits in its mode."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())  # of what is read, whatever the path comes to mean
            if stat.S_ISREG(status.st_mode) and status.st_mode & forbidden:
                raise KeyFileError(key, str(path), f"not mode {stat.S_IMODE(status.st_mode):o}", remedy)
            content = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(
            key, str(path), "a readable file", f"copy it here, or {_NEW_KEYS} ({error.strerror})"
        ) from error
    try:
        if len(content) > _FILE_BYTES:
            raise ValueError("too long")
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise KeyFileError(key, str(path), "JSON", f"copy it again, or {_NEW_KEYS}") from error


def _damaged(key: str, path: Path, expected: str) -> NoReturn:
    raise KeyFileError(key, str(path), expected, f"copy it again, or {_NEW_KEYS}")


def _cannot_write(folder: Path, error: OSError) -> NoReturn:
    raise KeyFileError(
        "folder", str(folder), "a folder that can be written", f"choose another one ({error.strerror})"
    ) from error
