"""Trains the frozen opponent of battle by self-play: ``python -m f2a2_sim.opponents.train``.

The policy that ships with the package was made by the command in its metadata. A training of the same
settings and seed on the same machine gives the same policy; other machines may round differently.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError

from f2a2_sim.errors import F2A2Error, RunError
from f2a2_sim.interruption import interruption
from f2a2_sim.opponents.iql import SoftPolicy, save_opponent
from f2a2_sim.opponents.self_play import REMEMBERED_ROUNDS, RoundResult, SelfPlay, TrainSettings


class Interrupted(F2A2Error):
    """The training was stopped by SIGINT or SIGTERM; its checkpoint is written."""

    exit_code = 130


def train_opponent(
    settings: TrainSettings,
    out: Path,
    *,
    checkpoint_rounds: int = 100,
    on_round: Callable[[RoundResult], None] = lambda result: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SelfPlay:
    """Train, going on from ``OUT.checkpoint`` if there is one, and write the policy to ``out``.

    A checkpoint is written every ``checkpoint_rounds`` rounds and when ``should_stop`` says so (asked between
    rounds; raises Interrupted), and removed at the end. torch computes on one thread meanwhile, so that the
    result does not depend on the machine's cores. RunError if a file cannot be written.
    """
    checkpoint = out.with_name(out.name + ".checkpoint")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        play = SelfPlay(settings)
        if checkpoint.exists():
            play.load(checkpoint)
        while play.rounds_done < settings.rounds:
            on_round(play.play_round())
            if should_stop():
                play.save(checkpoint)
                raise Interrupted(
                    f"Stopped after round {play.rounds_done} of {settings.rounds}; "
                    f"the same command goes on from {checkpoint}."
                )
            if play.rounds_done % checkpoint_rounds == 0 and play.rounds_done < settings.rounds:
                play.save(checkpoint)
        policy = SoftPolicy(settings.play_epsilon, settings.play_temperature)
        save_opponent(
            out, play.layers(), policy, settings.negative_slope, _about(settings, list(play.recent))
        )
        checkpoint.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"--out {out}: cannot write there ({error}). Free space or give another path."
        ) from error
    finally:
        torch.set_num_threads(threads)
    return play


def train_opponent_command(
    out: Annotated[Path, typer.Option(help="Where to write the policy (.safetensors).")] = Path(
        "battle_iql.safetensors"
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Episodes of self-play.")] = TrainSettings.rounds,
    agents: Annotated[int, typer.Option(min=12, max=625, help="Units a side.")] = TrainSettings.agents,
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed gives the same policy.")
    ] = TrainSettings.seed,
    steps: Annotated[int, typer.Option(min=2, help="Longest round, in steps.")] = TrainSettings.steps,
    checkpoint_rounds: Annotated[int, typer.Option(min=1, help="Rounds between checkpoints.")] = 100,
    plain: Annotated[bool, typer.Option(help="A line per ten rounds in place of a bar.")] = False,
) -> None:
    """Train battle's frozen opponent by independent Q-learning in self-play.

    Ctrl-C writes a checkpoint beside OUT; the same command then goes on from it.
    """
    settings = TrainSettings(rounds=rounds, agents=agents, seed=seed, steps=steps)
    with interruption() as interrupted, _Reporter(settings.rounds, plain) as reporter:
        train_opponent(
            settings,
            out,
            checkpoint_rounds=checkpoint_rounds,
            on_round=reporter.report,
            should_stop=interrupted,
        )
    typer.echo(f"Wrote {out}. Play against it with world.opponent={out}")


class _Reporter:
    """Shows rounds as they end: a bar on a terminal, a line every tenth round with ``plain``."""

    def __init__(self, rounds: int, plain: bool) -> None:
        self._plain = plain
        self._recent: deque[RoundResult] = deque(maxlen=10)
        self._progress = Progress(
            TextColumn("round"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=plain,
        )
        self._task = self._progress.add_task("", total=rounds)

    def __enter__(self) -> _Reporter:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def report(self, result: RoundResult) -> None:
        self._recent.append(result)
        means = _means(list(self._recent))
        text = f"hits {means['hits']:.0f}  kills {means['kills']:.1f}  return {means['return_mean']:.2f}"
        self._progress.update(self._task, completed=result.round, description=text)
        if self._plain and result.round % 10 == 0:
            print(
                f"round {result.round}  {text}  steps {means['steps']:.0f}  loss {result.loss:.4f}",
                flush=True,
            )


def _means(results: list[RoundResult]) -> dict[str, float]:
    """Means over rounds; hits and kills of both armies together."""
    keys = ("hits", "kills", "return_mean", "steps")
    return {key: sum(float(getattr(r, key)) for r in results) / max(1, len(results)) for key in keys}


def _about(settings: TrainSettings, recent: list[RoundResult]) -> dict[str, str]:
    command = "python -m f2a2_sim.opponents.train"
    for key in ("rounds", "agents", "seed", "steps"):
        command += f" --{key} {getattr(settings, key)}"
    return {
        "world": "battle",
        "method": "independent Q-learning, self-play, parameters shared over both armies",
        "command": command,
        "rounds": str(settings.rounds),
        "seed": str(settings.seed),
        "settings": json.dumps(dataclasses.asdict(settings)),
        f"last_{REMEMBERED_ROUNDS}_rounds": json.dumps({k: round(v, 3) for k, v in _means(recent).items()}),
    }


def main() -> None:
    """Run the command, with errors for people."""
    try:
        typer.run(train_opponent_command)
    except F2A2Error as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
