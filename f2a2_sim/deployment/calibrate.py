"""Profiles of this machine and its links for scenarios: measured here, or taken from a deployed run."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from devices.compute import Work
from f2a2_sim.deployment.bench import AgentWork, Bench, measure
from f2a2_sim.deployment.fit import Rates, fit_rates, step_latency_s
from f2a2_sim.deployment.linkbench import LinkBench
from f2a2_sim.deployment.measured import FILE, Measured
from f2a2_sim.deployment.power import PowerMeter
from f2a2_sim.errors import UsageError
from f2a2_sim.results.folder import RunFolder, write_atomically
from f2a2_sim.results.tables import LINKS, METRICS
from f2a2_sim.scenario.load import dump_scenario, load_scenario, parse_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.scenario.yaml_source import dump_yaml

_IDLE_S = 2.0
_FOR_POWER = {"aarch64": "raspberry_pi_5", "x86_64": "intel_nuc_8"}
"""Devices of the catalogue that lend what cannot be measured, by architecture."""


@dataclass(frozen=True)
class Calibration:
    """Sections of a scenario, and what is to be said about them."""

    name: str
    profile: dict[str, Any] | None = None
    link: dict[str, Any] | None = None
    world: dict[str, float] = field(default_factory=dict)
    jitter_sigma: float | None = None
    notes: tuple[str, ...] = ()

    def sections(self) -> dict[str, Any]:
        """As they stand in a scenario; the link's name is that of the device."""
        found: dict[str, Any] = {}
        if self.world:
            found["world"] = dict(self.world)
        if self.profile is not None:
            found["devices"] = {"custom_profiles": {self.name: self.profile}}
            if self.jitter_sigma:
                found["devices"]["jitter"] = {"kind": "lognormal", "sigma": self.jitter_sigma}
        if self.link is not None:
            found["network"] = {"custom_links": {self.name: self.link}}
        return found

    def text(self) -> str:
        """YAML to be pasted into a scenario, the notes as comments above it."""
        return "".join(f"# {note}\n" for note in self.notes) + dump_yaml(self.sections())

    def applied_to(self, scenario: Scenario) -> Scenario:
        """The scenario with all agents on this device, and over this link, as far as they were measured.

        Raises ScenarioError if they do not fit it.
        """
        data = scenario.model_dump(mode="json")
        for section, keys in self.sections().items():
            for key, value in keys.items():
                old = data[section].get(key)
                data[section][key] = {**old, **value} if key.startswith("custom") and old else value
        if self.profile is not None:
            data["devices"]["fleet"] = [{"profile": self.name}]
        if self.link is not None:
            data["network"]["link"] = {"profile": self.name}
        return parse_scenario(dump_yaml(data), f"{scenario.name} with the profiles of {self.name}")

    def write(self, out: Path | None, scenario_out: Path | None, scenario: Scenario) -> None:
        """Write the sections, and the whole scenario with them, where asked for."""
        if out is not None:
            write_atomically(out, self.text().encode())
        if scenario_out is not None:
            named = self.applied_to(scenario).model_copy(update={"name": f"{scenario.name}_{self.name}"})
            comments = "".join(f"# {note}\n" for note in self.notes)
            write_atomically(scenario_out, (comments + dump_scenario(named)).encode())


# ---------------------------------------------------------------- measured here


def calibrate_device(
    scenario: Scenario, name: str, threads: int, seconds: float, beside: int, jitter: bool = False
) -> Calibration:
    """Measure one agent's work on this machine, with ``beside`` - 1 others at once, for about ``seconds``.

    With ``jitter`` its spread is written too, as a lognormal multiplier. Raises RunError.
    """
    meter = PowerMeter()
    idle_w = active_w = None
    if meter.source is not None:
        meter.start()
        time.sleep(_IDLE_S)
        idle_w = meter.stop()
        meter.start()
    bench = measure(scenario, seconds, threads, beside)
    if meter.source is not None:
        active_w = meter.stop()
    sigma = bench.timings["update"].sigma if jitter else 0.0
    # A lognormal multiplier has mean one, and so a median below one.
    to_mean = float(np.exp(0.5 * sigma**2))
    times = {part: (t.work, to_mean * t.median_s) for part, t in bench.timings.items()}
    rates = fit_rates(times)
    how = f"{bench.threads} threads" if bench.threads > 1 else "one thread"
    if beside > 1:
        how += f", {beside} processes at once on {psutil.cpu_count()} processors"
    profile = _profile(
        rates,
        description=f"{_processor()}, one agent of {scenario.name}: {how}.",
        peak_flops=max(bench.flops_per_s, rates.flops_per_s),
        sources=_bench_sources(bench, how),
        watts=None if idle_w is None or active_w is None else (idle_w, max(active_w, idle_w)),
        watts_source=meter.source,
    )
    return Calibration(
        name, profile, jitter_sigma=sigma or None, notes=tuple(_agreement(times, rates) + _said_of(profile))
    )


def calibrate_link(bench: LinkBench, name: str, where: str) -> Calibration:
    """The link that was measured; ``where`` says between whom."""
    notes = (
        f"Link {where}: round trip of small messages {1e3 * bench.round_trip_s:.3g} ms (median); a message "
        f"of {bench.message_bytes:,} bytes and a small answer {1e3 * bench.large_s:.3g} ms; "
        f"{(bench.delays.bandwidth_bps or 0.0) / 1e6:,.0f} Mbit/s in a stream of such messages.",
    )
    return Calibration(name, link=bench.delays.as_link(), notes=notes)


def together(device: Calibration, link: Calibration) -> Calibration:
    """A device and a link as one."""
    return replace(device, link=link.link, notes=device.notes + link.notes)


# ---------------------------------------------------------------- taken from a run


def calibrate_from(run_dir: Path, name: str) -> Calibration:
    """What the agents of a deployed run got: times of their work, of messages, and of the world's steps.

    The model has an agent's device and links to itself. Where agents share processors, the times of a run
    with as many of them are what they really get, and the world's latency is what then is left of a step.
    Raises UsageError if the folder is of no deployed run, or that has not learnt yet.
    """
    folder = RunFolder.open(run_dir)
    found = Measured.read(run_dir)
    if found is None:
        raise UsageError(
            f"{run_dir}: has no {FILE}, so its times were not measured; name the folder of a run by "
            "f2a2-sim launch or world that is over"
        )
    if found.update_s is None or not found.act_mean_s:
        raise UsageError(f"{run_dir}: its agents have made no update; let it run longer")
    scenario = load_scenario(folder.scenario_file)
    agent = AgentWork(scenario)
    works = agent.works
    times = {"act": (works["act"], found.act_mean_s), "update": (works["update"], found.update_s.p50)}
    if "mix" in works and found.mix_mean_s:
        times["mix"] = (works["mix"], found.mix_mean_s)
    rates = fit_rates(times)
    source = (
        f"run {folder.path.resolve().name}: medians of {found.update_s.count:,} updates of all its agents, "
        f"on {found.processors} processors (of the world's machine)"
    )
    profile = _profile(
        rates,
        description=f"What one agent of {scenario.name} got in a deployed run ({found.machine}).",
        peak_flops=rates.flops_per_s,
        sources={key: source for key in _MEASURED},
        watts=None,
        watts_source=None,
    )
    notes = _agreement(times, rates) + _said_of(profile)
    link = None
    if agent.message_bytes and folder.table_file(LINKS).is_file():
        delay_s = _mean_delay_s(folder)
        link = {"latency": {"kind": "constant", "value_s": delay_s}, "bandwidth_bps": None, "ordered": True}
        notes.append(
            f"Link: messages of {agent.message_bytes:,} bytes took {1e3 * delay_s:.3g} ms on average until "
            "they were read, sending included; the rate cannot be told from that, so the latency has it all."
        )
    world: dict[str, float] = {}
    if scenario.world.mode == "lockstep":
        step_s = median_step_s(folder)
        every_steps = scenario.learner.update_every_steps
        both_s = step_latency_s(step_s, found.act_mean_s, found.update_s.p50, every_steps)
        world = {"observation_latency_s": both_s / 2, "action_latency_s": both_s / 2}
        notes.append(
            f"World: a step took {1e3 * step_s:.3g} ms (median); the latencies are what acting and updating "
            "leave of it: the world's own computing, messages there and back, and waits for a processor."
        )
    return Calibration(name, profile, link, world, notes=tuple(notes))


def median_step_s(folder: RunFolder) -> float:
    """Seconds per step of the world while agents learn: median over the rows of metrics.

    Raises UsageError if there is no row of that kind.
    """
    rows = folder.read_table(METRICS)
    steps, updates = np.diff(rows["env_steps"]), np.diff(rows["updates"])
    learning = (updates > 0) & (steps > 0)
    if not learning.any():
        raise UsageError(
            f"{folder.path}: between no two rows of its metrics there is an update; let it run longer, or "
            "lower record.every_steps"
        )
    return float(np.median(np.diff(rows["virtual_time_s"])[learning] / steps[learning]))


def _mean_delay_s(folder: RunFolder) -> float:
    links = folder.read_table(LINKS)
    used = links["delivered"] > 0
    if not used.any():
        raise UsageError(f"{folder.path}: no message was delivered; let it run longer")
    return float(np.average(links["latency_mean_s"][used], weights=links["delivered"][used]))


def added_to_link(found: Calibration, scenario: Scenario) -> Calibration:
    """With the scenario's own link, on which the measured delay comes on top.

    So it is where agents emulate the scenario's network over a real one. Raises UsageError where a delay
    cannot be added, and where none was measured.
    """
    if found.link is None:
        raise UsageError("--add-to-link: the run has exchanged no messages, so there is no delay to add")
    extra_s = float(found.link["latency"]["value_s"])
    link = scenario.network.link.spec.model_dump(mode="json")
    latency = link["latency"]
    for key in _PLACES.get(latency["kind"], ()):
        latency[key] += extra_s
    if latency["kind"] not in _PLACES:
        raise UsageError(
            f"--add-to-link: nothing can be added to network.link.latency of kind {latency['kind']}"
        )
    return replace(found, link=link)


_PLACES = {
    "constant": ("value_s",),
    "uniform": ("low_s", "high_s"),
    "normal": ("mean_s",),
    "lognormal": ("offset_s",),
    "pareto": ("offset_s",),
}
"""Where the fixed part of a latency is, by kind."""

# ---------------------------------------------------------------- words and figures

_MEASURED = ("peak_flops", "efficiency", "memory_bandwidth_bytes_per_s", "launch_overhead_s")


def _profile(
    rates: Rates,
    description: str,
    peak_flops: float,
    sources: Mapping[str, str],
    watts: tuple[float, float] | None,
    watts_source: str | None,
) -> dict[str, Any]:
    """Keys of a custom profile; what was not measured is the catalogue's for such an architecture."""
    profile: dict[str, Any] = {
        "based_on": _FOR_POWER.get(platform.machine(), "intel_nuc_8"),
        "description": description,
        "peak_flops": peak_flops,
        "efficiency": min(rates.flops_per_s / peak_flops, 1.0),
        "memory_bandwidth_bytes_per_s": rates.bytes_per_s,
        "memory_bytes": float(psutil.virtual_memory().total),
        "launch_overhead_s": rates.overhead_s,
    }
    own = dict(sources)
    own["memory_bytes"] = "this machine's, shared by all that runs on it"
    if watts is not None:
        profile["idle_power_w"], profile["active_power_w"] = watts
        own["idle_power_w"] = own["active_power_w"] = f"measured: {watts_source}"
    return {**profile, "sources": own}


def _bench_sources(bench: Bench, how: str) -> dict[str, str]:
    act, update = bench.timings["act"], bench.timings["update"]
    by = {"update": update.median_s, "act": act.median_s}
    if "mix" in bench.timings:
        by["averaging"] = bench.timings["mix"].median_s
    taken = ", ".join(f"{name} {1e3 * seconds:.4g} ms" for name, seconds in by.items())
    return {
        "peak_flops": f"measured ({how}): product of two large matrices, or what updating needs if more",
        "efficiency": f"such that the model gives the measured medians ({taken})",
        "memory_bandwidth_bytes_per_s": (
            "as efficiency; adding vectors of the parameters' length moves "
            f"{bench.bytes_per_s / 1e9:.3g} GB/s here"
        ),
        "launch_overhead_s": (
            f"as efficiency; the smallest operation takes {1e6 * bench.launch_s:.3g} us here"
        ),
    }


def _agreement(times: Mapping[str, tuple[Work, float]], rates: Rates) -> list[str]:
    """What was measured, what the profile gives for it, and the rates that this amounts to."""
    lines = []
    for part, (work, seconds) in times.items():
        modelled_s = rates.seconds(work)
        lines.append(
            f"{part}: measured {1e3 * seconds:.4g} ms, the profile gives {1e3 * modelled_s:.4g} ms "
            f"({100 * (modelled_s / seconds - 1):+.1f} %); {work.flops / seconds / 1e9:.3g} GFLOP/s, "
            f"{work.bytes / seconds / 1e9:.3g} GB/s, {work.kernels} operations"
        )
    return lines


def _said_of(profile: Mapping[str, Any]) -> list[str]:
    if "idle_power_w" in profile:
        return []
    return [
        f"Power cannot be read on this machine: idle_power_w and active_power_w are those of "
        f"{profile['based_on']} in the catalogue."
    ]


def _processor() -> str:
    """What the system calls the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
