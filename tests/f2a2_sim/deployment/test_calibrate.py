"""Profiles from measurements: the model gives back what was measured, and scenarios take what is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from devices.catalog import device_profile
from devices.compute import ComputeModel, Work
from devices.spec import NoJitter
from f2a2_sim.cli import app
from f2a2_sim.deployment.bench import AgentWork, measure
from f2a2_sim.deployment.calibrate import added_to_link, calibrate_device, calibrate_from
from f2a2_sim.deployment.fit import fit_delays, fit_rates, step_latency_s
from f2a2_sim.deployment.linkbench import measure_localhost
from f2a2_sim.deployment.measured import Measured, Spread
from f2a2_sim.errors import UsageError
from f2a2_sim.randomness import Streams
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.tables import LINKS, METRICS, Columns
from f2a2_sim.scenario.check import check_scenario
from f2a2_sim.scenario.load import dump_scenario, load_scenario
from f2a2_sim.scenario.schema import Scenario

ACT = Work(254_720.0, 513_416.0, 14)
UPDATE = Work(186_646_528.0, 20_035_772.0, 131)
MIX = Work(3_825_440.0, 12_241_408.0, 6)
"""Of battle_16."""

TINY = """\
name: tiny
duration: {episodes: 2}
world: {agents: 12, episode_steps: 12}
learner: {hidden_size: 8, batch_size: 8, replay_transitions: 1200, update_every_steps: 2}
network: {link: {latency: {kind: uniform, low_s: 0.02, high_s: 0.04}, bandwidth_bps: 1e+9}}
record: {every_steps: 4, baseline_episodes: 1, tensorboard: false}
"""


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def scenario(scenario_file: Path) -> Scenario:
    return load_scenario(scenario_file)


class TestRates:
    def test_give_the_measured_times_back(self) -> None:
        rates = fit_rates({"act": (ACT, 1.55e-4), "update": (UPDATE, 3.1e-3), "mix": (MIX, 1.25e-3)})
        assert rates.seconds(ACT) == pytest.approx(1.55e-4, rel=1e-6)
        assert rates.seconds(UPDATE) == pytest.approx(3.1e-3, rel=1e-6)
        assert rates.seconds(MIX) == pytest.approx(1.25e-3, rel=1e-6)

    @given(overhead=st.floats(1e-7, 1e-4), flops=st.floats(1e9, 1e12), share=st.floats(0.2, 5.0))
    def test_of_a_modelled_device_are_its_own(self, overhead: float, flops: float, share: float) -> None:
        """Where updates are bound by arithmetic and averaging by memory, as they are on real devices."""
        bandwidth = flops * share * UPDATE.bytes / UPDATE.flops * 1.1 + flops / 5
        times = {
            name: (w, w.kernels * overhead + max(w.flops / flops, w.bytes / bandwidth))
            for name, w in (("act", ACT), ("update", UPDATE), ("mix", MIX))
        }
        rates = fit_rates(times)
        for work, seconds in times.values():
            assert rates.seconds(work) == pytest.approx(seconds, rel=1e-3)

    def test_put_updating_first_where_not_all_can_be_had(self) -> None:
        rates = fit_rates({"act": (ACT, 1e-7), "update": (UPDATE, 3.1e-3), "mix": (MIX, 1.0)})
        assert rates.seconds(UPDATE) == pytest.approx(3.1e-3, rel=1e-6)
        assert rates.overhead_s >= 0

    def test_without_consensus_need_no_averaging(self) -> None:
        rates = fit_rates({"act": (ACT, 1.55e-4), "update": (UPDATE, 3.1e-3)})
        assert rates.seconds(ACT) == pytest.approx(1.55e-4, rel=1e-6)
        assert rates.seconds(UPDATE) == pytest.approx(3.1e-3, rel=1e-6)

    def test_of_no_time_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="act: took 0"):
            fit_rates({"act": (ACT, 0.0), "update": (UPDATE, 1.0)})


class TestStepLatency:
    def test_is_what_acting_leaves_if_updates_hide_behind_it(self) -> None:
        assert step_latency_s(step_s=0.05, act_s=0.001, update_s=0.03, every_steps=4) == pytest.approx(0.049)

    def test_makes_room_for_updates_that_are_longer(self) -> None:
        latency_s = step_latency_s(step_s=0.02, act_s=0.001, update_s=0.03, every_steps=4)
        assert 4 * (0.001 + latency_s) + (0.03 - latency_s) == pytest.approx(4 * 0.02)

    def test_is_never_negative(self) -> None:
        assert step_latency_s(step_s=0.01, act_s=0.001, update_s=1.0, every_steps=4) == 0.0
        assert step_latency_s(step_s=0.01, act_s=0.001, update_s=1.0, every_steps=1) == 0.0


class TestDelays:
    def test_are_those_of_an_even_link(self) -> None:
        """2 ms one way, 8 Gbit/s: a megabyte takes a millisecond to send."""
        delays = fit_delays(
            [0.004] * 9, [0.002 + 0.001 + 0.002] * 9, 16 * 0.001 + 0.002, 16_000_000, 1_000_000
        )
        assert delays.bandwidth_bps == pytest.approx(8e9)
        assert delays.as_link()["latency"] == {"kind": "constant", "value_s": pytest.approx(0.002)}

    def test_spread_is_a_lognormal(self) -> None:
        spread = np.exp(0.5 * np.random.default_rng(1).standard_normal(4000))
        delays = fit_delays(
            [1e-4], (5e-5 + 0.001 + 0.01 * spread).tolist(), 0.016 + 5e-5, 16_000_000, 1_000_000
        )
        assert delays.as_link()["latency"] == {
            "kind": "lognormal",
            "median_s": pytest.approx(0.01, rel=0.05),
            "sigma": pytest.approx(0.5, rel=0.1),
        }


def test_a_measured_device_is_a_profile(scenario: Scenario) -> None:
    """What the simulator makes of the profile are the measured medians, and the scenario loads."""
    bench = measure(scenario, seconds=0.3)
    assert set(bench.timings) == {"act", "update", "mix"}
    assert all(timing.median_s > 0 and len(timing.seconds) >= 5 for timing in bench.timings.values())
    times = {part: (t.work, t.median_s) for part, t in bench.timings.items()}
    found = calibrate_device(scenario, "here", threads=1, seconds=0.3, beside=1, jitter=True)
    applied = found.applied_to(scenario)
    check_scenario(applied)
    profile = device_profile("here", applied.devices.custom_profiles)
    model = ComputeModel([profile], NoJitter(), Streams(1, 1).family("jitter"))
    own = found.notes[1]
    assert own.startswith("update: measured")
    assert "(+0.0 %)" in own or "(-0.0 %)" in own
    assert 0 < float(model.modelled_s(times["update"][0])[0]) < math.inf
    assert applied.devices.jitter.kind in ("lognormal", "none")
    assert [group.profile for group in applied.devices.fleet] == ["here"]


def test_others_beside_it_are_timed_too(scenario: Scenario) -> None:
    bench = measure(scenario, seconds=0.2, beside=2)
    assert bench.processes == 2
    assert len(bench.timings["update"].seconds) >= 10


@pytest.mark.parametrize(
    "changes", [[], ["consensus.scheme=none"], ["consensus.scheme=push_sum", "network.topology.redraw=never"]]
)
def test_work_of_an_agent(scenario_file: Path, changes: list[str]) -> None:
    work = AgentWork(load_scenario(scenario_file, changes))
    work.act()
    work.update()
    if work.message_bytes:
        work.prepare_mix()
        work.mix()
    assert ("mix" in work.works) == (work.message_bytes > 0)


@pytest.mark.parametrize("insecure", [True, False])
def test_link_between_two_processes(insecure: bool) -> None:
    bench = measure_localhost(100_000, 0.3, insecure)
    assert bench.round_trip_s > 0
    assert bench.delays.bandwidth_bps is not None and bench.delays.bandwidth_bps > 0


class TestFromARun:
    def test_is_what_its_agents_got(self, scenario: Scenario, tmp_path: Path) -> None:
        run = deployed_run(tmp_path / "run", scenario)
        found = calibrate_from(run, "there")
        applied = found.applied_to(scenario)
        check_scenario(applied)
        profile = device_profile("there", applied.devices.custom_profiles)
        works = AgentWork(scenario).works
        model = ComputeModel([profile], NoJitter(), Streams(1, 1).family("jitter"))
        assert float(model.modelled_s(works["update"])[0]) == pytest.approx(0.03, rel=1e-6)
        assert float(model.modelled_s(works["act"])[0]) == pytest.approx(0.002, rel=1e-4)
        assert applied.network.link.latency.value_s == pytest.approx(0.1 * 0.25 + 0.2 * 0.75)  # type: ignore[union-attr]
        both_s = applied.world.observation_latency_s + applied.world.action_latency_s
        assert both_s == pytest.approx(0.05 - 0.002)

    def test_on_top_of_the_scenarios_own_link(self, scenario: Scenario, tmp_path: Path) -> None:
        found = added_to_link(calibrate_from(deployed_run(tmp_path / "run", scenario), "there"), scenario)
        link = found.applied_to(scenario).network.link
        assert (link.latency.low_s, link.latency.high_s) == pytest.approx((0.195, 0.215))  # type: ignore[union-attr]
        assert link.bandwidth_bps == 1e9

    def test_needs_measured_times(self, scenario: Scenario, tmp_path: Path) -> None:
        run = deployed_run(tmp_path / "run", scenario)
        (run / "measured.json").write_text("{")
        with pytest.raises(UsageError, match="cannot be read"):
            calibrate_from(run, "there")
        (run / "measured.json").unlink()
        with pytest.raises(UsageError, match=r"has no measured\.json"):
            calibrate_from(run, "there")


class TestCommand:
    def test_writes_profiles_and_a_scenario(self, scenario_file: Path, tmp_path: Path) -> None:
        out, whole = tmp_path / "profile.yaml", tmp_path / "whole.yaml"
        arguments = ["calibrate", str(scenario_file), "--seconds", "0.2", "--insecure", "--name", "here"]
        result = CliRunner().invoke(app, [*arguments, "--out", str(out), "--write-scenario", str(whole)])
        assert result.exit_code == 0, result.output
        loaded = load_scenario(whole)
        check_scenario(loaded)
        assert "here" in loaded.devices.custom_profiles and "here" in loaded.network.custom_links
        pasted = tmp_path / "pasted.yaml"
        text = "\n".join(line for line in TINY.splitlines() if not line.startswith("network"))
        pasted.write_text(text + "\n" + out.read_text())
        assert "here" in load_scenario(pasted).devices.custom_profiles

    def test_modes_exclude_each_other(self, scenario_file: Path) -> None:
        both = ["--listen", "tcp://127.0.0.1:1", "--connect", "tcp://127.0.0.1:1"]
        result = CliRunner().invoke(app, ["calibrate", str(scenario_file), *both])
        assert result.exit_code == 2

    def test_keys_or_not_has_to_be_said(self, scenario_file: Path) -> None:
        result = CliRunner().invoke(app, ["calibrate", str(scenario_file), "--connect", "tcp://127.0.0.1:1"])
        assert result.exit_code == 2


def deployed_run(path: Path, scenario: Scenario) -> Path:
    """A folder as of a deployed run: steps of 50 ms, updates of 30 ms, two links with 0.1 and 0.2 s."""
    path.mkdir()
    folder = RunFolder(path)
    folder.write_scenario(dump_scenario(scenario))
    rows = 4
    metrics = _blank(METRICS, rows)
    metrics["env_steps"] = 4 * np.arange(rows)
    metrics["updates"] = 24 * np.arange(rows)
    metrics["virtual_time_s"] = 3.0 + 0.2 * np.arange(rows)
    folder.write_table(METRICS, metrics)
    links = _blank(LINKS, 3)
    links["delivered"] = np.array([1, 3, 0])
    links["latency_mean_s"] = np.array([0.1, 0.2, math.nan])
    folder.write_table(LINKS, links)
    spread = Spread(count=72, p10=0.02, p50=0.03, p90=0.04, mean=0.031)
    Measured(update_s=spread, act_mean_s=0.002, mix_mean_s=0.005, processors=2, machine="x").write(path)
    return path


def _blank(schema, rows: int) -> Columns:  # type: ignore[no-untyped-def]
    kinds = {"int": np.int64, "float": np.float64, "bool": np.bool_, "text": np.str_}
    return {column.name: np.zeros(rows, dtype=kinds[column.kind]) for column in schema.columns}
