"""What an agent comes back from under the same number: its checkpoints, and a journal of what came since."""

from __future__ import annotations

from typing import Any

import numpy as np

from f2a2_sim.deployment.assembly import AgentParts
from f2a2_sim.deployment.journal import Journal
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.simulator.checkpoint import find_checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from network.wire import Message


class AgentMemory:
    """Saves and restores one agent's parts."""

    def __init__(self, parts: AgentParts, folder: RunFolder, run_id: str) -> None:
        self._parts = parts
        self._folder = folder
        self._run_id = run_id
        self._next_checkpoint = 1
        self._journal = Journal(folder.path / "journal")
        self._saved_at_s = 0.0
        self.last_step = -1
        """Step of the newest observation that the agent has dealt with."""

    def save_if_due(self) -> None:
        every_s = self._parts.scenario.checkpoint.every_wall_s
        if every_s is not None and self._parts.agenda.now_s - self._saved_at_s >= every_s:
            self.save()

    def save(self) -> None:
        """A checkpoint of this agent alone; the journal begins anew."""
        parts = self._parts
        state = {
            "population": parts.population.state(np.empty(0, dtype=np.int64)),
            "training": parts.training.state(),
            "exchange": parts.exchange.state(),
            "streams": parts.streams.state(),
            "carrier": parts.carrier.state(),
            "busy_s": dict(parts.labour.busy_s),
            "last_step": self.last_step,
        }
        keep = parts.scenario.checkpoint.keep
        write_checkpoint(self._folder, self._next_checkpoint, state, self._run_id, keep)
        self._journal.clear()
        self._next_checkpoint += 1
        parts.agenda.look()
        self._saved_at_s = parts.agenda.now_s

    def restore(self) -> str | None:
        """Go on from the newest checkpoint of this run and the journal, if there is anything; what there was.

        From now on whatever the learner is given to remember is written into the journal.
        """
        parts = self._parts
        there = list_checkpoints(self._folder)
        if there:
            state = read_checkpoint(self._folder, find_checkpoint(self._folder), self._run_id)
            parts.population.load_state(state["population"])
            parts.training.load_state(state["training"])
            parts.exchange.load_state(state["exchange"])
            parts.streams.load_state(state["streams"])
            parts.carrier.load_state(state["carrier"])
            parts.labour.busy_s.update(state["busy_s"])
            self.last_step = int(state["last_step"])
            self._next_checkpoint = there[-1].number + 1
            parts.exchange.wait_anew()
        kept = 0
        for message in self._journal.read():
            if message.fields.get("run") == self._run_id and message.sequence > self.last_step:
                names = sorted(message.tensors, key=int)
                parts.fleet.learner.remember(*(np.array(message.tensors[name]) for name in names))
                self.last_step = message.sequence
                kept += 1
        parts.population.when_remembered(self._keep)
        parts.agenda.look()
        self._saved_at_s = parts.agenda.now_s
        if not there and not kept:
            return None
        number = there[-1].number if there else 0
        return f"checkpoint {number} with {parts.updates} updates and {kept} transitions since"

    def _keep(self, arguments: tuple[Any, ...]) -> None:
        """Write down what the learner has just been given to remember."""
        tensors = {str(k): np.ascontiguousarray(value) for k, value in enumerate(arguments)}
        self._journal.append(
            Message("transition", self._parts.me, 0, self.last_step + 1, 0.0, {"run": self._run_id}, tensors)
        )

    def close(self) -> None:
        self._journal.close()
