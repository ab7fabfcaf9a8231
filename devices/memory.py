"""Whether a learner fits into a device's memory, and what to do if it does not."""

from __future__ import annotations

from dataclasses import dataclass

from devices.spec import DeviceProfile

MIB = 1024.0 * 1024.0

_REMEDIES = {
    "parameters": "a smaller network (fewer or narrower hidden layers)",
    "optimiser": "a smaller network (the optimiser keeps its moments for every parameter)",
    "replay": "a smaller replay buffer, or one stored in float16",
    "mailbox": "fewer neighbours, or sharing fewer parameters with them",
    "activations": "a smaller batch",
}


@dataclass(frozen=True, slots=True)
class MemoryDemand:
    """What one agent keeps in memory, by purpose, in bytes."""

    parameters_bytes: float
    optimiser_bytes: float
    replay_bytes: float
    mailbox_bytes: float
    activation_bytes: float

    @property
    def parts(self) -> dict[str, float]:
        """Bytes by purpose."""
        return {
            "parameters": self.parameters_bytes,
            "optimiser": self.optimiser_bytes,
            "replay": self.replay_bytes,
            "mailbox": self.mailbox_bytes,
            "activations": self.activation_bytes,
        }

    @property
    def total_bytes(self) -> float:
        """Sum of all parts."""
        return sum(self.parts.values())


class DeviceMemoryError(ValueError):
    """A device that cannot hold its learner; the message names every number and a remedy."""


def check_memory(profile: DeviceProfile, demand: MemoryDemand) -> None:
    """Raise DeviceMemoryError if ``demand`` exceeds the device's memory; exactly filling it is allowed."""
    if demand.total_bytes <= profile.memory_bytes:
        return
    parts = ", ".join(f"{purpose} {size / MIB:,.1f} MiB" for purpose, size in demand.parts.items())
    largest = max(demand.parts, key=lambda purpose: demand.parts[purpose])
    raise DeviceMemoryError(
        f"device '{profile.name}' cannot hold the learner: {parts}; "
        f"total {demand.total_bytes / MIB:,.1f} MiB, budget {profile.memory_bytes / MIB:,.1f} MiB "
        f"({(demand.total_bytes - profile.memory_bytes) / MIB:,.1f} MiB too much). "
        f"The largest part is the {largest}: try {_REMEDIES[largest]}, or a device with more memory."
    )
