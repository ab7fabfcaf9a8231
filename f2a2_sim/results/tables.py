"""The tables of a run folder: every column's type, unit and meaning, in one place.

``recorder.py`` writes by these schemas, ``folder.py`` reads by them, the report quotes them, and
docs/run_folder.md is made of them (:func:`markdown`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Kind = Literal["int", "float", "bool", "text"]
Columns = dict[str, NDArray[Any]]

NUMPY_TYPES: dict[Kind, type[Any]] = {"int": np.int64, "float": np.float64, "bool": np.bool_, "text": np.str_}
_ARROW_TYPES: dict[Kind, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
}


@dataclass(frozen=True)
class Column:
    """One column: ``unit`` is "" for pure numbers; ``wall_clock`` marks what two equal runs may differ in.

    A ``newer`` column of real numbers is NaN in tables that were written before there was one.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    wall_clock: bool = False
    newer: bool = False


@dataclass(frozen=True)
class TableSchema:
    """One parquet file: its name below the run folder, what a row is, and its columns in order."""

    name: str
    path: str
    row_is: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def arrow(self) -> pa.Schema:
        """The fixed parquet schema, units and descriptions attached as field metadata."""
        return pa.schema(
            [
                pa.field(
                    c.name, _ARROW_TYPES[c.kind], metadata={"unit": c.unit, "description": c.description}
                )
                for c in self.columns
            ]
        )


def _count(name: str, description: str, unit: str = "") -> Column:
    return Column(name, "int", unit, description)


def _real(name: str, unit: str, description: str) -> Column:
    return Column(name, "float", unit, description)


def _wall(name: str, description: str) -> Column:
    return Column(name, "float", "s", description, wall_clock=True)


_FATES = (
    _count("sent", "Messages (copies, told steps) handed to the network, one per receiver.", "messages"),
    _count("delivered", "Messages that reached a receiver that was on, in time.", "messages"),
    _count("lost", "Messages lost on the link.", "messages"),
    _count("queue_dropped", "Messages dropped because the sending queue was full.", "messages"),
    _count("absent_dropped", "Messages dropped because sender or receiver was off.", "messages"),
    _count(
        "expired",
        "Messages that arrived older than max_age_s: not used, not counted as delivered.",
        "messages",
    ),
)

METRICS = TableSchema(
    "metrics",
    "metrics.parquet",
    "one row every `record.every_steps` world steps and one at the end of each episode",
    (
        _count("row", "Number of the row, from 0."),
        _real("virtual_time_s", "s", "Simulated time."),
        _count("env_steps", "World steps since the start of the run (all agents act in one step).", "steps"),
        _count("episode", "Number of the episode, from 0."),
        _count("episode_step", "World steps since the start of the episode.", "steps"),
        Column("episode_end", "bool", "", "Whether the episode ended with this step."),
        _count("updates", "Learning updates so far, summed over the agents.", "updates"),
        _real(
            "return_mean_per_agent", "reward", "Sum of rewards in this episode so far, mean over the agents."
        ),
        _real("hits", "", "Attacks that hit an enemy in this episode so far (NaN: the world has none)."),
        _real("kills", "", "Enemies killed in this episode so far (NaN: the world has none)."),
        _real("deaths", "", "Own agents killed in this episode so far (NaN: the world has none)."),
        _count("alive", "Agents that can act in the world.", "agents"),
        _real(
            "win", "", "1 won, 0 lost, 0.5 drawn; NaN until the episode ends and in worlds without a winner."
        ),
        _count("online", "Devices that take part: on, and their agents not silent after death.", "devices"),
        _real(
            "entropy",
            "nat",
            "Entropy of the policies on the updated batches, mean over agents since last row.",
        ),
        _real(
            "q_mean",
            "reward",
            "Critics' mean estimate on the updated batches, since last row: a discounted sum past any time "
            "limit, of rewards as they learn from them (standardised with `learner.normalise_rewards`).",
        ),
        _real(
            "td_abs",
            "reward",
            "Mean absolute temporal-difference error on the updated batches, since last row.",
        ),
        _real("critic_loss", "", "Critic loss on the updated batches, mean over agents since last row."),
        _real(
            "moa_accuracy",
            "",
            "Share of the others' newest actions that agents' models expected, before they learnt from them; "
            "NaN without models.",
        ),
        _real("dual_norm", "", "Euclidean norm of the dual variable, mean over agents."),
        Column(
            "dual_mean_norm",
            "float",
            "",
            "Euclidean norm of the agents' mean dual variable: what lost and late copies have left in all of "
            "them. 0 on a complete graph without loss.",
            newer=True,
        ),
        _real(
            "disagreement",
            "",
            "Euclidean distance of an agent's shared parameters from their mean, mean over agents.",
        ),
        *_FATES,
        _count(
            "in_flight", "Messages under way at this moment (queued, being sent, or propagating).", "messages"
        ),
        _count(
            "duplicated",
            "Extra copies that the network made: not part of `sent`, each with a fate of its own.",
            "messages",
        ),
        _count(
            "bytes_sent",
            "Bytes given to transmitters so far: resends included, messages refused by a full queue not.",
            "bytes",
        ),
        _real("staleness_p50_s", "s", "Median age of the copies that consensus used since the last row."),
        _real("staleness_p95_s", "s", "95th percentile of the age of those copies."),
        _count(
            "missed_deadlines",
            "Actions that came too late for their step so far (realtime worlds).",
            "actions",
        ),
        _real("utilisation", "", "Share of on-time that devices spent computing so far, mean over devices."),
        _real("energy_j", "J", "Energy that all devices used so far."),
        _wall("wall_time_s", "Wall time of the run so far."),
        _wall("wall_world_s", "Wall time spent in the world (MAgent2 or other) so far."),
        _wall("wall_learning_s", "Wall time spent in acting and learning arithmetic so far."),
        _wall("wall_network_s", "Wall time spent in the network model so far."),
        _wall("wall_consensus_s", "Wall time spent in consensus arithmetic so far."),
        _wall("wall_other_s", "Wall time spent in everything else so far."),
    ),
)

EPISODES = TableSchema(
    "episodes",
    "tables/episodes.parquet",
    "one episode that has ended",
    (
        _count("episode", "Number of the episode, from 0."),
        _real("virtual_time_s", "s", "Simulated time at its end."),
        _count("env_steps", "World steps since the start of the run, at its end.", "steps"),
        _count("updates", "Learning updates so far, summed over the agents.", "updates"),
        _real("return_mean_per_agent", "reward", "Sum of rewards in the episode, mean over the agents."),
        _real("return_std", "reward", "Standard deviation of that sum over the agents."),
        _real("return_min", "reward", "The lowest agent's sum of rewards."),
        _real("return_max", "reward", "The highest agent's sum of rewards."),
        _real("hits", "", "Attacks that hit an enemy (NaN: the world has none)."),
        _real("kills", "", "Enemies killed (NaN: the world has none)."),
        _real("deaths", "", "Own agents killed (NaN: the world has none)."),
        _real("win", "", "1 won, 0 lost, 0.5 drawn (NaN: the world has no winner)."),
        _count("steps", "World steps in the episode.", "steps"),
        _real("disagreement", "", "Disagreement at its end (as in metrics)."),
    ),
)

DEVICES = TableSchema(
    "devices",
    "tables/devices.parquet",
    "one agent and its device, over the whole run",
    (
        _count("agent", "Number of the agent, from 0."),
        Column("name", "text", "", "Name of the agent in the world."),
        Column("profile", "text", "", "Device profile."),
        Column("link", "text", "", "Link profile of what it sends."),
        _real("busy_act_s", "s", "Simulated time spent computing actions."),
        _real("busy_learn_s", "s", "Simulated time spent computing updates."),
        _real("off_s", "s", "Simulated time that the device was off."),
        _real("utilisation", "", "Share of its on-time that it spent computing."),
        _real("energy_j", "J", "Energy that it used."),
        Column("battery_empty", "bool", "", "Whether its battery ran out."),
        _count("updates", "Learning updates.", "updates"),
        _count("consensus_rounds", "Number of its newest round; who is behind skips some.", "rounds"),
        _count("actions", "Its actions that the world took, in time.", "actions"),
        _count("missed_deadlines", "Actions that came too late for their step.", "actions"),
        _real("return_mean", "reward", "Its own sum of rewards per episode, mean over the episodes."),
    ),
)

LINKS = TableSchema(
    "links",
    "tables/links.parquet",
    "one directed link that exists or carried a message",
    (
        _count("sender", "Number of the sending agent."),
        _count("receiver", "Number of the receiving agent."),
        *_FATES,
        _count(
            "duplicated",
            "Extra copies that the network made: not part of `sent`, each with a fate of its own.",
            "messages",
        ),
        _real("latency_mean_s", "s", "Mean time from hand-over to arrival of its delivered messages."),
        Column("currently_connected", "bool", "", "Whether the link exists in the graph at the end."),
    ),
)

TIMELINE_KINDS = ("act", "learn", "send", "receive", "off", "wait")

TIMELINE = TableSchema(
    "timeline",
    "tables/timeline.parquet",
    "one thing that a device did (the first `record.timeline_events`, of `record.timeline_agents` devices)",
    (
        _count("agent", "Number of the agent."),
        Column("kind", "text", "", "act, learn, send, receive, off or wait."),
        _real("start_s", "s", "Simulated time of its start; of a receive: of its arrival."),
        _real("end_s", "s", "Simulated time of its end; of a send: when its last bit left."),
        _count("peer", "The other agent of a send or receive; -1 if none."),
        _count("size_bytes", "Size of the message of a send.", "bytes"),
    ),
)

ALL_TABLES = (METRICS, EPISODES, DEVICES, LINKS, TIMELINE)


def to_arrow(schema: TableSchema, columns: Mapping[str, Any]) -> pa.Table:
    """Columns (arrays or lists, all of one length) as a table of exactly that schema.

    Raises KeyError for a missing or unknown column.
    """
    unknown = set(columns) - set(schema.names)
    missing = set(schema.names) - set(columns)
    if unknown or missing:
        raise KeyError(f"table {schema.name}: missing columns {sorted(missing)}, unknown {sorted(unknown)}")
    arrays = []
    for column in schema.columns:
        values = np.asarray(columns[column.name], dtype=NUMPY_TYPES[column.kind])
        arrays.append(
            pa.array(values.tolist() if column.kind == "text" else values, type=_ARROW_TYPES[column.kind])
        )
    return pa.table(arrays, schema=schema.arrow())


def from_arrow(schema: TableSchema, table: pa.Table) -> Columns:
    """The columns of that schema as arrays of one's own; KeyError if one is not in the table."""
    columns: Columns = {}
    for column in schema.columns:
        if column.newer and column.name not in table.column_names:
            columns[column.name] = np.full(table.num_rows, np.nan)
            continue
        values = table.column(column.name)
        plain = values.to_pylist() if column.kind == "text" else values.to_numpy()
        columns[column.name] = np.array(plain, dtype=NUMPY_TYPES[column.kind])
    return columns


def compare_metrics(a: Mapping[str, Any], b: Mapping[str, Any], schema: TableSchema = METRICS) -> list[str]:
    """What differs between two runs' tables, bit for bit, wall-clock columns aside: one line per column.

    NaN equals NaN; 0.0 differs from -0.0. An empty list means that the tables are equal.
    """
    first_name = schema.names[0]
    length_a, length_b = len(a[first_name]), len(b[first_name])
    if length_a != length_b:
        return [f"rows: {length_a} against {length_b}"]
    differences = []
    for column in schema.columns:
        if column.wall_clock:
            continue
        left = np.asarray(a[column.name], dtype=NUMPY_TYPES[column.kind])
        right = np.asarray(b[column.name], dtype=NUMPY_TYPES[column.kind])
        unequal = np.flatnonzero(_differs(left, right))
        if unequal.size:
            row = int(unequal[0])
            differences.append(
                f"{column.name}: {unequal.size} of {length_a} rows differ, first row {row}:"
                f" {left[row]!r} against {right[row]!r}"
            )
    return differences


def _differs(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
    if left.dtype != np.float64:
        return np.asarray(left != right)
    both_nan = np.isnan(left) & np.isnan(right)
    return np.asarray((left.view(np.int64) != right.view(np.int64)) & ~both_nan)


def markdown() -> str:
    """All tables as markdown, for docs/run_folder.md."""
    parts = []
    for schema in ALL_TABLES:
        lines = [
            f"### `{schema.path}`",
            "",
            f"A row is {schema.row_is}.",
            "",
            "| column | type | unit | meaning |",
        ]
        lines.append("|---|---|---|---|")
        for c in schema.columns:
            mark = " *(wall clock)*" if c.wall_clock else ""
            lines.append(f"| `{c.name}` | {c.kind} | {c.unit or '-'} | {c.description}{mark} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def finite_or_none(value: float) -> float | None:
    """A float for JSON: NaN and infinities become null."""
    return float(value) if math.isfinite(value) else None
