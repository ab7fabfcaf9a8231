"""Where the wall time of a run goes, and what it needs: `magent_256` unless another scenario is named.

    python -m benchmarks.overhead [SCENARIO] [key=value ...] [--threads 2]

A real run into a temporary folder, without checkpoints on the way; the figures are those of its summary.json.
Overhead is all that is neither the world nor the learners' arithmetic (acting, remembering, updating).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from f2a2_sim.api import run
from f2a2_sim.results.summary import Summary
from f2a2_sim.scenario.load import load_scenario


def table(summary: Summary) -> Table:
    parts = summary.wall_breakdown_s.model_dump()
    total = sum(parts.values())
    out = Table(
        title=f"{summary.scenario}, {summary.agents} agents: {summary.env_steps} steps, "
        f"{summary.updates} updates, {summary.messages.sent} messages in {total:.0f} s"
    )
    out.add_column("part")
    out.add_column("seconds", justify="right")
    out.add_column("share", justify="right")
    for name, seconds in parts.items():
        out.add_row(name, f"{seconds:.1f}", f"{seconds / total:.1%}")
    overhead = total - parts["world"] - parts["learning"]
    out.add_section()
    out.add_row("overhead", f"{overhead:.1f}", f"{overhead / total:.1%}")
    out.add_row("peak memory", f"{summary.peak_memory_bytes / 2**30:.2f} GiB", "")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", nargs="?", default="magent_256")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    defaults = ["duration.episodes=3", "record.baseline_episodes=0", "checkpoint.every_wall_s=1e9"]
    scenario = load_scenario(arguments.scenario, [*defaults, *arguments.overrides])
    with tempfile.TemporaryDirectory() as folder:
        result = run(scenario, Path(folder) / "run", threads=arguments.threads)
    Console().print(table(result.summary))


if __name__ == "__main__":
    main()
