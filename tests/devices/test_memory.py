"""The memory budget: what fits, and what the error says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devices.memory import MIB, DeviceMemoryError, MemoryDemand, check_memory
from devices.spec import DeviceProfile


def test_total_is_the_sum_of_the_parts() -> None:
    assert MemoryDemand(1, 20, 300, 4000, 50_000).total_bytes == 54_321


def test_filling_memory_exactly_is_allowed(profile: Callable[..., DeviceProfile]) -> None:
    demand = MemoryDemand(100 * MIB, 200 * MIB, 600 * MIB, 100 * MIB, 24 * MIB)
    check_memory(profile(), demand)
    with pytest.raises(DeviceMemoryError):
        check_memory(profile(memory_bytes=1024 * MIB - 1), demand)


def test_the_error_names_every_number_and_a_remedy(profile: Callable[..., DeviceProfile]) -> None:
    demand = MemoryDemand(1.5 * MIB, 3 * MIB, 2000 * MIB, 12.25 * MIB, 0.75 * MIB)
    with pytest.raises(DeviceMemoryError) as caught:
        check_memory(profile(), demand)
    assert str(caught.value) == (
        "device 'board' cannot hold the learner: parameters 1.5 MiB, optimiser 3.0 MiB, replay 2,000.0 MiB, "
        "mailbox 12.2 MiB, activations 0.8 MiB; total 2,017.5 MiB, budget 1,024.0 MiB (993.5 MiB too much). "
        "The largest part is the replay: try a smaller replay buffer, or one stored in float16, "
        "or a device with more memory."
    )


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ("parameters", "smaller network"),
        ("optimiser", "smaller network"),
        ("mailbox", "fewer neighbours"),
        ("activation", "smaller batch"),
    ],
)
def test_the_remedy_fits_the_largest_part(
    part: str, remedy: str, profile: Callable[..., DeviceProfile]
) -> None:
    parts = dict.fromkeys(
        ["parameters_bytes", "optimiser_bytes", "replay_bytes", "mailbox_bytes", "activation_bytes"], MIB
    )
    parts[f"{part}_bytes"] = 5000 * MIB
    with pytest.raises(DeviceMemoryError, match=remedy):
        check_memory(profile(), MemoryDemand(**parts))
