"""Dealing devices to agents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.scenario.fleet import group_sizes, plan_fleet
from f2a2_sim.scenario.schema import Scenario

TWO_GROUPS = [
    {"profile": "raspberry_pi_5", "share": 0.75},
    {
        "profile": "mine",
        "share": 0.25,
        "link": "cable",
        "availability": {"kind": "churn", "mean_on_s": 5, "mean_off_s": 1},
    },
]


def scenario(**devices: object) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "x",
            "duration": {"episodes": 1},
            "world": {"agents": 64},
            "devices": {
                "fleet": TWO_GROUPS,
                "custom_profiles": {"mine": {"based_on": "jetson_nano", "memory_bytes": 5e9}},
                **devices,
            },
            "network": {"custom_links": {"cable": {"bandwidth_bps": 1e9}}},
        }
    )


@pytest.mark.parametrize(
    ("shares", "n", "sizes"),
    [
        ([1.0], 7, [7]),
        ([0.5, 0.5], 7, [4, 3]),
        ([0.4, 0.25, 0.2, 0.1, 0.05], 256, [102, 64, 51, 26, 13]),
        ([0.99, 0.01], 12, [12, 0]),
        ([1 / 3, 1 / 3, 1 / 3], 12, [4, 4, 4]),
    ],
)
def test_group_sizes(shares: list[float], n: int, sizes: list[int]) -> None:
    assert group_sizes(shares, n) == sizes


@given(weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), n=st.integers(1, 700))
def test_group_sizes_sum_up_and_are_within_one_of_the_shares(weights: list[float], n: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    sizes = group_sizes(shares, n)
    assert sum(sizes) == n
    assert all(abs(size - share * n) < 1.0 + 1e-6 for size, share in zip(sizes, shares, strict=True))


def test_in_order_gives_the_first_agents_the_first_group() -> None:
    plan = plan_fleet(scenario(assignment="in_order"), 64)
    assert plan.group.tolist() == [0] * 48 + [1] * 16
    assert [profile.name for profile in plan.profiles] == ["raspberry_pi_5"] * 48 + ["mine"] * 16
    assert plan.profiles[63].memory_bytes == 5e9
    assert (plan.link_names[0], plan.link_names[63]) == ("network.link", "cable")
    assert plan.links[63].bandwidth_bps == 1e9
    assert (plan.availability[0].kind, plan.availability[63].kind) == ("always", "churn")


def test_shuffling_keeps_the_sizes_and_depends_on_the_seed_alone() -> None:
    first, again = plan_fleet(scenario(), 64), plan_fleet(scenario(), 64)
    other = plan_fleet(scenario().model_copy(update={"seed": 2}), 64)
    assert np.array_equal(first.group, again.group)
    assert not np.array_equal(first.group, other.group)
    assert np.bincount(first.group).tolist() == np.bincount(other.group).tolist() == [48, 16]


def test_agents_of_a_group_without_a_link_of_its_own_have_the_networks() -> None:
    assert set(plan_fleet(scenario(), 64).link_names) == {"network.link", "cable"}
