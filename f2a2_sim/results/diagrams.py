"""The report's figures of things rather than of curves: devices, the graph, the timeline, the wall time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from f2a2_sim.results.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    VIRTUAL,
    FloatArray,
    new_figure,
    seconds_scale,
    style,
    to_svg,
)
from f2a2_sim.results.tables import Columns
from f2a2_sim.results.timeline import match_messages, readable_window

MANY_EDGES = 300
MOST_DRAWN_EDGES = 4000
_TELLING_MESSAGES = 20
_UNUSED = (0.54, 0.56, 0.6, 0.35)
_LOSS_COLOURS = LinearSegmentedColormap.from_list(
    "loss", ["#55a9e0", "#4fb58c", "#e0b02c", "#e0662c", "#cf2346"]
)
# Unlike the colours of losses, beside which they stand.
_NODE_COLOURS = ("#8e6bbf", "#8a8f98", "#c06c9b", "#a0703c", "#5560c8", "#17a2a2", "#6d8f3a", "#b0478f")
_TIMELINE_COLOURS = {
    "act": BLUE,
    "learn": GREEN,
    "send": ORANGE,
    "receive": PURPLE,
    "wait": GREY,
    "off": RED,
}
_TIMELINE_NAMES = {
    "act": "computes an action",
    "learn": "learns",
    "send": "sends",
    "receive": "message arrives",
    "wait": "waits",
    "off": "is off",
}


def device_use(devices: Columns, duration_s: float, time_name: str = VIRTUAL) -> str:
    """How devices of each profile spent the run: acting, learning, idle, off (means, in percent)."""
    names = sorted(set(devices["profile"].tolist()))
    parts = ("busy_act_s", "busy_learn_s", "off_s")
    labels = ("acting", "learning", "off", "idle")
    colours = (BLUE, GREEN, RED, GREY)
    alphas = (1.0, 1.0, 0.8, 0.25)
    means = np.array([[devices[part][devices["profile"] == name].mean() for part in parts] for name in names])
    shares = 100 * means / duration_s
    shares = np.column_stack([shares, np.maximum(0.0, 100 - shares.sum(axis=1))])[:, [0, 1, 3, 2]]
    with style():
        figure = new_figure(10.5, 0.9 + 0.42 * len(names))
        axis = figure.subplots()
        left = np.zeros(len(names))
        for column, which in enumerate((0, 1, 3, 2)):
            axis.barh(
                range(len(names)),
                shares[:, column],
                left=left,
                color=colours[which],
                alpha=alphas[which],
                label=labels[which],
                height=0.62,
            )
            left += shares[:, column]
        counts = [int((devices["profile"] == name).sum()) for name in names]
        axis.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts, strict=True)])
        axis.invert_yaxis()
        axis.set_xlim(0, 100)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"share of {time_name} (%)")
        figure.legend(loc="outside upper center", ncols=4)
        return to_svg(figure, "devices", "How devices spent their time, by profile")


def wall_time(breakdown_s: Mapping[str, float]) -> str:
    """One bar: where the wall time went."""
    total = sum(breakdown_s.values()) or 1.0
    with style():
        figure = new_figure(10.5, 1.25)
        axis = figure.subplots()
        left = 0.0
        for (name, seconds), colour in zip(
            breakdown_s.items(), (ORANGE, GREEN, PURPLE, BLUE, GREY), strict=True
        ):
            share = 100 * seconds / total
            axis.barh([0], [share], left=left, color=colour, height=0.6, label=f"{name} {share:.1f} %")
            left += share
        axis.set_yticks([])
        axis.set_xlim(0, 100)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("share of wall time (%)")
        figure.legend(loc="outside upper center", ncols=5)
        return to_svg(figure, "walltime", "Where the wall time went")


# ------------------------------------------------------------------------------------ the graph


@dataclass(frozen=True)
class GraphFigure:
    """The graph as pictures: the drawing is None if it has too many edges, the matrix if it has few."""

    drawing: str | None
    matrix: str | None
    edges: int


def not_arrived(links: Columns) -> FloatArray:
    """Share of each link's messages that were lost or dropped; NaN for a link that carried none."""
    gone = links["lost"] + links["queue_dropped"] + links["absent_dropped"]
    total = links["sent"] + links["duplicated"]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, gone / total, np.nan))


def graph(links: Columns, profiles: NDArray[np.str_]) -> GraphFigure:
    """The graph with its links coloured by the share of messages that did not arrive."""
    n = len(profiles)
    pairs = _pairs(links, n)
    shares = not_arrived(links)
    norm = Normalize(0, 100 * max(0.01, _highest_share(links, shares)), clip=True)
    redrawn = np.count_nonzero(links["sent"]) > 3 * len(pairs)
    few = len(pairs) <= MANY_EDGES and not redrawn
    drawing = _drawing(pairs, n, profiles, norm) if 0 < len(pairs) <= MOST_DRAWN_EDGES else None
    matrix = None if few else _matrix(links, shares, n, norm)
    return GraphFigure(drawing, matrix, len(pairs))


def _highest_share(links: Columns, shares: FloatArray) -> float:
    """The highest share of losses, of links with messages enough to tell, if there are any."""
    telling = shares[links["sent"] >= _TELLING_MESSAGES]
    return float(np.nanmax(telling if telling.size else shares, initial=0.0))


def _pairs(links: Columns, n: int) -> dict[tuple[int, int], float]:
    """Unordered pairs that are connected now, with the share of their messages that did not arrive."""
    now = np.flatnonzero(links["currently_connected"])
    low = np.minimum(links["sender"][now], links["receiver"][now])
    high = np.maximum(links["sender"][now], links["receiver"][now])
    codes, inverse = np.unique(low * n + high, return_inverse=True)
    gone = (links["lost"] + links["queue_dropped"] + links["absent_dropped"])[now]
    sent = np.bincount(inverse, weights=(links["sent"] + links["duplicated"])[now], minlength=len(codes))
    lost = np.bincount(inverse, weights=gone, minlength=len(codes))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(sent > 0, lost / sent, np.nan)
    return {(int(c) // n, int(c) % n): float(s) for c, s in zip(codes, shares, strict=True)}


def _positions(pairs: Mapping[tuple[int, int], float], n: int) -> FloatArray:
    """On a circle where much of the graph is a ring, or it is small or dense; by springs otherwise."""
    ring = sum(1 for a, b in pairs if min(b - a, n - (b - a)) <= 1)
    if n <= 30 or ring >= 0.6 * n or len(pairs) > 1500:
        angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n
        return np.column_stack([np.cos(angle), np.sin(angle)])
    net = nx.Graph()
    net.add_nodes_from(range(n))
    net.add_edges_from(pairs)
    placed = nx.spring_layout(net, seed=1, iterations=80, method="force")
    return np.array([placed[node] for node in range(n)])


def _drawing(
    pairs: Mapping[tuple[int, int], float], n: int, profiles: NDArray[np.str_], norm: Normalize
) -> str:
    places = _positions(pairs, n)
    order = sorted(pairs, key=lambda pair: -1.0 if math.isnan(pairs[pair]) else pairs[pair])
    with style():
        figure = new_figure(5.4, 5.6)
        axis = figure.subplots()
        width = 1.7 if len(pairs) <= MANY_EDGES else 0.7 if len(pairs) <= 1500 else 0.35
        lines = LineCollection(
            [places[list(pair)] for pair in order],
            colors=[
                _UNUSED if math.isnan(pairs[pair]) else _LOSS_COLOURS(norm(100 * pairs[pair]))
                for pair in order
            ],
            linewidths=width,
            zorder=1,
            rasterized=len(pairs) > 1500,
        )
        axis.add_collection(lines)
        size = 60 if n <= 30 else 34 if n <= 100 else 9
        for name, colour in zip(sorted(set(profiles.tolist())), _NODE_COLOURS * 5, strict=False):
            mine = profiles == name
            axis.scatter(
                places[mine, 0],
                places[mine, 1],
                s=size,
                color=colour,
                label=name,
                zorder=2,
                edgecolors="none",
            )
        if n <= 30:
            for node, (x, y) in enumerate(places):
                axis.annotate(str(node), (x * 1.09, y * 1.09), ha="center", va="center", fontsize=8)
        axis.set_aspect("equal")
        axis.autoscale_view()
        axis.axis("off")
        bar = figure.colorbar(
            ScalarMappable(norm, _LOSS_COLOURS),
            ax=axis,
            orientation="horizontal",
            shrink=0.75,
            pad=0.02,
            aspect=32,
        )
        bar.set_label("messages that did not arrive (%)")
        bar.outline.set_visible(False)
        figure.legend(loc="outside upper center", ncols=2, title="device", markerscale=1.4 if n > 100 else 1)
        return to_svg(figure, "graph", "The graph, links coloured by the share of messages lost")


def _matrix(links: Columns, shares: FloatArray, n: int, norm: Normalize) -> str:
    table = np.full((n, n), np.nan)
    table[links["sender"], links["receiver"]] = 100 * shares
    with style():
        figure = new_figure(5.4, 5.6)
        axis = figure.subplots()
        axis.imshow(table, cmap=_LOSS_COLOURS, norm=norm, interpolation="nearest", rasterized=True)
        axis.set_xlabel("receiver")
        axis.set_ylabel("sender")
        axis.grid(visible=False)
        bar = figure.colorbar(
            ScalarMappable(norm, _LOSS_COLOURS),
            ax=axis,
            orientation="horizontal",
            shrink=0.75,
            pad=0.02,
            aspect=32,
        )
        bar.set_label("messages that did not arrive (%)")
        bar.outline.set_visible(False)
        return to_svg(figure, "matrix", "Share of messages lost, by sender and receiver")


# --------------------------------------------------------------------------------- the timeline


def gantt(
    timeline: Columns, names: NDArray[np.str_], profiles: NDArray[np.str_], time_name: str = VIRTUAL
) -> str | None:
    """What some devices did, each with a lane for its computing and one for its radio; None if nothing."""
    window = readable_window(timeline)
    if window is None:
        return None
    start, end = window
    inside = (timeline["end_s"] >= start) & (timeline["start_s"] <= end)
    events = {name: column[inside] for name, column in timeline.items()}
    agents = np.unique(events["agent"])
    rows = {int(agent): row for row, agent in enumerate(agents)}
    divisor, unit = seconds_scale(end - start)
    with style():
        figure = new_figure(10.5, 1.1 + 0.62 * len(rows))
        axis = figure.subplots()
        for kind in ("wait", "off", "act", "learn", "send"):
            _bars(axis, events, kind, rows, start, end, divisor)
        _arrivals(axis, events, rows, start, end, divisor)
        _flights(axis, events, rows, start, divisor)
        axis.set_yticks(
            range(len(rows)),
            [f"{names[a]}\n{profiles[a]}" if a < len(names) else str(a) for a in rows],
            fontsize=8,
        )
        axis.set_ylim(len(rows) - 0.45, -0.55)
        axis.set_xlim(0, (end - start) / divisor)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"{time_name} ({unit} after {start:.6g} s)")
        kinds = [kind for kind in _TIMELINE_NAMES if (events["kind"] == kind).any()]
        figure.legend(handles=[_handle(kind) for kind in kinds], loc="outside upper center", ncols=len(kinds))
        return to_svg(figure, "timeline", "Timeline of some devices")


def _bars(
    axis: Axes, events: Columns, kind: str, rows: Mapping[int, int], start: float, end: float, divisor: float
) -> None:
    offset, height, alpha = {
        "wait": (-0.36, 0.36, 0.25),
        "off": (-0.40, 0.80, 0.25),
        "act": (-0.36, 0.36, 1.0),
        "learn": (-0.36, 0.36, 1.0),
        "send": (0.06, 0.26, 1.0),
    }[kind]
    chosen = np.flatnonzero(events["kind"] == kind)
    for agent, row in rows.items():
        mine = chosen[events["agent"][chosen] == agent]
        begins = np.maximum(events["start_s"][mine], start)
        ends = np.minimum(events["end_s"][mine], end)
        spans = list(zip((begins - start) / divisor, (ends - begins) / divisor, strict=True))
        axis.broken_barh(spans, (row + offset, height), facecolors=_TIMELINE_COLOURS[kind], alpha=alpha, lw=0)


def _arrivals(
    axis: Axes, events: Columns, rows: Mapping[int, int], start: float, end: float, divisor: float
) -> None:
    """A mark under the lane for every message that arrived."""
    received = np.flatnonzero(
        (events["kind"] == "receive") & (events["end_s"] >= start) & (events["end_s"] <= end)
    )
    if received.size:
        heights = np.array([rows[int(agent)] for agent in events["agent"][received]]) + 0.19
        times = (events["end_s"][received] - start) / divisor
        axis.scatter(times, heights, marker="v", s=18, color=_TIMELINE_COLOURS["receive"], lw=0, zorder=4)


def _flights(axis: Axes, events: Columns, rows: Mapping[int, int], start: float, divisor: float) -> None:
    """Thin lines from the start of sending to arrival, for messages between two shown devices."""
    flights: list[Any] = [
        [
            ((events["start_s"][send] - start) / divisor, rows[int(events["agent"][send])] + 0.19),
            ((events["end_s"][receive] - start) / divisor, rows[int(events["agent"][receive])] + 0.19),
        ]
        for send, receive in match_messages(events)[:400]
    ]
    axis.add_collection(
        LineCollection(flights, colors=_TIMELINE_COLOURS["receive"], linewidths=0.6, alpha=0.55)
    )


def _handle(kind: str) -> Line2D | Patch:
    if kind == "receive":
        return Line2D(
            [], [], ls="", marker="v", ms=5, color=_TIMELINE_COLOURS[kind], label=_TIMELINE_NAMES[kind]
        )
    alpha = 0.25 if kind in ("wait", "off") else 1.0
    return Patch(facecolor=_TIMELINE_COLOURS[kind], alpha=alpha, label=_TIMELINE_NAMES[kind])
