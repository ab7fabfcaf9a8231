"""What a world comes back from: its checkpoints, and a journal of the steps that it has taken since."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from f2a2_sim.deployment.clock import RunClock
from f2a2_sim.deployment.journal import Journal
from f2a2_sim.deployment.roll import Roll
from f2a2_sim.errors import UsageError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.results.summary import Baseline
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import Seats, fleets_of
from f2a2_sim.simulator.checkpoint import (
    find_checkpoint,
    is_due,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from f2a2_sim.simulator.parts import BoolArray, IntArray
from f2a2_sim.simulator.play import Play
from f2a2_sim.simulator.stopwatch import Stopwatch
from network.wire import WORLD_NUMBER, Message

_FORMAT = "deployed world"


class WorldMemory:
    """Saves and restores one run's world."""

    def __init__(
        self,
        scenario: Scenario,
        folder: RunFolder,
        play: Play,
        roll: Roll,
        recorder: Recorder,
        stopwatch: Stopwatch,
        clock: RunClock,
        baseline: Baseline | None,
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._play = play
        self._roll = roll
        self._recorder = recorder
        self._stopwatch = stopwatch
        self._clock = clock
        self.baseline = baseline
        """The random policy; a restored run has its own."""
        self._journal = Journal(folder.path / "journal")
        self._next_checkpoint = 1
        self._saved_at_s, self._saved_episode = 0.0, 0
        self.run_id = os.urandom(16).hex()

    def note_step(self, actions: IntArray, acted: BoolArray) -> None:
        """Write down the step that is about to be taken."""
        fields = {"step": self._play.env_steps}
        tensors: dict[str, NDArray[Any]] = {"actions": actions, "acted": acted}
        self._journal.append(Message("played", WORLD_NUMBER, 0, 0, 0.0, fields, tensors))

    def save_if_due(self) -> bool:
        """Whether it was: by the scenario's section `checkpoint`."""
        config = self._scenario.checkpoint
        due = is_due(config, self._clock() - self._saved_at_s, self._play.episode - self._saved_episode)
        if due:
            self.save()
        return due

    def save(self) -> None:
        """A checkpoint of a run that goes on."""
        self._write(
            {
                "run_id": self.run_id,
                "run_s": self._clock(),
                "play": self._play.state(),
                "recorder": self._recorder.state(),
                "stopwatch": self._stopwatch.state(),
                "baseline": None if self.baseline is None else self.baseline.model_dump(),
                "roll": self._roll.state(),
            }
        )

    def save_policies(self, why: str, world: Seats) -> None:
        """What is kept of a run that is over: why, and the agents' final parameters, as far as they came."""
        fleets = []
        for ids in fleets_of(self._scenario, world):
            got = [self._roll.parameters.get(agent) for agent in ids.tolist()]
            widths = {len(p) for p in got if p is not None}
            width = widths.pop() if len(widths) == 1 else 0
            rows = [np.zeros(width, np.float32) if p is None or len(p) != width else p for p in got]
            fleets.append({"learner": {"parameters": torch.from_numpy(np.stack(rows))}})
        self._write({"simulation": {"ended": why, "population": {"fleets": fleets}}})

    def _write(self, state: dict[str, Any]) -> None:
        write_checkpoint(self._folder, self._next_checkpoint, state, _FORMAT, self._scenario.checkpoint.keep)
        self._journal.clear()
        self._next_checkpoint += 1
        self._saved_at_s, self._saved_episode = self._clock(), self._play.episode

    def restore(self) -> bool:
        """Go on from the newest checkpoint; whether there is one. Raises UsageError if the run is over."""
        there = list_checkpoints(self._folder)
        if not there:
            return False
        state = read_checkpoint(self._folder, find_checkpoint(self._folder), _FORMAT)
        if "simulation" in state:
            raise UsageError(
                f"{self._folder.path}: this run has finished; there is nothing to go on with. Its report "
                f"is {self._folder.report_file}"
            )
        self.run_id = state["run_id"]
        self._clock.set(float(state["run_s"]))
        self._play.load_state(state["play"])
        self._recorder.load_state(state["recorder"])
        self._stopwatch.load_state(state["stopwatch"])
        self._roll.load_state(state["roll"])
        self._next_checkpoint = there[-1].number + 1
        self._saved_at_s, self._saved_episode = self._clock(), self._play.episode
        saved = state["baseline"]
        self.baseline = None if saved is None else Baseline(**saved)
        return True

    def replay(self, close_step: Callable[[], None]) -> None:
        """Take the steps in the journal once more, each followed by ``close_step``."""
        for message in list(self._journal.read()):
            if message.fields.get("step") == self._play.env_steps:
                actions, acted = message.tensors["actions"], message.tensors["acted"]
                self._play.take_step(np.array(actions), np.array(acted))
                close_step()

    def close(self) -> None:
        self._journal.close()
