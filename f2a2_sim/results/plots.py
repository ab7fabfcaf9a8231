"""The report's figures over time: each function draws one figure and returns it as inline SVG.

Figures have no background, and their text and axes take the page's own colour (``currentColor``),
so one page reads well in light and in dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from f2a2_sim.results.tables import Columns

FloatArray = NDArray[np.float64]

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3b82c4", "#dd8420", "#2a9d6f", "#d1495b", "#8e6bbf", "#8a8f98"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, "#b58900", "#17a2a2", "#c06c9b", GREY)
INK = "#010203"  # becomes currentColor
FATE_COLOURS = {
    "delivered": GREEN,
    "lost": RED,
    "queue_dropped": ORANGE,
    "absent_dropped": PURPLE,
    "expired": "#c8b400",
    "in_flight": BLUE,
}
FATE_NAMES = {
    "delivered": "delivered",
    "lost": "lost on the link",
    "queue_dropped": "dropped: queue full",
    "absent_dropped": "dropped: device off",
    "expired": "arrived too old",
    "in_flight": "still under way",
}
VIRTUAL = "virtual time"
"""What the time of a simulated run is called."""
_MESSAGES_A_STRETCH, _MOST_STRETCHES = 50, 60
_MOST_VECTOR_POINTS = 1500
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "f2a2-sim",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.8,
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib with the report's look, inside the block only."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, identity: str, label: str) -> str:
    """The figure as an ``<svg>`` element that scales with the page; ``identity`` keeps its ids its own."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\bid=\"([^\"]+)\"", rf'id="{identity}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{identity}-\1)", svg)
    svg = re.sub(r"xlink:href=\"#([^\"]+)\"", rf'xlink:href="#{identity}-\1"', svg)
    svg = svg.replace(INK, "currentColor")
    tag, rest = svg.split(">", 1)
    width_pt = float(tag.split('viewBox="0 0 ')[1].split()[0])
    size = "wide" if width_pt > 500 else "narrow"
    tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    looks = f'class="{size}" role="img" aria-label="{label}" style="max-width:{width_pt * 4 / 3:.0f}px"'
    svg = f"{tag} {looks}>{rest}"
    return re.sub(r"font: ([^;\"]*?)'sans-serif'[^;\"]*", r"font: \1inherit", svg).strip()


def seconds_scale(longest_s: float) -> tuple[float, str]:
    """A divisor and a unit in which that time is easy to read."""
    for least_s, divisor, unit in (
        (7200, 3600.0, "h"),
        (120, 60.0, "min"),
        (1, 1.0, "s"),
        (1e-3, 1e-3, "ms"),
    ):
        if longest_s >= least_s:
            return divisor, unit
    return 1e-6, "µs"


def trailing_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of each value and up to ``window - 1`` before it; NaN is left out."""
    good = np.isfinite(values)
    totals = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    number = counts[ends] - counts[starts]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(number > 0, (totals[ends] - totals[starts]) / number, np.nan))


def smoothing_window(points: int) -> int:
    return int(np.clip(points // 10, 1, 50))


def learning_curve(episodes: Columns, baseline: float | None, time_name: str = VIRTUAL) -> str:
    """Return per episode against world steps and against virtual time, with the random policy's as a line."""
    with style():
        figure = new_figure(10.5, 3.6)
        axes = figure.subplots(1, 2, sharey=True)
        divisor, unit = seconds_scale(float(episodes["virtual_time_s"].max(initial=0)))
        for axis, x, label in (
            (axes[0], episodes["env_steps"], "world steps"),
            (axes[1], episodes["virtual_time_s"] / divisor, f"{time_name} ({unit})"),
        ):
            thin = _thinned(len(x))
            axis.fill_between(
                x[thin],
                episodes["return_min"][thin],
                episodes["return_max"][thin],
                color=BLUE,
                alpha=0.13,
                lw=0,
                label="lowest to highest agent",
            )
            _episode_points(axis, x, episodes["return_mean_per_agent"], BLUE)
            _baseline(axis, baseline)
            axis.set_xlabel(label)
        axes[0].set_ylabel("return per agent (reward)")
        _legend(axes[0])
        return to_svg(figure, "learning", "Return per agent and episode")


def fighting(episodes: Columns, baselines: dict[str, float | None], names: Sequence[str]) -> str:
    """Hits, kills and deaths per episode, each with the random policy's as a line."""
    colours = {"hits": ORANGE, "kills": GREEN, "deaths": RED}
    with style():
        figure = new_figure(10.5, 3.0)
        axes = np.atleast_1d(figure.subplots(1, len(names)))
        for axis, name in zip(axes, names, strict=True):
            _episode_points(axis, episodes["episode"] + 1, episodes[name], colours[name])
            _baseline(axis, baselines.get(name))
            axis.set_title(name)
            axis.set_xlabel("episode")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
            _legend(axis)
        axes[0].set_ylabel("per episode, whole army")
        return to_svg(figure, "fighting", "Hits, kills and deaths per episode")


def learner_health(metrics: Columns, time_name: str = VIRTUAL) -> str:
    """Entropy, critic estimate and temporal-difference error over virtual time."""
    panels = (
        ("entropy", "policy entropy (nat)", PURPLE),
        ("q_mean", "critic estimate (learner's reward)", BLUE),
        ("td_abs", "|TD error| (learner's reward)", ORANGE),
    )
    with style():
        figure = new_figure(10.5, 2.7)
        for axis, (name, title, colour) in zip(figure.subplots(1, 3), panels, strict=True):
            _over_time(axis, metrics, name, colour, time_name)
            axis.set_title(title)
        return to_svg(figure, "health", "Entropy, critic estimate and TD error")


def disagreement(metrics: Columns, time_name: str = VIRTUAL) -> str:
    """Mean distance of the agents' shared parameters from their mean, over virtual time."""
    with style():
        figure = new_figure(5.2, 3.0)
        axis = figure.subplots()
        _over_time(axis, metrics, "disagreement", BLUE, time_name)
        _from_zero(axis)
        axis.set_ylabel("distance from the mean (L2)")
        return to_svg(figure, "disagreement", f"Disagreement over {time_name}")


def duals(metrics: Columns, time_name: str = VIRTUAL) -> str:
    """Mean norm of the agents' duals, and norm of what all of them have in common, over virtual time."""
    with style():
        figure = new_figure(5.2, 3.0)
        axis = figure.subplots()
        _over_time(axis, metrics, "dual_norm", BLUE, time_name, label="an agent's, mean")
        _over_time(axis, metrics, "dual_mean_norm", ORANGE, time_name, label="all agents have in common")
        _from_zero(axis)
        axis.set_ylabel("dual variable (L2)")
        _legend(axis)
        return to_svg(figure, "duals", f"Dual variables over {time_name}")


def staleness(metrics: Columns, time_name: str = VIRTUAL, wide: bool = False) -> str:
    """Median and 95th percentile of the age of the copies that consensus used; ``wide``: as two figures."""
    with style():
        figure = new_figure(10.5, 2.7) if wide else new_figure(5.2, 3.0)
        axis = figure.subplots()
        highest = np.nanmax(
            np.where(np.isfinite(metrics["staleness_p95_s"]), metrics["staleness_p95_s"], 0.0)
        )
        divisor, unit = seconds_scale(float(highest))
        for name, label, colour in (
            ("staleness_p50_s", "median", BLUE),
            ("staleness_p95_s", "95 % are younger", ORANGE),
        ):
            _over_time(axis, metrics, name, colour, time_name, label=label, divisor=divisor)
        _from_zero(axis)
        axis.set_ylabel(f"age when used ({unit})")
        _legend(axis)
        return to_svg(figure, "staleness", "Age of the copies used in consensus")


def message_fates(metrics: Columns, time_name: str = VIRTUAL) -> str | None:
    """What became of the messages, as shares of those whose fate was decided in each stretch of time.

    None if no message has met its fate yet.
    """
    names = [name for name in FATE_NAMES if name != "in_flight" and (metrics[name][-1:] > 0).any()]
    if not names:
        return None
    with style():
        figure = new_figure(10.5, 2.9)
        axis = figure.subplots()
        rows = len(metrics["row"])
        decided_in_all = sum(int(metrics[name][-1]) for name in names)
        stretches = int(np.clip(decided_in_all // _MESSAGES_A_STRETCH, 1, _MOST_STRETCHES))
        edges = np.unique(np.linspace(0, rows - 1, min(rows, 1 + stretches)).astype(int))
        gains = np.array([np.diff(metrics[name][edges], prepend=0) for name in names], dtype=np.float64)
        decided = gains.sum(axis=0)
        keep = decided > 0
        divisor, unit = seconds_scale(float(metrics["virtual_time_s"][-1]))
        times = metrics["virtual_time_s"][edges][keep] / divisor
        shares = 100 * gains[:, keep] / decided[keep]
        if len(times) == 1:
            times, shares = np.array([0.0, times[0]]), np.repeat(shares, 2, axis=1)
        axis.stackplot(
            times,
            shares,
            colors=[FATE_COLOURS[n] for n in names],
            labels=[FATE_NAMES[n] for n in names],
            lw=0,
        )
        axis.set_ylim(0, 100)
        axis.margins(x=0)
        axis.set_ylabel("share of messages (%)")
        axis.set_xlabel(f"{time_name} ({unit})")
        figure.legend(loc="outside upper center", ncols=len(names))
        return to_svg(figure, "fates", f"Fates of messages over {time_name}")


def overlay(
    curves: Sequence[tuple[str, FloatArray, FloatArray]],
    identity: str,
    title: str,
    x_label: str,
    baseline: float | None = None,
) -> str:
    """Smoothed curves of several runs in one figure: (name, x, y) each; raw points are drawn faintly."""
    with style():
        figure = new_figure(5.2, 3.2)
        axis = figure.subplots()
        for (name, x, y), colour in zip(curves, _cycle(SERIES), strict=False):
            window = smoothing_window(len(y))
            thin = _thinned(len(y))
            if window > 1:
                many = len(y) > _MOST_VECTOR_POINTS
                axis.plot(x, y, color=colour, alpha=0.25, lw=0.8, rasterized=many)
            mean = trailing_mean(y, window)[thin]
            axis.plot(x[thin], mean, color=colour, label=name, marker="o" if len(y) == 1 else "")
        _baseline(axis, baseline)
        axis.set_ylabel(title)
        axis.set_xlabel(x_label)
        figure.legend(loc="outside lower center", ncols=2 if len(curves) < 5 else 3, fontsize=8)
        return to_svg(figure, identity, title)


def _cycle(colours: Sequence[str]) -> Iterator[str]:
    while True:
        yield from colours


def _episode_points(axis: Axes, x: NDArray[Any], y: FloatArray, colour: str) -> None:
    window = smoothing_window(len(y))
    axis.plot(
        x,
        y,
        ls="",
        marker="o",
        ms=3.2,
        mew=0,
        color=colour,
        alpha=0.5 if window > 1 else 1,
        label="one episode",
        rasterized=len(y) > _MOST_VECTOR_POINTS,
    )
    if window > 1:
        thin = _thinned(len(y))
        axis.plot(x[thin], trailing_mean(y, window)[thin], color=colour, label=f"mean of {window} episodes")
    else:
        axis.plot(x, y, color=colour, lw=1.2)


def _thinned(points: int) -> slice:
    """Which points of a smoothed curve to draw, the last one always: a long run's page stays small."""
    stride = 1 + points // _MOST_VECTOR_POINTS
    return slice((points - 1) % stride, None, stride)


def _baseline(axis: Axes, value: float | None) -> None:
    if value is not None:
        axis.axhline(value, color=INK, lw=1.2, ls=(0, (5, 3)), label="random policy")


def _over_time(
    axis: Axes,
    metrics: Columns,
    name: str,
    colour: str,
    time_name: str,
    label: str | None = None,
    divisor: float = 1.0,
) -> None:
    time_divisor, unit = seconds_scale(float(metrics["virtual_time_s"].max(initial=0)))
    good = np.isfinite(metrics[name])
    times, values = metrics["virtual_time_s"][good] / time_divisor, metrics[name][good] / divisor
    window = max(1, len(values) // 150)
    if window > 1:
        many = len(values) > _MOST_VECTOR_POINTS
        axis.plot(times, values, color=colour, alpha=0.25, lw=0.7, rasterized=many)
    thin = _thinned(len(values))
    axis.plot(
        times[thin],
        trailing_mean(values, window)[thin],
        color=colour,
        label=label,
        marker="o" if len(values) == 1 else "",
    )
    axis.set_xlabel(f"{time_name} ({unit})")


def _from_zero(axis: Axes) -> None:
    """Show from 0 to a little above the largest value, be it constant."""
    axis.set_ylim(0, 1.05 * axis.dataLim.y1 if axis.dataLim.y1 > 0 else 1.0)


def _legend(axis: Axes) -> None:
    legend: Callable[..., Any] = axis.legend
    legend(loc="best")
