"""Commands of the deployment: keys, world, agent, launch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2a2_sim.cli_common import Overrides, QuietOption, ScenarioName, checked, end_if_interrupted

if TYPE_CHECKING:
    from f2a2_sim.deployment.keyring import Keys
    from f2a2_sim.results.folder import RunFolder
    from f2a2_sim.results.summary import Summary

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder of the run, new or empty; default runs/SCENARIO-TIME.")
]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FOLDER", help="Folder with this role's key and members.json."),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No keys, no encryption; on this machine's loopback only.")
]


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command()(keys)
    app.command()(world)
    app.command()(agent)
    app.command()(launch)


def world(
    scenario: ScenarioName,
    overrides: Overrides = None,
    bind: Annotated[
        str, typer.Option("--bind", metavar="ENDPOINT", help="Where agents reach it: tcp://IP:PORT.")
    ] = "tcp://127.0.0.1:5700",
    keys: KeysOption = None,
    insecure: InsecureOption = False,
    out: OutOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="SCENARIO is the folder of a run whose world goes on.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Host a scenario's world for agents on real machines, and write the run's folder.

    [bold]Example[/bold]

      f2a2-sim keys keys --agents 16

      f2a2-sim world battle_16 --bind tcp://192.168.1.10:5700 --keys keys
    """
    from f2a2_sim.deployment.launch import host_world, host_world_again

    if resume:
        _nothing_beside_resume(overrides=overrides, out=out)
        folder, summary = host_world_again(Path(scenario), bind, _keys(keys, insecure), progress=not quiet)
    else:
        folder, summary = host_world(
            checked(scenario, overrides or []), bind, _keys(keys, insecure), out, progress=not quiet
        )
    where = "--insecure" if keys is None else f"--keys {keys}"
    _finish(folder, summary, f"f2a2-sim world {folder.path} --resume --bind {bind} {where}")


def agent(
    world: Annotated[str, typer.Option("--world", metavar="ENDPOINT", help="The world: tcp://IP:PORT.")],
    number: Annotated[
        list[int], typer.Option("--id", min=0, help="The agent's number; again for more agents.")
    ],
    bind: Annotated[
        str, typer.Option("--bind", metavar="ENDPOINT", help="Where it listens to its peers: tcp://IP:PORT.")
    ] = "tcp://127.0.0.1:*",
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="ENDPOINT", help="Where peers reach it, if not where it listens (NAT)."
        ),
    ] = None,
    keys: KeysOption = None,
    insecure: InsecureOption = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Its checkpoints, which it goes on from; default runs/agent-N-RUN."),
    ] = None,
    join_timeout_s: Annotated[
        float, typer.Option("--join-timeout-s", min=0.1, help="Longest wait for the world.")
    ] = 60.0,
    world_timeout_s: Annotated[
        float,
        typer.Option("--world-timeout-s", min=1.0, help="It ends when it has heard nothing for so long."),
    ] = 300.0,
    emulate_network: Annotated[
        bool,
        typer.Option("--emulate-network", help="Lose and delay messages as the scenario's links do."),
    ] = False,
) -> None:
    """Be one agent on this machine: it learns here, and exchanges with its peers directly.

    Started again with the same --out after a crash, it goes on from its checkpoint.

    [bold]Example[/bold]

      f2a2-sim agent --world tcp://192.168.1.10:5700 --id 3 --bind tcp://0.0.0.0:5703 --keys keys
    """
    from f2a2_sim.deployment.agent import AgentOptions
    from f2a2_sim.deployment.launch import take_part

    options = AgentOptions(
        number[0], world, bind, address, out, join_timeout_s, world_timeout_s, emulate_network
    )
    for one, why in sorted(take_part(number, options, _keys(keys, insecure)).items()):
        typer.echo(f"agent {one}: {why}")


def launch(
    scenario: ScenarioName,
    overrides: Overrides = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="Processes for the agents; default one each, at most 16."),
    ] = None,
    insecure: InsecureOption = False,
    emulate_network: Annotated[
        bool,
        typer.Option("--emulate-network", help="Lose and delay messages as the scenario's links do."),
    ] = False,
    out: OutOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="SCENARIO is the folder of a launched run that goes on.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Start a scenario's world and all its agents as real processes on this machine.

    [bold]Example[/bold]

      f2a2-sim launch battle_16 --processes 4
    """
    from f2a2_sim.deployment.launch import launch as start
    from f2a2_sim.deployment.launch import launch_again

    if resume:
        _nothing_beside_resume(overrides=overrides, out=out, insecure=insecure)
        folder, summary = launch_again(Path(scenario), processes, emulate_network, progress=not quiet)
    else:
        loaded = checked(scenario, overrides or [])
        folder, summary = start(loaded, processes, out, insecure, emulate_network, progress=not quiet)
    _finish(folder, summary, f"f2a2-sim launch --resume {folder.path}")


def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write them; new or empty.")],
    agents: Annotated[int, typer.Option("--agents", min=1, max=100_000, help="How many agents there are.")],
) -> None:
    """Make the keys of a deployment: a secret file for the world and for each agent, and a list of members.

    [bold]Example[/bold]

      f2a2-sim keys deployment-keys --agents 4

    Keys are never overwritten: for new ones name another folder, and copy the files again.
    """
    from network.keys import WORLD, agent_name, make_keys

    members = make_keys(folder, [WORLD, *(agent_name(number) for number in range(agents))])
    last = folder / f"{agent_name(agents - 1)}.key"
    typer.echo(
        f"{members}: the list of members; copy it to every machine\n"
        f"{folder / WORLD}.key: only to the machine of the world\n"
        f"{folder / agent_name(0)}.key to {last.name}: each only to the machine of its agent\n"
        "Copy with their mode (cp -p, scp -p), over a channel that you trust; then delete the secrets here."
    )


def _nothing_beside_resume(overrides: list[str] | None, out: Path | None, insecure: bool = False) -> None:
    """UsageError for what a run that goes on has already."""
    from f2a2_sim.errors import UsageError

    said = [*(overrides or []), *([f"--out {out}"] if out is not None else []), *(["--insecure"] * insecure)]
    if said:
        raise UsageError(f"{said[0]}: a run that goes on keeps its settings, folder and keys; leave it out")


def _keys(folder: Path | None, insecure: bool) -> Keys:
    from f2a2_sim.deployment.keyring import Keys
    from f2a2_sim.errors import UsageError

    if folder is None and not insecure:
        raise UsageError(
            "--keys FOLDER is missing: make keys with f2a2-sim keys FOLDER --agents N, or, on one machine, "
            "say --insecure"
        )
    if folder is not None and insecure:
        raise UsageError("--insecure and --keys contradict each other: give one of them")
    return Keys(folder)


def _finish(folder: RunFolder, summary: Summary, how_to_go_on: str) -> None:
    end_if_interrupted(summary.status, folder.path, how_to_go_on)
    typer.echo(f"Run folder: {folder.path}\nReport:     {folder.report_file}")
