"""A simulated and a real run side by side, and how far the prediction is off."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from devices.compute import ComputeModel
from f2a2_sim.deployment.measured import Measured
from f2a2_sim.errors import UsageError
from f2a2_sim.learners.base import joint_information, make_fleet
from f2a2_sim.randomness import Streams
from f2a2_sim.results import plots, words
from f2a2_sim.results.folder import write_atomically
from f2a2_sim.results.report import Figure, RunData, page_template
from f2a2_sim.results.words import bytes_text, duration, number
from f2a2_sim.scenario.fleet import plan_fleet
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_world, fleet_setup, fleets_of
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_policies

FloatArray = NDArray[np.float64]
_FATES = ("sent", "delivered", "lost", "queue_dropped", "absent_dropped", "expired")
_GOAL = 0.15


@dataclass(frozen=True)
class Line:
    """One thing that both runs have a number for; None where a run does not know it."""

    what: str
    simulated: float | None
    real: float | None
    words: Callable[[float | None], str] = number
    is_goal: bool = False
    """Whether the prediction of it is asked to be within 15 %."""

    @property
    def error(self) -> float | None:
        """Of the prediction, as a share of what was real; None if one of them is not known."""
        if self.simulated is None or self.real is None:
            return None
        if self.simulated == self.real:
            return 0.0
        return (self.simulated - self.real) / self.real if self.real else math.inf

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """What, simulated, real, error."""
        error = self.error
        shown = "-" if error is None else f"{100 * error:+.1f} %" if math.isfinite(error) else "not foreseen"
        return self.what, self.words(self.simulated), self.words(self.real), shown


@dataclass(frozen=True)
class Prediction:
    """Both runs, and what there is to say of them."""

    simulated: RunData
    real: RunData
    lines: tuple[Line, ...]
    parameters: str
    """How far the final parameters are apart, in words."""
    returns: str
    """How far the returns are apart, in words."""

    @property
    def verdict(self) -> str:
        """Whether what is asked for was predicted well enough."""
        goals = [line for line in self.lines if line.is_goal and line.error is not None]
        if not goals:
            return "Neither rounds nor bytes can be compared: one of the runs has none."
        told: dict[str, list[str]] = {"Off by more than 15 %": [], "Within 15 %": []}
        for line in goals:
            what = "Within 15 %" if abs(line.error or 0.0) <= _GOAL else "Off by more than 15 %"
            told[what].append(f"{line.what} {line.cells[3]}")
        return " ".join(f"{what}: {', '.join(those)}." for what, those in told.items() if those)


def compare_runs(run_sim: Path, run_real: Path) -> Prediction:
    """Read both folders and compare them. Raises UsageError if one is no run, or has recorded nothing."""
    simulated, real = RunData.read(run_sim), RunData.read(run_real)
    theirs = [_timings(run) for run in (simulated, real)]
    lines = [Line(what, theirs[0][what], theirs[1][what], duration, what == _ROUND) for what in theirs[0]]
    totals = [_totals(run) for run in (simulated, real)]
    for what, (_, how) in totals[0].items():
        lines.append(Line(what, totals[0][what][0], totals[1][what][0], how, what == _BYTES))
    return Prediction(simulated, real, tuple(lines), _parameters(simulated, real), _returns(simulated, real))


# ---------------------------------------------------------------- times

_STEP = "a step of the world, median"
_BETWEEN = "from update to update, median"
_ROUND = "from consensus round to round, median"
_ACT = "computing an action, mean"
_LEARN = "computing an update, averaging included, mean"
_UPDATE = "computing an update, median"
_MIX = "averaging in a round, mean"
_TOTAL = "from the first row of metrics to the last"
_BYTES = "bytes sent"


def _timings(run: RunData) -> dict[str, float | None]:
    """Seconds by name. Of rows of metrics only those count between which agents have learnt."""
    metrics, devices = run.metrics, run.devices
    passed_s, steps = np.diff(metrics["virtual_time_s"]), np.diff(metrics["env_steps"])
    updates = np.diff(metrics["updates"]) / run.summary.agents
    good = (steps > 0) & (updates > 0)
    rounds = float(devices["consensus_rounds"].sum())
    per_round = float(devices["updates"].sum()) / rounds if rounds else math.nan
    update_s, mix_s = _of_work(run)
    busy = (devices["busy_act_s"].sum(), devices["busy_learn_s"].sum())
    return {
        _STEP: _median(passed_s[good] / steps[good]),
        _BETWEEN: _median(passed_s[good] / updates[good]),
        _ROUND: _median(per_round * passed_s[good] / updates[good]),
        _ACT: _ratio(busy[0], devices["actions"].sum()),
        _LEARN: _ratio(busy[1], devices["updates"].sum()),
        _UPDATE: update_s,
        _MIX: mix_s,
        _TOTAL: float(metrics["virtual_time_s"][-1] - metrics["virtual_time_s"][0])
        if len(passed_s)
        else None,
        "age of the copies that are averaged, median": run.summary.staleness_s.p50,
        "age of the copies that are averaged, 95 % are younger": run.summary.staleness_s.p95,
    }


def _of_work(run: RunData) -> tuple[float | None, float | None]:
    """Median seconds of an update and mean of an averaging: measured if the run was real, else modelled."""
    found = Measured.read(run.folder.path)
    if found is not None:
        return (found.update_s.p50 if found.update_s else None), found.mix_mean_s
    scenario = load_scenario(run.folder.scenario_file)
    update_s = modelled_update_s(scenario)
    rounds = float(run.devices["consensus_rounds"].sum())
    mix_s = None
    if rounds:
        updating_s = float((update_s * run.devices["updates"]).sum())
        mix_s = max(float(run.devices["busy_learn_s"].sum()) - updating_s, 0.0) / rounds
    median = 1.0
    if scenario.devices.jitter.kind == "lognormal":
        median = math.exp(-0.5 * scenario.devices.jitter.sigma**2)
    return median * float(np.median(update_s)), mix_s


def modelled_update_s(scenario: Scenario) -> FloatArray:
    """Seconds that an update takes on every agent's device, without jitter: float64 ``[n]``."""
    world = build_world(scenario)
    n = len(world.agents)
    model = ComputeModel(
        plan_fleet(scenario, n).profiles, scenario.devices.jitter, Streams(scenario.seed, n).family("jitter")
    )
    durations_s = np.zeros(n)
    for ids in fleets_of(scenario, world):
        seeds = [0] * len(ids) if joint_information(scenario.learner.name) else [0]
        learner = make_fleet(scenario.learner, fleet_setup(scenario, world, ids, seeds))
        durations_s[ids] = model.modelled_s(learner.update_work())[ids]
    return durations_s


# ---------------------------------------------------------------- counts


def _totals(run: RunData) -> dict[str, tuple[float | None, Callable[[float | None], str]]]:
    """Figures by name, with how they are written."""
    summary = run.summary
    found: dict[str, tuple[float | None, Callable[[float | None], str]]] = {
        _BYTES: (float(summary.bytes_sent), _bytes),
        "bytes of a message": (_ratio(summary.bytes_sent, summary.messages.sent), _bytes),
    }
    for fate in _FATES:
        found[f"messages {fate.replace('_', ' ')}"] = (float(getattr(summary.messages, fate)), number)
    found["steps of the world"] = (float(summary.env_steps), number)
    found["updates"] = (float(summary.updates), number)
    found["consensus rounds"] = (float(run.devices["consensus_rounds"].sum()), number)
    found["missed deadlines"] = (float(summary.missed_deadlines), number)
    return found


def _parameters(simulated: RunData, real: RunData) -> str:
    try:
        ours, theirs = (read_policies(run.folder, find_checkpoint(run.folder)) for run in (simulated, real))
    except UsageError as error:
        return f"not comparable ({error})"
    if [p.shape for p in ours] != [p.shape for p in theirs]:
        return "not comparable: networks of other shapes"
    if all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)):
        return "equal, bit for bit"
    apart = max(relative_distance(a, b) for a, b in zip(ours, theirs, strict=True))
    return f"differ: an agent's parameters by at most {100 * apart:.3g} % of their norm"


def relative_distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest over the agents of ``|a - b| / |b|``, for parameters ``[agents, P]``."""
    scale = theirs.double().norm(dim=1).clamp_min(1e-30)
    return float(((ours.double() - theirs.double()).norm(dim=1) / scale).max())


def _returns(simulated: RunData, real: RunData) -> str:
    ours, theirs = (
        np.asarray(run.episodes["return_mean_per_agent"], dtype=np.float64) for run in (simulated, real)
    )
    both = min(len(ours), len(theirs))
    if both == 0:
        return "no episode is over in both"
    apart = np.abs(ours[:both] - theirs[:both])
    if not apart.any():
        return f"equal in all {both} episodes"
    return (
        f"in {both} episodes {number(float(apart.mean()))} apart on average, {number(float(apart.max()))} "
        f"at most (mean of the real ones: {number(float(theirs[:both].mean()))})"
    )


# ---------------------------------------------------------------- to read


def terminal_table(found: Prediction) -> Table:
    """What is compared, a line each."""
    table = Table(
        title=f"{found.simulated.name} (simulated) against {found.real.name} (real)",
        caption=f"Returns: {found.returns}.\nFinal parameters: {found.parameters}.\n{found.verdict}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("what")
    for head in ("simulated", "real", "error"):
        table.add_column(head, justify="right", no_wrap=True)
    for line in found.lines:
        table.add_row(*line.cells)
    return table


def write_page(found: Prediction, out: Path) -> Path:
    """One self-contained page of the comparison, written atomically; returns its path."""
    scenarios = [found.simulated.scenario, found.real.scenario]
    page = page_template("prediction.html.j2").render(
        names=[found.simulated.name, found.real.name],
        verdict=found.verdict,
        rows=[line.cells for line in found.lines],
        parameters=found.parameters,
        returns=found.returns,
        differing=words.differing_settings(scenarios),
        figures=_figures(found),
    )
    write_atomically(out, page.encode())
    return out


def _figures(found: Prediction) -> list[Figure]:
    runs = {"simulated": found.simulated, "real": found.real}
    figures = []
    curves = [
        (name, run.episodes["env_steps"].astype(np.float64), run.episodes["return_mean_per_agent"])
        for name, run in runs.items()
        if len(run.episodes["episode"])
    ]
    if curves:
        svg = plots.overlay(curves, "returns", "Return per agent", "world steps")
        caption = "One value per episode, mean over the agents; thick lines are running means."
        figures.append(Figure("Learning curves", Markup(svg), caption))
    for identity, title, column, caption in (
        ("time", "Time against steps", "virtual_time_s", "Seconds since the first row of metrics."),
        ("bytes", "Bytes against steps", "bytes_sent", "Bytes sent by all agents so far."),
    ):
        lines = [
            (
                name,
                run.metrics["env_steps"].astype(np.float64),
                (run.metrics[column] - run.metrics[column][0]).astype(np.float64),
            )
            for name, run in runs.items()
            if len(run.metrics["row"])
        ]
        if lines:
            svg = plots.overlay(lines, identity, title.partition(" ")[0], "world steps")
            figures.append(Figure(title, Markup(svg), caption))
    return figures


def _median(values: FloatArray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _bytes(count: float | None) -> str:
    return "-" if count is None else bytes_text(count)
