"""Commands that compare the simulator with reality: calibrate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2a2_sim.cli_common import Overrides, ScenarioName, checked
from f2a2_sim.errors import UsageError

if TYPE_CHECKING:
    from f2a2_sim.deployment.calibrate import Calibration
    from f2a2_sim.deployment.keyring import Keys
    from f2a2_sim.scenario.schema import Scenario


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command()(calibrate)
    app.command()(compare)


def calibrate(
    scenario: ScenarioName,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the profiles there as YAML.")
    ] = None,
    write_scenario: Annotated[
        Path | None,
        typer.Option(
            "--write-scenario", metavar="FILE", help="Write the whole scenario with these profiles there."
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the profiles are called.")] = "measured",
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Measure nothing: take what the agents of a deployed run got."
        ),
    ] = None,
    add_to_link: Annotated[
        bool,
        typer.Option(
            "--add-to-link",
            help="With --from: the delay on top of the scenario's own link, to predict --emulate-network.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of one agent.")] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="How long to measure the device, and again the link.")
    ] = 20.0,
    beside: Annotated[
        int, typer.Option("--beside", min=1, help="Agents that compute at the same time on this machine.")
    ] = 1,
    jitter: Annotated[
        bool, typer.Option("--jitter", help="Write the spread of computing times, too.")
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="ENDPOINT", help="Only answer the other end: tcp://IP:PORT."),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option("--connect", metavar="ENDPOINT", help="Measure the link to the end that listens there."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FOLDER", help="Keys: world listens, agent 0 connects."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No keys, no encryption; on this machine's loopback only.")
    ] = False,
) -> None:
    """Measure this machine and its links for a scenario's learner, and write profiles for scenarios.

    [bold]Examples[/bold]

      f2a2-sim calibrate battle_16 --out here.yaml

      f2a2-sim calibrate battle_16 --listen tcp://192.168.1.10:5701 --keys keys      (one machine)

      f2a2-sim calibrate battle_16 --connect tcp://192.168.1.10:5701 --keys keys     (the other)

      f2a2-sim launch battle_16 duration.episodes=3 --out rehearsal

      f2a2-sim calibrate battle_16 --from rehearsal --write-scenario battle_16_here.yaml
    """
    from f2a2_sim.deployment import calibrate as calibration

    loaded = checked(scenario, overrides or [])
    modes = [option for option in (from_run, listen, connect) if option is not None]
    if len(modes) > 1:
        raise UsageError("--from, --listen and --connect exclude each other: give one of them")
    if listen is not None:
        _listen(listen, keys, insecure)
        return
    if from_run is not None:
        found = calibration.calibrate_from(from_run, name)
        if add_to_link:
            found = calibration.added_to_link(found, loaded)
    elif connect is not None:
        found = _connect(loaded, connect, keys, insecure, seconds, name)
    else:
        found = calibration.calibrate_device(loaded, name, threads, seconds, beside, jitter)
        found = _with_localhost(loaded, found, insecure, seconds)
    found.write(out, write_scenario, loaded)
    if out is None:
        typer.echo(found.text())
    else:
        typer.echo("\n".join(found.notes))
    for path in (out, write_scenario):
        if path is not None:
            typer.echo(f"Written: {path}")


def compare(
    run_sim: Annotated[Path, typer.Argument(metavar="RUN_SIM", help="Folder of a simulated run.")],
    run_real: Annotated[Path, typer.Argument(metavar="RUN_REAL", help="Folder of a deployed run.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page that is written.")] = Path(
        "compare.html"
    ),
) -> None:
    """Set a simulated and a real run side by side, with the error of the prediction.

    [bold]Example[/bold]

      f2a2-sim compare runs/simulated runs/real --out compare.html
    """
    from rich.console import Console

    from f2a2_sim.deployment.prediction import compare_runs, terminal_table, write_page

    found = compare_runs(run_sim, run_real)
    Console().print(terminal_table(found))
    typer.echo(f"Page: {write_page(found, out)}")


def _listen(endpoint: str, keys: Path | None, insecure: bool) -> None:
    from f2a2_sim.deployment.linkbench import answer
    from f2a2_sim.interruption import interruption
    from network.keys import WORLD

    with interruption() as interrupted:
        answer(
            endpoint,
            _key_holder(keys, insecure).security(WORLD),
            interrupted,
            lambda bound: typer.echo(f"listening at {bound}; the other end ends this"),
        )


def _connect(
    loaded: Scenario, endpoint: str, keys: Path | None, insecure: bool, seconds: float, name: str
) -> Calibration:
    from f2a2_sim.deployment.bench import AgentWork
    from f2a2_sim.deployment.calibrate import calibrate_link
    from f2a2_sim.deployment.linkbench import measure_link
    from network.keys import agent_name

    size = AgentWork(loaded).message_bytes
    if size == 0:
        raise UsageError(f"--connect {endpoint}: agents of this scenario send each other nothing to measure")
    security = _key_holder(keys, insecure).security(agent_name(0))
    return calibrate_link(measure_link(endpoint, security, size, seconds), name, f"to {endpoint}")


def _with_localhost(loaded: Scenario, device: Calibration, insecure: bool, seconds: float) -> Calibration:
    from f2a2_sim.deployment.bench import AgentWork
    from f2a2_sim.deployment.calibrate import calibrate_link, together
    from f2a2_sim.deployment.linkbench import measure_localhost

    size = AgentWork(loaded).message_bytes
    if not size:
        return device
    bench = measure_localhost(size, min(seconds, 10.0), insecure)
    return together(device, calibrate_link(bench, device.name, "between two processes of this machine"))


def _key_holder(keys: Path | None, insecure: bool) -> Keys:
    from f2a2_sim.deployment.keyring import Keys

    if (keys is None) != insecure:
        raise UsageError(
            "--keys and --insecure contradict each other: give one of them"
            if insecure
            else "--keys FOLDER is missing: make keys with f2a2-sim keys FOLDER --agents N, or, on one "
            "machine, say --insecure"
        )
    return Keys(keys)
