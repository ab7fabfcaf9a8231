"""Running scenarios from Python: what the command line does, as functions that return results.

from f2a2_sim import load_scenario, run
result = run(load_scenario("magent_256", ["duration.episodes=2"]))
print(result.summary.return_mean_per_agent, result.folder)
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from f2a2_sim.compute import prepare_torch
from f2a2_sim.errors import UsageError
from f2a2_sim.interruption import interruption
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.progress import Progress, make_progress
from f2a2_sim.results.recorder import Recorder, RowListener
from f2a2_sim.results.report import write_report
from f2a2_sim.results.summary import Baseline, Status, Summary, build_summary
from f2a2_sim.results.tables import DEVICES, LINKS, METRICS, Columns
from f2a2_sim.results.tensorboard import TensorBoard
from f2a2_sim.scenario.check import check_scenario
from f2a2_sim.scenario.load import dump_scenario, load_with_source
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.baseline import measure_random_policy
from f2a2_sim.simulator.build import build
from f2a2_sim.simulator.checkpoint import (
    find_checkpoint,
    is_due,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from f2a2_sim.simulator.simulation import Simulation
from f2a2_sim.simulator.stopwatch import Stopwatch

_EVENTS_BETWEEN_LOOKS = 64
_WITHOUT_EFFECT = ("duration", "checkpoint", "deployment")  # on what a run comes to, as far as it goes
_SHARE_OF_SAVING = 0.02  # of a run's real time, at most, where every_wall_s says when


@dataclass(frozen=True)
class RunResult:
    """What a run left behind; ``status`` is "finished" or "interrupted"."""

    folder: Path
    summary: Summary

    @property
    def status(self) -> str:
        return self.summary.status

    def metrics(self) -> Columns:
        """Columns of ``metrics.parquet``."""
        return RunFolder.open(self.folder).read_table(METRICS)


def run(
    scenario: Scenario,
    out: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = False,
) -> RunResult:
    """Run a scenario into a new folder (``out``, or ``runs/<name>-<time>``).

    ``device`` is where learning is computed (cpu or cuda), ``threads`` how many cores it may use.
    Raises ScenarioError for what cannot be run, before anything is written, and RunError if the run has
    to stop. An interruption (SIGINT, SIGTERM) saves a checkpoint and returns with status "interrupted".
    """
    torch_device = prepare_torch(device, threads)
    check_scenario(scenario)
    folder = RunFolder.create(scenario.name, out)
    with folder.lock():
        folder.write_scenario(dump_scenario(scenario))
        run_id = run_identity(scenario.model_dump(mode="json"))  # as scenario.yaml reads
        return _Session(scenario, folder, run_id, torch_device, progress).run_new()


def resume(
    run_dir: Path,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = False,
    checkpoint: int | None = None,
) -> RunResult:
    """Go on with a run that was interrupted or killed, from its newest checkpoint (or that number).

    On the same machine with the same number of threads, what it ends with equals, bit for bit, what it
    would have ended with undisturbed. Raises CheckpointError for a checkpoint that is damaged or foreign.
    """
    torch_device = prepare_torch(device, threads)
    folder = RunFolder.open(run_dir)
    scenario, source = load_with_source(folder.scenario_file)
    with folder.lock():
        run_id = run_identity(source.data)
        return _Session(scenario, folder, run_id, torch_device, progress).run_on(checkpoint)


def run_identity(written: Mapping[str, Any]) -> str:
    """A fingerprint of what a run's results depend on, from the keys of its ``scenario.yaml``.

    Only what is written there counts. A key that a later version of the package has added is not, so a run
    from before can go on, with that key's default.
    """
    fields = {key: value for key, value in written.items() if key not in _WITHOUT_EFFECT}
    return hashlib.sha256(repr(sorted(_flatten(fields))).encode()).hexdigest()[:32]


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flatten(item, f"{path}[{index}]")
    else:
        yield path, repr(value)


class _Session:
    """One process's share of a run: from its start, or a checkpoint, to its end or an interruption."""

    def __init__(
        self, scenario: Scenario, folder: RunFolder, run_id: str, device: torch.device, progress: bool
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._device = device
        self._run_id = run_id
        self._baseline: Baseline | None = None
        self._display: Progress = make_progress(scenario, folder, enabled=progress)
        self._resources = ExitStack()
        self._next_checkpoint = 1
        self._checkpointed_episode = 0

    def run_new(self) -> RunResult:
        with self._display, self._resources, interruption(give_up_at_second=True) as interrupted:
            self._display.on_event("measuring the random policy")
            self._baseline = measure_random_policy(self._scenario)
            simulation = self._simulation(resumed_at=None)
            simulation.start()
            return self._go_on(simulation, interrupted)

    def run_on(self, number: int | None) -> RunResult:
        checkpoint = find_checkpoint(self._folder, number)
        with self._display, self._resources, interruption(give_up_at_second=True) as interrupted:
            self._display.on_event(f"reading {checkpoint.path}")
            state = read_checkpoint(self._folder, checkpoint, self._run_id)
            ended = state["simulation"]["ended"]
            if ended is not None:
                raise UsageError(
                    f"{self._folder.path}: this run has finished ({ended}); there is nothing to resume."
                    f" Its report is {self._folder.report_file}"
                )
            self._baseline = Baseline(**state["baseline"]) if state["baseline"] is not None else None
            simulation = self._simulation(resumed_at=int(state["simulation"]["episodes"]["env_steps"]))
            simulation.load_state(state["simulation"])
            self._next_checkpoint = list_checkpoints(self._folder)[-1].number + 1
            self._checkpointed_episode = simulation.episode
            self._log(simulation, f"resumed from {checkpoint.path.name}")
            return self._go_on(simulation, interrupted)

    def _simulation(self, resumed_at: int | None) -> Simulation:
        record = self._scenario.record
        listeners: list[RowListener] = [self._display]
        if record.tensorboard:
            board = TensorBoard(self._folder, resumed_at)
            self._resources.callback(board.close)
            listeners.append(board)
        recorder = Recorder(record.timeline_agents, record.timeline_events, listeners)
        parts = build(self._scenario, self._device, resuming=resumed_at is not None)
        simulation: Simulation
        simulation = Simulation(parts, recorder, Stopwatch(), lambda text: self._log(simulation, text))
        self._display.baseline(self._baseline)
        return simulation

    def _go_on(self, simulation: Simulation, interrupted: Callable[[], bool]) -> RunResult:
        duration = self._scenario.duration
        saved_at, save_s = time.monotonic(), 0.0
        events = 0
        while simulation.ended is None and not interrupted():
            simulation.step()
            events += 1
            if events % _EVENTS_BETWEEN_LOOKS:
                continue
            if duration.wall_time_s is not None and simulation.stopwatch.total_s() >= duration.wall_time_s:
                simulation.stop("the limit of wall time is reached")
            elif self._checkpoint_is_due(simulation, time.monotonic() - saved_at, save_s):
                began_at = time.monotonic()
                self._save(simulation)
                save_s = time.monotonic() - began_at
                if simulation.recorder.last_row is not None:
                    self._write_results(simulation, "running", simulation.recorder.last_row)
                saved_at = time.monotonic()
        return self._finish(simulation)

    def _checkpoint_is_due(self, simulation: Simulation, passed_s: float, save_s: float) -> bool:
        """Whether it is, ``passed_s`` after the last one, which took ``save_s``."""
        episodes = simulation.episode - self._checkpointed_episode
        return is_due(self._scenario.checkpoint, passed_s, episodes, least_s=save_s / _SHARE_OF_SAVING)

    def _save(self, simulation: Simulation) -> None:
        """A checkpoint; of a run that is over only its policies, a tenth of the whole."""
        over = simulation.ended is not None
        state = {
            "simulation": simulation.final_state() if over else simulation.state(),
            "baseline": None if self._baseline is None else self._baseline.model_dump(),
        }
        path = write_checkpoint(
            self._folder, self._next_checkpoint, state, self._run_id, self._scenario.checkpoint.keep
        )
        self._next_checkpoint += 1
        self._checkpointed_episode = simulation.episode
        self._log(simulation, f"checkpoint {path.name}")

    def _finish(self, simulation: Simulation) -> RunResult:
        status: Status = "interrupted" if simulation.ended is None else "finished"
        self._log(simulation, simulation.ended or "interrupted")
        self._display.on_event("saving")
        self._save(simulation)
        summary = self._write_results(simulation, status, simulation.metrics())
        write_report(self._folder.path)
        return RunResult(self._folder.path, summary)

    def _write_results(self, simulation: Simulation, status: Status, totals: Mapping[str, Any]) -> Summary:
        """All tables as they are now, and the summary with ``totals`` for its present values.

        While a run goes on those are its last row's: taking new ones would carry out consensus steps that
        were put off, and so let the moment of a checkpoint change the rounding of later sums.
        """
        simulation.recorder.write(self._folder)
        devices = simulation.devices_table()
        self._folder.write_table(DEVICES, devices)
        if self._scenario.record.links:
            self._folder.write_table(LINKS, simulation.links_table())
        summary = build_summary(
            scenario=self._scenario.name,
            seed=self._scenario.seed,
            agents=simulation.n_agents,
            status=status,
            totals=totals,
            metrics=simulation.recorder.metrics(),
            episodes=simulation.recorder.episodes(),
            devices=devices,
            staleness_s=simulation.recorder.staleness_s(),
            baseline=self._baseline,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        self._folder.write_summary(summary)
        return summary

    def _log(self, simulation: Simulation, text: str | None) -> None:
        line = f"{simulation.now_s:.6f} s  step {simulation.env_steps}  {text}\n"
        # A log that cannot be written must not end the run; a full disk ends it at the next checkpoint.
        with suppress(OSError), open(self._folder.log_file, "a", encoding="utf-8") as log:
            log.write(line)
        self._display.on_event(str(text))
