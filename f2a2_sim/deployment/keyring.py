"""Where a process of a deployment finds its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from network.keys import Members, load_identity
from network.security import Security


@dataclass(frozen=True)
class Keys:
    """Where a process finds its keys; ``folder`` None: no keys, on this machine only."""

    folder: Path | None

    def security(self, name: str) -> Security:
        """How that member's sockets are secured. Raises KeyFileError."""
        if self.folder is None:
            return Security.insecure()
        members = Members.load(self.folder / "members.json")
        return Security.curve(load_identity(self.folder / f"{name}.key"), members)
