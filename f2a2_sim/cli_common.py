"""What the commands of the command line have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from f2a2_sim.interruption import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from f2a2_sim.scenario.schema import Scenario

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Keys of the scenario to change, dotted: world.agents=64 devices.fleet.0.share=0.5 "
        "consensus.scheme=gossip",
        show_default=False,
    ),
]
ScenarioName = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A YAML file, or a name that `f2a2-sim scenarios` lists.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]


def checked(path_or_name: str, overrides: list[str], must_fit_here: bool = False) -> Scenario:
    """The scenario, loaded and found feasible (with ``must_fit_here`` also in this machine's memory).

    Advice about it is printed.
    """
    import psutil

    from f2a2_sim.scenario.advice import advice
    from f2a2_sim.scenario.check import check_scenario
    from f2a2_sim.scenario.load import load_with_source

    scenario, source = load_with_source(path_or_name, overrides)
    check_scenario(scenario, source, psutil.virtual_memory().total if must_fit_here else None)
    for sentence in advice(scenario):
        complain(f"warning: {sentence}", style="yellow")
    return scenario


def end_if_interrupted(status: str, folder: Path, how_to_go_on: str | None = None) -> None:
    if status == "interrupted":
        how = how_to_go_on or f"f2a2-sim resume {folder}"
        complain(f"interrupted; a checkpoint was written. Go on with: {how}")
        raise typer.Exit(EXIT_INTERRUPTED)


def complain(message: str, style: str = "red") -> None:
    Console(stderr=True).print(
        f"f2a2-sim: {message}", style=style, markup=False, highlight=False, soft_wrap=True
    )


