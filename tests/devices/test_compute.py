"""Compute time against its formula, and jitter against its distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.compute import ComputeModel, Work
from devices.spec import DeviceProfile, JitterSpec, LognormalJitter, NoJitter, UniformJitter
from f2a2_sim.randomness import StreamFamily, Streams

JITTERS: list[JitterSpec] = [
    LognormalJitter(kind="lognormal", sigma=0.3),
    UniformJitter(kind="uniform", low=0.6, high=1.4),
]
Profiles = Callable[..., DeviceProfile]
MakeStreams = Callable[..., StreamFamily]


def agents(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int64)


@pytest.mark.parametrize(
    ("work", "expected_s"),
    [
        (Work(flops=0, bytes=0, kernels=0), 0.0),
        (Work(flops=0, bytes=0, kernels=7), 7e-3),
        (Work(flops=1e9, bytes=0, kernels=0), 2.0),  # at half of 1 GFLOP/s
        (Work(flops=0, bytes=3e8, kernels=0), 3.0),
        (Work(flops=1e9, bytes=1.9e8, kernels=10), 2.01),  # compute-bound
        (Work(flops=1e9, bytes=2.1e8, kernels=10), 2.11),  # memory-bound
    ],
)
def test_duration_is_overhead_plus_roofline(
    work: Work, expected_s: float, profile: Profiles, streams: MakeStreams
) -> None:
    model = ComputeModel([profile()], NoJitter(), streams())
    assert model.duration_s(agents(0), work)[0] == pytest.approx(expected_s, rel=1e-15)


@given(
    flops=st.floats(0, 1e15),
    size=st.floats(0, 1e12),
    kernels=st.integers(0, 10_000),
    efficiency=st.floats(0.01, 1),
    overhead_s=st.floats(0, 1e-2),
)
def test_duration_formula(
    flops: float, size: float, kernels: int, efficiency: float, overhead_s: float
) -> None:
    device = DeviceProfile(
        name="d", kind="cpu_board", peak_flops=3e9, efficiency=efficiency, memory_bandwidth_bytes_per_s=7e8,
        memory_bytes=1, launch_overhead_s=overhead_s, idle_power_w=1, active_power_w=1,
    )  # fmt: skip
    model = ComputeModel([device], NoJitter(), Streams(0, 1).family("jitter"))
    expected_s = kernels * overhead_s + max(flops / (3e9 * efficiency), size / 7e8)
    assert model.duration_s(agents(0), Work(flops, size, kernels))[0] == expected_s


def test_each_agent_runs_on_its_own_device(profile: Profiles, streams: MakeStreams) -> None:
    devices = [profile(), profile(peak_flops=4e9), profile(launch_overhead_s=0.5)]
    model = ComputeModel(devices, NoJitter(), streams())
    durations = model.duration_s(agents(2, 0, 1), Work(flops=1e9, bytes=0, kernels=1))
    assert durations == pytest.approx([2.5, 2.001, 0.501], rel=1e-12)


@pytest.mark.parametrize("jitter", JITTERS, ids=lambda jitter: jitter.kind)
def test_jitter_has_mean_one_and_its_spread(
    jitter: JitterSpec, profile: Profiles, streams: MakeStreams
) -> None:
    n, rounds = 64, 200
    model = ComputeModel([profile()] * n, jitter, streams())
    work = Work(flops=1e9, bytes=0, kernels=0)
    draws = np.array([model.duration_s(np.arange(n), work) / 2.0 for _ in range(rounds)]).reshape(-1)
    deviation = {"lognormal": np.sqrt(np.expm1(0.3**2)), "uniform": 0.8 / np.sqrt(12)}[jitter.kind]
    assert abs(draws.mean() - 1.0) < 4 * deviation / np.sqrt(draws.size)
    assert draws.std() == pytest.approx(deviation, rel=0.05)
    if jitter.kind == "uniform":
        assert 0.6 <= draws.min() < 0.61 and 1.39 < draws.max() < 1.4
    else:
        assert np.log(draws).std() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("jitter", JITTERS, ids=lambda jitter: jitter.kind)
def test_jitter_does_not_depend_on_order_or_company(
    jitter: JitterSpec, profile: Profiles, streams: MakeStreams
) -> None:
    work = Work(flops=1e6, bytes=0, kernels=1)
    alone = ComputeModel([profile()] * 3, jitter, streams())
    expected = [alone.duration_s(agents(1), work)[0] for _ in range(200)]
    mixed = ComputeModel([profile()] * 3, jitter, streams())
    seen = []
    for k in range(200):
        mixed.duration_s(agents(0), work)
        company = agents(2, 1) if k % 2 else agents(1, 0)
        seen.append(mixed.duration_s(company, work)[1 if k % 2 else 0])
    assert seen == expected
    assert len(set(expected)) == 200
    assert mixed.duration_s(agents(2), work)[0] not in expected


@pytest.mark.parametrize("jitter", [NoJitter(), *JITTERS], ids=lambda jitter: jitter.kind)
@pytest.mark.parametrize("drawn", [0, 1, 64, 100])
def test_state_round_trip(jitter: JitterSpec, drawn: int, profile: Profiles, streams: MakeStreams) -> None:
    work = Work(flops=1e6, bytes=0, kernels=1)
    family = streams()
    model = ComputeModel([profile()] * 3, jitter, family)
    for _ in range(drawn):
        model.duration_s(agents(2, 0), work)
    saved, saved_streams = model.state(), family.state()
    expected = [model.duration_s(agents(0, 1, 2), work).tolist() for _ in range(80)]
    fresh_family = streams()
    fresh_family.load_state(saved_streams)
    resumed = ComputeModel([profile()] * 3, jitter, fresh_family)
    resumed.load_state(saved)
    assert [resumed.duration_s(agents(0, 1, 2), work).tolist() for _ in range(80)] == expected


def test_state_of_other_agents_is_refused(profile: Profiles, streams: MakeStreams) -> None:
    state = ComputeModel([profile()] * 2, JITTERS[0], streams()).state()
    with pytest.raises(ValueError, match="does not fit this model"):
        ComputeModel([profile()] * 3, JITTERS[0], streams()).load_state(state)


def test_negative_work_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Work(flops=-1.0, bytes=0, kernels=0)
