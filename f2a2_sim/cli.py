"""The command line, ``f2a2-sim``; a command imports what it needs itself, so that help is quick."""

from __future__ import annotations

import tempfile
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from f2a2_sim import __version__, cli_calibration
from f2a2_sim.cli_common import (
    Overrides,
    QuietOption,
    ScenarioName,
    checked,
    complain,
    end_if_interrupted,
)
from f2a2_sim.cli_deployment import add_commands
from f2a2_sim.errors import F2A2Error, UsageError
from f2a2_sim.interruption import EXIT_INTERRUPTED
from network.errors import NetworkSpecError

if TYPE_CHECKING:
    from f2a2_sim.api import RunResult
    from f2a2_sim.baseline_run.session import BaselineResult

EXIT_FAILED = 1

_HELP = """
Simulate decentralised multi-agent reinforcement learning: every agent learns on a modelled device, and agrees
with its neighbours over a modelled network, in virtual time.

[bold]Start here[/bold]

  f2a2-sim scenarios                        what is shipped
  f2a2-sim run quickstart                   a run of some seconds
  f2a2-sim run magent_256 world.agents=64   one with a key changed
  f2a2-sim validate my.yaml                 check a file of your own

A run is a folder. If it was stopped (Ctrl-C, a kill, a power cut), go on with: f2a2-sim resume FOLDER.

Exit status: 0 done, 1 failed, 2 wrong usage or scenario, 130 interrupted.
"""


class ComputeDevice(StrEnum):
    """Where the learners' arithmetic is done; has no influence on simulated time."""

    cpu = "cpu"
    cuda = "cuda"


class Catalogue(StrEnum):
    """What `profiles` lists."""

    devices = "devices"
    links = "links"


class _Commands(TyperGroup):
    """Turns the project's errors into a message and an exit status, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except F2A2Error as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except NetworkSpecError as error:
            complain(str(error))
            raise typer.Exit(UsageError.exit_code) from error
        except KeyboardInterrupt as error:
            complain("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except BrokenPipeError as error:
            raise typer.Exit(EXIT_FAILED) from error
        except Exception as error:
            if ctx.params.get("debug") or _is_of_typer(error):
                raise
            complain(f"internal error: {type(error).__name__}: {error}\n{_where_logged()}")
            raise typer.Exit(EXIT_FAILED) from error


_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    cls=_Commands,
    help=_HELP,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_HELP_OPTIONS,
)

RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
DeviceOption = Annotated[
    ComputeDevice, typer.Option("--device", help="Where the learners' arithmetic is done.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="CPU threads of the arithmetic; results are equal bit for bit only at an equal number.",
    ),
]
Checkpoint = Annotated[
    int | None,
    typer.Option("--checkpoint", min=1, help="Number of a checkpoint that is kept; default the newest."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"f2a2-sim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of internal errors.")] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def run(
    scenario: ScenarioName,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the run, new or empty; default runs/SCENARIO-TIME."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Same as seed=N.")] = None,
    device: DeviceOption = ComputeDevice.cpu,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario, and write its folder: metrics, checkpoints, summary and report.

    [bold]Examples[/bold]

      f2a2-sim run quickstart

      f2a2-sim run magent_256 duration.episodes=5 --seed 2 --out runs/short

      f2a2-sim run my.yaml world.opponent=iql network.topology.kind=complete

    Ctrl-C writes a checkpoint and ends with status 130; go on with `f2a2-sim resume FOLDER`.
    """
    from f2a2_sim import api

    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    loaded = checked(scenario, given, must_fit_here=device is ComputeDevice.cpu)
    _finish(api.run(loaded, out=out, device=device.value, threads=threads, progress=not quiet))


@app.command()
def baseline(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The learner: maac, maddpg, coma, ma_ac or iql.")
    ],
    world: Annotated[str, typer.Argument(metavar="WORLD", help="The world: ctc or rover_tower.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of the learner to change: batch_size=512 rollouts=4",
            show_default=False,
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option("--episodes", min=1, help="Episodes, in whole batches of parallel ones.")
    ] = 50_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="All randomness follows from it.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the training, new or empty; default runs/NAME-WORLD-TIME."),
    ] = None,
    device: DeviceOption = ComputeDevice.cpu,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a baseline with central training, and write its curves: no devices, no network, no virtual time.

    [bold]Examples[/bold]

      f2a2-sim baseline maac rover_tower --episodes 2000 --out runs/maac-rt

      f2a2-sim baseline maddpg ctc learning_rate=5e-4 --seed 2

    Ctrl-C writes a checkpoint and ends with status 130; go on with `f2a2-sim resume FOLDER`.
    """
    from f2a2_sim.baseline_run.session import train
    from f2a2_sim.baseline_run.settings import BaselineSettings

    settings = BaselineSettings.of(name, world, overrides or [], episodes, seed)
    _finish_baseline(train(settings, out, device.value, threads, progress=not quiet))


@app.command()
def sweep(
    scenario: ScenarioName,
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=V1,V2", help="Values of a key to try; may be given again."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="1-3", help="Seeds of every combination: 1-3 or 1,2,5.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the runs' folders; default runs/SCENARIO-sweep.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at the same time.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of each run.")] = 1,
    quiet: QuietOption = False,
) -> None:
    """Run every combination of some values and seeds, and write a page that compares them.

    [bold]Example[/bold] (six runs, two at a time)

      f2a2-sim sweep quickstart --vary consensus.scheme=paper,gossip --seeds 1-3 --jobs 2

    The same command again skips runs that are finished and resumes those that are not.
    """
    from f2a2_sim import sweep as sweeps
    from f2a2_sim.scenario.load import find_scenario

    folder = out if out is not None else Path("runs") / f"{find_scenario(scenario).stem}-sweep"
    numbers = [] if seeds is None else sweeps.parse_seeds(seeds)
    points = sweeps.plan(overrides or [], vary or [], numbers, folder)
    sweeps.check(scenario, points)
    page = sweeps.run_sweep(scenario, points, folder, jobs, threads, quiet)
    if page is None:
        complain(f"interrupted; go on by giving the same command again. Runs so far: {folder}")
        raise typer.Exit(EXIT_INTERRUPTED)
    typer.echo(f"Runs:   {folder}\nReport: {page}")


@app.command()
def resume(
    run_dir: RunDir,
    checkpoint: Checkpoint = None,
    device: DeviceOption = ComputeDevice.cpu,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with an interrupted or killed run, or a baseline's training, from its newest whole checkpoint.

    The finished run equals one that was never stopped, bit for bit (same machine, same --threads).
    """
    from f2a2_sim.results.folder import BaselineFolder

    if BaselineFolder.holds_one(run_dir):
        from f2a2_sim.baseline_run.session import go_on

        _finish_baseline(go_on(run_dir, device.value, threads, not quiet, checkpoint))
        return
    from f2a2_sim import api

    _finish(
        api.resume(run_dir, device=device.value, threads=threads, progress=not quiet, checkpoint=checkpoint)
    )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Page that compares two runs or more; default comparison.html beside them."
        ),
    ] = None,
) -> None:
    """Write report.html of each run again, also of one that is unfinished; of several also a comparison.

    [bold]Example[/bold]

      f2a2-sim report runs/paper runs/gossip --out paper-or-gossip.html
    """
    from f2a2_sim.results.report import write_comparison, write_report

    for run_dir in runs:
        typer.echo(write_report(run_dir))
    if len(runs) > 1:
        typer.echo(write_comparison(runs, out if out is not None else runs[0].parent / "comparison.html"))


@app.command()
def validate(scenario: ScenarioName, overrides: Overrides = None) -> None:
    """Check a scenario without running it: keys, types, ranges, the graph, and the devices' memory.

    Lists every problem with its line; ends with status 2 if there is one.
    """
    loaded = checked(scenario, overrides or [])
    typer.echo(f"{scenario}: a valid scenario ({loaded.name}, seed {loaded.seed})")


@app.command()
def profiles(
    what: Annotated[Catalogue | None, typer.Argument(help="List only these.")] = None,
    name: Annotated[str | None, typer.Argument(help="Show one, with every figure and its source.")] = None,
) -> None:
    """List the catalogue of devices and links, with their figures and sources.

    [bold]Examples[/bold]

      f2a2-sim profiles

      f2a2-sim profiles devices raspberry_pi_5
    """
    from f2a2_sim.scenario import catalogue

    console = Console()
    if name is not None and what is not None:
        show_one = catalogue.device_details if what is Catalogue.devices else catalogue.link_details
        console.print(show_one(name))
        return
    if what in (None, Catalogue.devices):
        console.print(catalogue.device_table())
    if what in (None, Catalogue.links):
        console.print(catalogue.link_table())


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenarios, for completion and checks in editors.

    [bold]Example[/bold] (VS Code and others read the first line of a YAML file)

      f2a2-sim schema > scenario.schema.json

      # yaml-language-server: $schema=scenario.schema.json
    """
    import json

    from f2a2_sim.scenario.schema import scenario_json_schema

    typer.echo(json.dumps(scenario_json_schema(), indent=2))


@app.command()
def scenarios() -> None:
    """List the scenarios that come with the package; `run` and `validate` take their names."""
    from f2a2_sim.scenario.catalogue import scenario_table

    Console().print(scenario_table())


@app.command()
def trace(run_dir: RunDir) -> None:
    """Write the timeline of a run as trace.json, to open in ui.perfetto.dev or chrome://tracing."""
    from f2a2_sim.results.trace import write_trace

    typer.echo(write_trace(run_dir))


@app.command()
def replay(
    run_dir: RunDir,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file, .gif or .mp4 (extra `video`); default RUN/replay.gif."),
    ] = None,
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which episode is played.")] = 0,
    fps: Annotated[int, typer.Option("--fps", min=1, max=60, help="Steps a second.")] = 12,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Stop after so many steps.")] = None,
) -> None:
    """Play an episode with the policies of a run's checkpoint, as a film; needs no screen."""
    from f2a2_sim.results.replay import write_replay

    typer.echo(write_replay(run_dir, out, checkpoint=checkpoint, seed=seed, fps=fps, max_steps=steps))


@app.command(
    "train-opponent",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def train_opponent(context: typer.Context) -> None:
    """Train battle's frozen opponent by self-play (world.opponent: iql); see its own --help."""
    from f2a2_sim.opponents.train import train_opponent_command

    command = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings=_HELP_OPTIONS
    )
    command.command()(train_opponent_command)
    command(args=context.args, prog_name="f2a2-sim train-opponent", standalone_mode=False)


add_commands(app)
cli_calibration.add_commands(app)


def main() -> None:
    """Entry point of the installed command."""
    app(prog_name="f2a2-sim")


def _finish(result: RunResult) -> None:
    """Say where the results are; an interrupted run ends with its own status."""
    end_if_interrupted(result.status, result.folder)
    typer.echo(f"Run folder: {result.folder}\nReport:     {result.folder / 'report.html'}")


def _finish_baseline(result: BaselineResult) -> None:
    """Say where the results are, and what was reached."""
    summary = result.summary
    end_if_interrupted(summary.status, result.folder)
    typer.echo(
        f"Folder: {result.folder}\nReturn per agent, mean of the last {summary.last_episodes:,} episodes:"
        f" {summary.return_mean_per_agent:.2f}"
    )


def _is_of_typer(error: Exception) -> bool:
    """Whether typer turns the error into a message or a status; it may bring its own click."""
    return isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "format_message")


def _where_logged() -> str:
    """Keep the traceback of an internal error in a file, and say where."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="f2a2-sim-", suffix=".log", delete=False) as log:
            log.write(traceback.format_exc())
    except OSError:
        return "run again with `f2a2-sim --debug ...` to see the traceback"
    return f"the traceback is in {log.name}; please report it"


if __name__ == "__main__":
    main()
