"""What an agent comes back from under the same number: its checkpoints, and a journal of what came since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment.assembly import AgentParts
from f2a2_sim.deployment.hearsay import Step
from f2a2_sim.deployment.journal import Journal
from f2a2_sim.learners.base import Learner
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.simulator.checkpoint import (
    find_checkpoint,
    is_due,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from network.wire import Message


class AgentMemory:
    """Saves and restores one agent's parts."""

    def __init__(self, parts: AgentParts, folder: RunFolder, run_id: str) -> None:
        self._parts = parts
        self._folder = folder
        self._run_id = run_id
        self._next_checkpoint = 1
        self._journal = Journal(folder.path / "journal")
        self._saved_at_s, self._saved_episode = 0.0, 0
        self.last_step = -1
        """Step of the newest observation that the agent has dealt with."""
        self.episode = 0
        """Its episode."""

    def save_if_due(self) -> None:
        """Save by the scenario's section `checkpoint`."""
        config, passed_s = self._parts.scenario.checkpoint, self._parts.agenda.now_s - self._saved_at_s
        if is_due(config, passed_s, self.episode - self._saved_episode):
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
            "episode": self.episode,
        }
        keep = parts.scenario.checkpoint.keep
        write_checkpoint(self._folder, self._next_checkpoint, state, self._run_id, keep)
        self._journal.clear()
        self._next_checkpoint += 1
        parts.agenda.look()
        self._saved_at_s, self._saved_episode = parts.agenda.now_s, self.episode

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
            self.episode = int(state["episode"])
            self._next_checkpoint = there[-1].number + 1
            parts.exchange.wait_anew()
            if parts.training.is_updating(parts.me):  # it waited for the others' policies
                parts.labour.request_updates(np.array([parts.me]))
        kept = 0
        for message in self._journal.read():
            if message.fields.get("run") != self._run_id or message.sequence <= self.last_step:
                continue
            self._read(message, parts.fleet.learner)
            if message.kind == "transition":
                self.last_step = message.sequence
                kept += 1
        if kept:
            parts.population.drop_postponed()  # it is among them
        parts.population.when_remembered(self._keep)
        if parts.hearsay is not None:
            parts.hearsay.when_amended = self._keep_heard
        parts.agenda.look()
        self._saved_at_s, self._saved_episode = parts.agenda.now_s, self.episode
        if not there and not kept:
            return None
        number = there[-1].number if there else 0
        return f"checkpoint {number} with {parts.updates} updates and {kept} transitions since"

    def _keep(self, arguments: tuple[Any, ...]) -> None:
        """Write down what the learner has just been given to remember."""
        self._write("transition", {}, _tensors(arguments))

    def _keep_heard(self, back: int, agent: int, step: Step) -> None:
        """Write down what has been put into the replay afterwards."""
        fields = {"back": back, "agent": agent, "step": step.number}
        self._write("heard", fields, {"observation": step.observation, "action": step.actions})

    def _read(self, record: Message, learner: Learner) -> None:
        """Do once more what a record of the journal says."""
        if record.kind == "transition":
            learner.remember(*_arguments(record.tensors))
        elif self._parts.hearsay is not None:
            observation, actions = record.tensors["observation"], record.tensors["action"]
            back, agent = int(record.fields["back"]), int(record.fields["agent"])
            self._parts.hearsay.replay.amend(back, agent, np.array(observation), np.array(actions))

    def _write(self, kind: str, fields: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
        number = self.last_step + 1
        self._journal.append(
            Message(kind, self._parts.me, 0, number, 0.0, {"run": self._run_id, **fields}, tensors)
        )

    def close(self) -> None:
        self._journal.close()


def _tensors(arguments: tuple[Any, ...]) -> dict[str, NDArray[Any]]:
    """What a learner is given to remember, by position; a pair's members with a dot: "7.0", "7.1"."""
    tensors: dict[str, NDArray[Any]] = {}
    for place, value in enumerate(arguments):
        if isinstance(value, tuple):
            tensors |= {f"{place}.{k}": np.ascontiguousarray(member) for k, member in enumerate(value)}
        else:
            tensors[str(place)] = np.ascontiguousarray(value)
    return tensors


def _arguments(tensors: Mapping[str, NDArray[Any]]) -> list[Any]:
    """The inverse of `_tensors`."""
    arguments: dict[int, Any] = {}
    for name in sorted(tensors, key=float):
        place, _, member = name.partition(".")
        value = np.array(tensors[name])
        arguments[int(place)] = (*arguments.get(int(place), ()), value) if member else value
    return [arguments[place] for place in sorted(arguments)]
