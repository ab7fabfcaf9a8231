"""What the report says in words and numbers: headline figures, the verdict, settings, the glossary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from f2a2_sim.results.summary import Summary

GLOSSARY = (
    (
        "agent",
        "One learner with its own policy, critic, experience and device; nothing of it is read by others.",
    ),
    ("baseline", "The random policy in the same world, measured before the run."),
    ("consensus", "Agents send parameters to their neighbours and average what they receive."),
    ("critic", "The part of a learner that estimates how much reward will follow an action."),
    ("death", "An agent removed from the map until the next episode; its device may go on learning."),
    (
        "device",
        "The modelled machine that an agent lives on: it takes time and energy to compute, and may be off.",
    ),
    ("disagreement", "Mean Euclidean distance of the agents' shared parameters from their common mean."),
    (
        "dual variable",
        "What an agent remembers of how far its parameters were from the consensus; it pulls them back.",
    ),
    ("entropy", "How evenly a policy spreads over its actions, in nat; 0 means it always does the same."),
    ("episode", "One game of the world, from its start to victory, defeat or the limit of steps."),
    ("expired message", "A message that arrived older than consensus.max_age_s and was not averaged."),
    ("lockstep", "The world takes its next step when the actions of all live agents have arrived."),
    (
        "missed deadline",
        "An action that came too late for its step, replaced by the default action (realtime).",
    ),
    ("random policy", "Every action with the same probability."),
    ("realtime", "The world takes a step every period, whoever is late."),
    ("return", "Sum of the rewards that an agent collects in one episode."),
    ("staleness", "Age of a neighbour's parameters at the moment they are averaged."),
    (
        "TD error",
        "Difference between a critic's estimate and what it should be by the next estimate and the reward.",
    ),
    ("update", "One learning step of one agent on one batch of its experience."),
    ("virtual time", "The time in the simulated world; it does not depend on the machine that simulates."),
    ("wall time", "The time that the simulation really took."),
    ("world step", "One step of the world, in which every live agent acts once."),
)


def glossary(real: bool) -> tuple[tuple[str, str], ...]:
    """The words of a report; of a ``real`` run, those that have their usual meaning there are left out."""
    if not real:
        return GLOSSARY
    left_out = ("device", "virtual time", "wall time")
    return tuple((term, meaning) for term, meaning in GLOSSARY if term not in left_out)


@dataclass(frozen=True)
class Trend:
    """Means over the first and last ``window`` episodes of a run, and the last mean's standard error."""

    first: float
    last: float
    window: int
    error: float

    def is_above(self, value: float) -> bool:
        """Whether the last episodes lie above it by more than two standard errors."""
        return self.last - 2 * self.error > value


@dataclass(frozen=True)
class Tile:
    """One headline figure: a label, a number, and a line of context."""

    label: str
    value: str
    note: str


def trend(values: Sequence[float | None]) -> Trend | None:
    """Means over the first and last fifth of the episodes (at least one, at most 20); None of nothing."""
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    if numbers.size == 0:
        return None
    window = int(np.clip(numbers.size // 5, 1, 20))
    last = numbers[-window:]
    error = float(last.std(ddof=1) / math.sqrt(window)) if window > 1 else math.nan
    return Trend(float(numbers[:window].mean()), float(last.mean()), window, error)


def verdict(summary: Summary) -> list[str]:
    """Did it learn? In sentences, each with its numbers."""
    returns = trend(summary.return_mean_per_agent)
    if returns is None:
        return ["No episode has ended yet, so there is nothing to say about learning."]
    span = "episode" if returns.window == 1 else f"{returns.window} episodes"
    said = [
        f"The mean return per agent went from {number(returns.first)} (first {span}) to"
        f" {number(returns.last)} (last {span})."
    ]
    baseline = summary.baseline
    if baseline is None or baseline.return_mean_per_agent is None:
        return said
    difference = returns.last - baseline.return_mean_per_agent
    where = "above" if difference > 0 else "below" if difference < 0 else "equal to"
    doubt = ""
    if math.isnan(returns.error):
        doubt = "; one episode proves little"
    elif abs(difference) <= 2 * returns.error:
        doubt = ", but within two standard errors of it"
    said.append(f"That is {where} the random policy's {number(baseline.return_mean_per_agent)}{doubt}.")
    hits, kills = trend(summary.hits), trend(summary.kills)
    if hits is not None and kills is not None and baseline.hits is not None and baseline.kills is not None:
        said.append(
            f"In its last {span} it hit {number(hits.last)} times and killed {number(kills.last)} per"
            f" episode; the random policy hit {number(baseline.hits)} times and killed"
            f" {number(baseline.kills)}."
        )
        if returns.window > 1:
            said.append(
                _fight_verdict(difference > 0, hits.is_above(baseline.hits), kills.is_above(baseline.kills))
            )
    return said


def _fight_verdict(better: bool, more_hits: bool, more_kills: bool) -> str:
    if more_hits and more_kills:
        return "It hits and kills clearly more than the random policy: it fights."
    if better and not more_hits:
        return "It earns more without hitting clearly more: so far it saves the cost of attacks."
    if more_hits:
        return "It hits clearly more than the random policy, but does not clearly kill more."
    return "It does not clearly fight better than the random policy."


def tiles(summary: Summary) -> list[Tile]:
    """The headline figures."""
    made = []
    returns = trend(summary.return_mean_per_agent)
    baseline = summary.baseline
    if returns is not None:
        made.append(
            Tile(
                "return per agent", number(returns.last), _against(returns, baseline, "return_mean_per_agent")
            )
        )
    for name in ("hits", "kills"):
        found = trend(getattr(summary, name))
        if found is not None:
            made.append(Tile(f"{name} per episode", number(found.last), _against(found, baseline, name)))
    made.append(
        Tile(
            "agents",
            f"{summary.agents:,}",
            f"{summary.updates:,} updates, {number(summary.updates / max(1, summary.agents))} each",
        )
    )
    made.append(Tile("episodes", f"{summary.episodes:,}", f"{summary.env_steps:,} world steps"))
    made.append(
        Tile(
            "virtual time" if summary.clock == "virtual" else "time",
            duration(summary.virtual_time_s),
            f"in {duration(summary.wall_time_s)} of wall time" if summary.clock == "virtual" else "real",
        )
    )
    messages = summary.messages
    if messages.sent:
        made.append(
            Tile(
                "messages delivered",
                percent(messages.delivered, messages.total),
                f"of {messages.sent:,}, {bytes_text(summary.bytes_sent)}",
            )
        )
    if summary.clock == "virtual":
        joules = summary.energy_j / max(1, summary.agents)
        made.append(Tile("energy", energy_text(joules), "per device, mean"))
    return made


def _against(found: Trend, baseline: Any, name: str) -> str:
    random = getattr(baseline, name) if baseline is not None else None
    against = f", random policy {number(random)}" if random is not None else ""
    return f"at first {number(found.first)}{against}"


def comparison_rows(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """The key figures of several runs, side by side: (what, value of each run)."""

    def last(values: Sequence[float | None]) -> str:
        found = trend(values)
        return "-" if found is None else number(found.last)

    def of_random(summary: Summary, name: str) -> str:
        return "-" if summary.baseline is None else number(getattr(summary.baseline, name))

    rows: list[tuple[str, list[str]]] = [
        ("status", [s.status for s in summaries]),
        ("seed", [str(s.seed) for s in summaries]),
        ("agents", [f"{s.agents:,}" for s in summaries]),
        ("episodes", [f"{s.episodes:,}" for s in summaries]),
        ("updates", [f"{s.updates:,}" for s in summaries]),
        ("return per agent, last episodes", [last(s.return_mean_per_agent) for s in summaries]),
        ("... of the random policy", [of_random(s, "return_mean_per_agent") for s in summaries]),
        ("hits per episode, last episodes", [last(s.hits) for s in summaries]),
        ("... of the random policy", [of_random(s, "hits") for s in summaries]),
        ("kills per episode, last episodes", [last(s.kills) for s in summaries]),
        ("... of the random policy", [of_random(s, "kills") for s in summaries]),
        ("deaths per episode, last episodes", [last(s.deaths) for s in summaries]),
        ("disagreement at the end", [number(s.disagreement.last) for s in summaries]),
        ("messages sent", [f"{s.messages.sent:,}" for s in summaries]),
        ("messages delivered", [percent(s.messages.delivered, s.messages.total) for s in summaries]),
        ("staleness, median", [duration(s.staleness_s.p50) for s in summaries]),
        ("staleness, 95 % younger", [duration(s.staleness_s.p95) for s in summaries]),
        ("missed deadlines", [f"{s.missed_deadlines:,}" for s in summaries]),
        ("energy per device", [energy_text(s.energy_j / max(1, s.agents)) for s in summaries]),
        ("virtual time", [duration(s.virtual_time_s) for s in summaries]),
        ("wall time", [duration(s.wall_time_s) for s in summaries]),
    ]
    return [(what, *values) for what, values in rows if set(values) != {"-"}]


def flatten(scenario: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values, in order; lists of sections are numbered, other lists stay in one piece."""
    found: list[tuple[str, str]] = []
    for key, value in scenario.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found += flatten(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            found += flatten({str(i): item for i, item in enumerate(value)}, f"{name}.")
        else:
            found.append((name, _setting(value)))
    return found


def differing_settings(scenarios: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Keys in which scenarios differ, with each one's value ("-" where it has no such key)."""
    flat = [dict(flatten(scenario)) for scenario in scenarios]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    return [
        (key, *(one.get(key, "-") for one in flat)) for key in keys if len({one.get(key) for one in flat}) > 1
    ]


def _setting(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_setting(item) for item in value) + "]"
    return str(value) if not isinstance(value, Mapping) else "{}"


def number(value: float | None) -> str:
    """Whole numbers whole, others to three significant digits; thousands separated; "-" for nothing."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e9 or size < 1e-3:
        return f"{value:.2e}"
    if size >= 1 and value == round(value):
        return f"{round(value):,}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:,.{digits}f}"


def percent(part: float, whole: float) -> str:
    return "-" if whole == 0 else f"{100 * part / whole:.2f} %"


def duration(seconds: float | None) -> str:
    """A time span in the unit in which it is easiest to read."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return "0 s" if seconds == 0 else f"{seconds:.1e} s"


def energy_text(joules: float) -> str:
    for size, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ")):
        if joules >= size:
            return f"{number(joules / size)} {unit}"
    return "not measured" if math.isnan(joules) else f"{number(joules)} J"


def bytes_text(count: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{number(count / size)} {unit}"
    return f"{count:.0f} B"
