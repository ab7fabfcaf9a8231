"""report.html: one self-contained page about one run, for readers who did not run it.

``write_comparison`` makes such a page about several runs. Both are made of the run folder's tables only,
so they can be written again at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from f2a2_sim.errors import UsageError
from f2a2_sim.results import diagrams, plots, words
from f2a2_sim.results.folder import RunFolder, write_atomically
from f2a2_sim.results.summary import Summary, build_summary
from f2a2_sim.results.tables import (
    DEVICES,
    EPISODES,
    LINKS,
    METRICS,
    NUMPY_TYPES,
    TIMELINE,
    Columns,
    TableSchema,
)
from f2a2_sim.results.words import bytes_text, duration, energy_text, number, percent

_MANY_UNDER_WAY = 0.2
_FIGHT = ("hits", "kills", "deaths")


@dataclass(frozen=True)
class RunData:
    """A run folder, read."""

    folder: RunFolder
    summary: Summary
    scenario: dict[str, Any]
    metrics: Columns
    episodes: Columns
    devices: Columns
    links: Columns
    timeline: Columns

    @classmethod
    def read(cls, run_dir: Path) -> RunData:
        """UsageError if the folder is none or cannot be read."""
        folder = RunFolder.open(run_dir)
        scenario = folder.read_scenario()
        metrics, episodes = folder.read_table(METRICS), folder.read_table(EPISODES)
        devices, links = _table_if_written(folder, DEVICES), _table_if_written(folder, LINKS)
        if folder.summary_file.is_file():
            summary = folder.read_summary()
        else:
            summary = _summary_so_far(folder, scenario, metrics, episodes, devices)
        timeline = folder.read_table(TIMELINE)
        return cls(folder, summary, scenario, metrics, episodes, devices, links, timeline)

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name

    @property
    def is_real(self) -> bool:
        """Whether it was deployed: then its times are real."""
        return self.summary.clock == "real"

    @property
    def role(self) -> str | None:
        """The command that a deployed run was begun with; None if it was simulated."""
        launched = (self.folder.path / "agents").is_dir()
        return None if not self.is_real else "launch" if launched else "world"

    @property
    def time_name(self) -> str:
        """What the time in its tables is called."""
        return "time" if self.is_real else plots.VIRTUAL

    def measures(self, name: str) -> bool:
        """Whether the metrics have a single number in that column."""
        return bool(np.isfinite(self.metrics[name]).any())

    @property
    def fights(self) -> bool:
        """Whether the world is one with hits and kills."""
        return bool(np.isfinite(self.episodes["hits"]).any())


@dataclass(frozen=True)
class Figure:
    """One figure of the page: a title, a picture, and a caption that says what to see."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Section:
    """One section of the page; ``rows`` is an optional table (first row: the heads)."""

    identity: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def write_report(run_dir: Path) -> Path:
    """Write the run's report.html, atomically; returns its path.

    Raises UsageError if the folder holds no run or cannot be read.
    """
    run = RunData.read(run_dir)
    page = page_template("report.html.j2").render(
        run=run,
        summary=run.summary,
        tiles=words.tiles(run.summary),
        verdict=words.verdict(run.summary),
        sections=_sections(run),
        settings=words.flatten(run.scenario),
        glossary=words.glossary(run.is_real),
        command=f"f2a2-sim {run.role or 'run'} {run.name}/scenario.yaml --out {run.name}-again",
        go_on=f"f2a2-sim {run.role} --resume {run.name}" if run.role else f"f2a2-sim resume {run.name}",
        duration=duration,
    )
    write_atomically(run.folder.report_file, page.encode())
    return run.folder.report_file


def write_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page that overlays several runs, and sets their figures and settings side by side."""
    if len(run_dirs) < 2:
        raise UsageError(
            f"a comparison needs two run folders or more, but {len(run_dirs)} was given; name another"
        )
    runs = [RunData.read(path) for path in run_dirs]
    names = _distinct_names([run.folder.path for run in runs])
    differing = words.differing_settings([run.scenario for run in runs])
    page = page_template("comparison.html.j2").render(
        names=names,
        runs=runs,
        rows=words.comparison_rows([run.summary for run in runs]),
        differing=differing,
        figures=_overlays(runs, names),
    )
    write_atomically(out, page.encode())
    return out


def _table_if_written(folder: RunFolder, schema: TableSchema) -> Columns:
    """The table, or no rows: these tables are written when a run ends (links: only where it records them)."""
    if folder.table_file(schema).is_file():
        return folder.read_table(schema)
    return {column.name: np.empty(0, dtype=NUMPY_TYPES[column.kind]) for column in schema.columns}


def _summary_so_far(
    folder: RunFolder, scenario: dict[str, Any], metrics: Columns, episodes: Columns, devices: Columns
) -> Summary:
    """What a run that has written no summary yet had done at its last checkpoint."""
    if len(metrics["row"]) == 0:
        raise UsageError(
            f"{folder.path}: the run has recorded nothing yet. Wait for its first checkpoint, or go on with"
            f" it: f2a2-sim resume {folder.path}"
        )
    return build_summary(
        scenario=str(scenario["name"]),
        seed=int(scenario["seed"]),
        agents=int(scenario["world"]["agents"] or metrics["alive"].max()),
        status="running",
        totals={name: column[-1] for name, column in metrics.items()},
        metrics=metrics,
        episodes=episodes,
        devices=devices,
        staleness_s=(math.nan, math.nan),
        baseline=None,
        peak_memory_bytes=0,
    )


def page_template(name: str) -> jinja2.Template:
    """A page of the report's look."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("f2a2_sim.results"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def _sections(run: RunData) -> list[Section]:
    made = (_learning(run), _fighting(run), _learners(run), _consensus(run), _network(run), _graph(run))
    return [
        section for section in (*made, _devices(run), _timeline(run), _wall_time(run)) if section is not None
    ]


def _learning(run: RunData) -> Section | None:
    if len(run.episodes["episode"]) == 0:
        return None
    baseline = run.summary.baseline
    line = (
        f" The dashed line is the random policy, the mean of {baseline.episodes} episodes measured"
        " before the run."
        if baseline
        else ""
    )
    caption = (
        "Sum of rewards in an episode, mean over the agents, against world steps (left) and"
        f" {run.time_name} (right); the shaded band reaches from the lowest agent to the highest.{line}"
        " Higher is better."
    )
    svg = plots.learning_curve(
        run.episodes, baseline.return_mean_per_agent if baseline else None, run.time_name
    )
    figure = Figure("Return per agent and episode", Markup(svg), caption)
    return Section("learning", "Learning", "Do the agents collect more reward as they go on?", (figure,))


def _fighting(run: RunData) -> Section | None:
    if not run.fights:
        return None
    baseline = run.summary.baseline
    lines = {name: getattr(baseline, name) if baseline else None for name in _FIGHT}
    dashed = " Dashed: the random policy." if baseline else ""
    caption = (
        "Whole army, per episode. A hit is an attack that meets an enemy, a kill is an enemy removed from the"
        f" map, a death an own agent removed.{dashed}"
    )
    figure = Figure("Hits, kills and deaths", Markup(plots.fighting(run.episodes, lines, _FIGHT)), caption)
    lead = (
        "A rising return alone can mean that agents stopped paying for attacks that hit nothing."
        " Hits and kills tell whether they fight."
    )
    return Section("fighting", "Fighting", lead, (figure,))


def _learners(run: RunData) -> Section | None:
    if not any(run.measures(name) for name in ("entropy", "q_mean", "td_abs")):
        return None
    caption = (
        "Means over the agents, of the batches they learned from. Entropy near 0 is a policy that always does"
        " the same. The critic estimates the discounted sum of rewards from a step on, past an episode's time"
        " limit, and of standardised rewards if learner.normalise_rewards is true: so it need not be of the"
        " returns' size, but if it goes on rising while they fall, it expects too much. Its error should"
        " settle."
    )
    figure = Figure("Policies and critics", Markup(plots.learner_health(run.metrics, run.time_name)), caption)
    return Section(
        "learners", "Inside the learners", "How sure the policies are, and how the critics do.", (figure,)
    )


def _consensus(run: RunData) -> Section | None:
    if run.summary.messages.sent == 0:
        return None
    figures = []
    if run.measures("disagreement"):
        caption = (
            "Euclidean distance of an agent's shared parameters from the mean of all agents, averaged over"
            " the agents. 0 means that all agents share the same parameters."
        )
        figures.append(
            Figure("Disagreement", Markup(plots.disagreement(run.metrics, run.time_name)), caption)
        )
    if run.measures("dual_mean_norm") and run.metrics["dual_norm"].any():
        caption = (
            "Duals pull agents together; over all agents they should cancel. What lost and late copies leave"
            " in all of them alike moves everybody's parameters the same way for as long as it lasts: if it"
            " grows to the size of an agent's own, set consensus.dual_decay below 1, 0.99 say."
        )
        figures.append(Figure("Dual variables", Markup(plots.duals(run.metrics, run.time_name)), caption))
    if run.measures("staleness_p50_s"):
        stale = run.summary.staleness_s
        caption = "Age of the neighbours' copies at the moment an agent averaged them."
        if stale.p50 is not None:
            caption += (
                f" Over the whole run: median {duration(stale.p50)}, 95 % younger than {duration(stale.p95)}."
            )
        picture = plots.staleness(run.metrics, run.time_name, wide=len(figures) == 2)
        figures.append(Figure("Staleness", Markup(picture), caption))
    if not figures:
        return None
    lead = "Agents train their own copies and average them with their neighbours': do they stay together?"
    return Section("consensus", "Consensus", lead, tuple(figures))


def _network(run: RunData) -> Section | None:
    messages = run.summary.messages
    if messages.sent == 0:
        return None
    rows: list[tuple[str, ...]] = [("fate", "messages", "share")]
    for fate, name in plots.FATE_NAMES.items():
        count = getattr(messages, fate)
        rows.append((name, f"{count:,}", percent(count, messages.total)))
    if messages.duplicated:
        rows.append(("extra copies made by the network", f"{messages.duplicated:,}", ""))
        rows.append(
            ("sent, and extra copies", f"{messages.total:,}", percent(messages.total, messages.total))
        )
    else:
        rows.append(("sent", f"{messages.sent:,}", percent(messages.sent, messages.total)))
    caption = (
        "Each stretch of time shows what became of the messages whose fate was decided in it."
        " Exact counts of the whole run are in the table."
    )
    svg = plots.message_fates(run.metrics, run.time_name)
    figures = (Figure("What became of the messages", Markup(svg), caption),) if svg else ()
    lead = (
        f"{messages.sent:,} consensus messages, {bytes_text(run.summary.bytes_sent)} in all,"
        f" {bytes_text(run.summary.bytes_sent / messages.sent)} each. One message goes to one receiver."
    )
    if messages.in_flight > _MANY_UNDER_WAY * messages.total:
        lead += (
            f" At the end {percent(messages.in_flight, messages.total)} of them were still queued or under"
            " way: the links carry less than the agents send."
        )
    return Section("messages", "Messages", lead, figures, tuple(rows))


def _graph(run: RunData) -> Section | None:
    if len(run.links["sender"]) == 0:
        return None
    made = diagrams.graph(run.links, run.devices["profile"])
    figures = []
    if made.drawing:
        caption = (
            "Points are devices, lines are the links that exist at the end of the run. The redder a line, the"
            " more of the messages on it, both ways, were lost or dropped; faint grey lines carried"
            " none."
        )
        figures.append(Figure("The graph", Markup(made.drawing), caption))
    if made.matrix:
        caption = (
            "Each point is a link from the row's agent to the column's, over the whole run: also links that"
            " the graph no longer has, where it is redrawn. Empty points carried no message."
        )
        figures.append(Figure("All links", Markup(made.matrix), caption))
    if not figures:
        return None
    lead = f"{run.summary.agents} agents and {made.edges:,} connections between them at the end of the run."
    return Section("graph", "The graph", lead, tuple(figures))


def _devices(run: RunData) -> Section | None:
    devices = run.devices
    duration_s = run.summary.virtual_time_s
    if len(devices["agent"]) == 0 or duration_s <= 0:
        return None
    rows: list[tuple[str, ...]] = [
        (
            "profile",
            "devices",
            "computing",
            "off",
            "energy per device",
            "updates per device",
            "missed deadlines",
        )
    ]
    for name in sorted(set(devices["profile"].tolist())):
        mine = devices["profile"] == name
        rows.append(
            (
                name,
                str(int(mine.sum())),
                f"{100 * devices['utilisation'][mine].mean():.1f} %",
                f"{100 * devices['off_s'][mine].mean() / duration_s:.1f} %",
                energy_text(float(devices["energy_j"][mine].mean())),
                number(devices["updates"][mine].mean()),
                f"{int(devices['missed_deadlines'][mine].sum()):,}",
            )
        )
    empty = int(devices["battery_empty"].sum())
    note = f" {empty} batteries ran out." if empty else ""
    caption = (
        "Mean over the devices of each profile (their number in brackets)."
        " Off counts drop-outs and empty batteries."
    )
    figure = Figure(
        "How devices spent their time",
        Markup(diagrams.device_use(devices, duration_s, run.time_name)),
        caption,
    )
    lead = (
        f"{run.summary.agents} modelled devices over {duration(duration_s)} of virtual time used"
        f" {energy_text(run.summary.energy_j)} together.{note}"
    )
    if run.summary.clock == "real":
        lead = f"{run.summary.agents} agents, really for {duration(duration_s)}; no energy was measured."
    return Section("devices", "Devices", lead, (figure,), tuple(rows))


def _timeline(run: RunData) -> Section | None:
    svg = diagrams.gantt(run.timeline, run.devices["name"], run.devices["profile"], run.time_name)
    if svg is None:
        return None
    sending = "packing, and handing over to the sockets" if run.is_real else "sending"
    caption = (
        f"Each device has two lanes: above, what it computes; below, what its radio does (bars: {sending};"
        " triangles: arrivals). Thin lines lead from a sending to its arrival where both devices are shown."
        " All of it: f2a2-sim trace RUN, then open trace.json in ui.perfetto.dev."
    )
    figure = Figure("Timeline of some devices", Markup(svg), caption)
    return Section(
        "timeline", "A moment in the life of some devices", "About a dozen world steps.", (figure,)
    )


def _wall_time(run: RunData) -> Section | None:
    summary = run.summary
    if summary.wall_time_s <= 0:
        return None
    caption = (
        "Time that the simulation itself took on the machine it ran on, by what it was spent on."
        " It has no influence on the results."
    )
    breakdown = summary.wall_breakdown_s.model_dump()
    figure = Figure("Where the wall time went", Markup(diagrams.wall_time(breakdown)), caption)
    lead = (
        f"{duration(summary.virtual_time_s)} of virtual time were simulated in"
        f" {duration(summary.wall_time_s)}: {number(summary.env_steps / summary.wall_time_s)} world steps and"
        f" {number(summary.updates / summary.wall_time_s)} learning updates a second, with at most"
        f" {bytes_text(summary.peak_memory_bytes)} of memory."
    )
    if summary.clock == "real":
        lead = (
            f"{number(summary.env_steps / summary.wall_time_s)} world steps and"
            f" {number(summary.updates / summary.wall_time_s)} learning updates a second. Learning and"
            " consensus are the mean of an agent's own seconds; the rest is waiting and the world."
        )
        figure = Figure(figure.title, figure.svg, "Real time of the whole run, by what it was spent on.")
        return Section("walltime", "Where the time went", lead, (figure,))
    return Section("walltime", "Cost of the simulation", lead, (figure,))


# ------------------------------------------------------------------------------------ comparison


def _overlays(runs: Sequence[RunData], names: Sequence[str]) -> list[Figure]:
    baselines = {run.summary.baseline.return_mean_per_agent for run in runs if run.summary.baseline}
    baseline = next(iter(baselines)) if len(baselines) == 1 else None
    longest_s = max(run.summary.virtual_time_s for run in runs)
    divisor, unit = plots.seconds_scale(longest_s)
    virtual = f"virtual time ({unit})"
    wanted: list[tuple[str, str, str, str, float, float | None]] = [
        ("return_mean_per_agent", "Return per agent", "env_steps", "world steps", 1.0, baseline),
        ("return_mean_per_agent", "Return per agent", "virtual_time_s", virtual, divisor, baseline),
        ("hits", "Hits per episode", "env_steps", "world steps", 1.0, None),
        ("kills", "Kills per episode", "env_steps", "world steps", 1.0, None),
        ("disagreement", "Disagreement", "virtual_time_s", virtual, divisor, None),
    ]
    figures = []
    for position, (column, title, x, label, scale, line) in enumerate(wanted):
        curves = [
            (name, run.episodes[x] / scale, run.episodes[column])
            for name, run in zip(names, runs, strict=True)
            if np.isfinite(run.episodes[column]).any()
        ]
        if curves:
            svg = plots.overlay(curves, f"overlay{position}", title, label, line)
            caption = "One value per episode; thick lines are running means."
            figures.append(Figure(f"{title} against {label}", Markup(svg), caption))
    return figures


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Folder names, with as much of their parents as it takes to tell them apart."""
    resolved = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in resolved)):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"the same run folder was named twice: {', '.join(map(str, paths))}; name each once")
