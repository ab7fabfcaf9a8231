"""The world's process: it hosts the environment, knows who takes part, and writes the run's folder.

Agents' parameters do not go through it: they exchange those with each other. It hears actions and reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment import perception
from f2a2_sim.deployment.attendance import Attendance, names
from f2a2_sim.deployment.clock import RunClock
from f2a2_sim.deployment.roll import Roll
from f2a2_sim.deployment.spans import Spans
from f2a2_sim.deployment.world_links import WorldLinks
from f2a2_sim.deployment.world_measures import WorldMeasures
from f2a2_sim.deployment.world_memory import WorldMemory
from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.learners.base import joint_information
from f2a2_sim.randomness import Streams
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.progress import Progress
from f2a2_sim.results.recorder import Recorder, RowListener
from f2a2_sim.results.report import write_report
from f2a2_sim.results.summary import Baseline, Status, Summary
from f2a2_sim.results.tensorboard import TensorBoard
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_world, fleets_of, starts_of
from f2a2_sim.simulator.play import Play
from f2a2_sim.simulator.stopwatch import Stopwatch
from network.keys import agent_name
from network.sockets import Security
from network.voice import Voice
from network.wire import WORLD_NUMBER, Limits, Message

_LONGEST_POLL_S = 0.2
_CLOSING_S = 60.0  # for the agents' last words
_STOP_EVERY_S = 1.0
_SILENT_AT_END_S = 10.0  # for who has not been heard of for longer the world does not wait


@dataclass(frozen=True)
class WorldOptions:
    """How the world is hosted; see the command `f2a2-sim world`."""

    bind: str
    on_bound: Callable[[str], None] = lambda endpoint: None
    """Told where the world listens, once it does."""
    look: Callable[[], None] = lambda: None
    """Called a few times a second, to look after other things."""


class WorldServer:
    """One deployed run, from its start or its checkpoint to its end or an interruption."""

    def __init__(
        self,
        scenario: Scenario,
        folder: RunFolder,
        security: Security,
        options: WorldOptions,
        display: Progress,
        baseline: Baseline | None,
        interrupted: Callable[[], bool],
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._options = options
        self._display = display
        self._interrupted = interrupted
        self._deployment = scenario.deployment
        self._lockstep = scenario.world.mode == "lockstep"
        self._told_all = (
            joint_information(scenario.learner.name) and scenario.learner.information == "accessible"
        )
        self._told_who_acts = (
            scenario.learner.information == "network" or scenario.world.after_death == "silent"
        )

        self._world = world = build_world(scenario)
        self._n = n = len(world.agents)
        self._clock = clock = RunClock()
        record = scenario.record
        self._roll = roll = Roll(n, Spans(record.timeline_agents, record.timeline_events))
        self._listeners: list[RowListener] = [display]
        stopwatch, recorder = Stopwatch(), Recorder(0, 0, self._listeners)
        self._play = play = Play(world, Streams(scenario.seed, dense_ids=n), stopwatch)
        self._measures = WorldMeasures(scenario, play, roll, recorder, stopwatch, clock)
        self._memory = WorldMemory(scenario, folder, play, roll, recorder, stopwatch, clock, baseline)
        self._links = WorldLinks(security, Voice(WORLD_NUMBER, clock))
        self._attendance = Attendance(scenario, world, roll, self._links, clock, self._log)

        self._chosen: dict[int, NDArray[np.int64]] = {}
        self._reports_due: set[int] = set()
        self._finished: set[int] = set()
        self._ended: str | None = None
        self._board: TensorBoard | None = None
        self._due_s = -math.inf
        duration = scenario.duration
        self._limit_s = min(duration.virtual_time_s or math.inf, duration.wall_time_s or math.inf)

    # ------------------------------------------------------------ from start to end

    def serve(self, resuming: bool = False) -> Summary:
        """Host the run; returns its summary, whose status says whether it was interrupted.

        Raises RunError if agents do not come in time.
        """
        try:
            if resuming and self._memory.restore():
                self._memory.replay(self._close_step)
                self._log(f"goes on with episode {self._play.episode + 1}, step {self._play.steps}")
            self._attendance.run_id = self._memory.run_id
            self._attendance.starts = self._starts(resuming)
            if self._scenario.record.tensorboard:
                self._board = TensorBoard(self._folder, self._play.env_steps if resuming else None)
                self._listeners.append(self._board)
            endpoint = self._links.bind(self._options.bind)
            self._log(f"listening at {endpoint}")
            self._options.on_bound(endpoint)
            self._gather()
            if self._play.episode < 0:
                self._play.begin_episode()
                self._memory.save()
            self._show()
            while self._ended is None and not self._interrupted():
                self._advance()
            return self._finish()
        finally:
            self._links.close()
            self._memory.close()
            if self._board is not None:
                self._board.close()

    def _starts(self, resuming: bool) -> list[NDArray[np.float32]] | None:
        """What each agent begins with, by `learner.start_from`; a run that goes on can do without."""
        run_dir = self._scenario.learner.start_from
        if run_dir is None:
            return None
        try:
            found = starts_of(self._scenario, self._n)
        except UsageError:
            if not resuming:
                raise
            self._log(f"learner.start_from = {run_dir} is not there any more: agents go on from checkpoints")
            return None
        starts = [np.empty(0, dtype=np.float32)] * self._n
        for ids, start in zip(fleets_of(self._scenario, self._world), found, strict=True):
            if 4 * start.numel() > Limits().message_bytes // 2:
                raise UsageError(
                    f"learner.start_from = {run_dir}: {start.numel():,} parameters are too many for a message"
                )
            for agent in ids.tolist():
                starts[agent] = start.numpy()
        return starts

    def _gather(self) -> None:
        """Wait until everybody is there, and linked with their neighbours."""
        roll = self._roll
        self._display.on_event(f"waiting for {self._n} agents")
        limit_s = self._deployment.start_timeout_s
        give_up_s = time.monotonic() + limit_s
        while roll.missing and not self._interrupted():
            self._hear(_LONGEST_POLL_S)
            if time.monotonic() > give_up_s:
                raise RunError(
                    f"{names(roll.missing)}: not there after {limit_s:g} s "
                    "(deployment.start_timeout_s). Start them with f2a2-sim agent --world ADDRESS --id N, "
                    "look into their logs, and check addresses, firewall and keys"
                )
        self._attendance.tell_roster()
        while len(roll.ready) < self._n and not self._interrupted():
            self._hear(_LONGEST_POLL_S)
            if time.monotonic() > give_up_s:
                late = [a for a in range(self._n) if a not in roll.ready]
                self._log(f"going on although {names(late)} cannot reach all neighbours")
                return
        self._log("everybody is there")

    def _advance(self) -> None:
        """Collect the actions of one step, and take it; or end the run where a limit of time is reached."""
        if self._clock() >= self._limit_s:
            self._ended = "the limit of time is reached"
            return
        awaited = set(np.flatnonzero(self._play.step.alive).tolist())
        began_s = time.monotonic()
        period_s = self._scenario.world.period_s
        limit_s = self._deployment.lockstep_timeout_s if self._lockstep else float(period_s or 0.0)
        until_s = began_s + limit_s if self._lockstep else self._due_s
        while not self._interrupted():
            left_s = until_s - time.monotonic()
            waits_for = {a for a in awaited - self._chosen.keys() if not self._roll.absent[a]}
            if left_s <= 0 or (self._lockstep and not waits_for and (self._chosen or not awaited)):
                break
            if self._lockstep and not waits_for and left_s > _LONGEST_POLL_S:
                # Nobody is there: the world waits for somebody, for as long as it waits for a late one.
                self._hear(_LONGEST_POLL_S)
                continue
            self._hear(min(max(left_s, 0.0), _LONGEST_POLL_S))
        if self._interrupted():
            return
        if self._lockstep:
            for agent in sorted(awaited - self._chosen.keys()):
                self._attendance.lose(agent, f"no action within {limit_s:g} s")
        self._take_step(awaited)
        if self._ended is None and self._memory.save_if_due() and self._measures.has_rows:
            self._measures.write(self._folder, "running", self._memory.baseline)

    def _take_step(self, alive: set[int]) -> None:
        """Play the actions that have come, and tell everybody what followed."""
        actions = self._play.default_actions()
        acted = np.zeros(self._n, dtype=np.bool_)
        for agent, action in self._chosen.items():
            if agent in alive:
                actions[agent] = action
                acted[agent] = True
        self._memory.note_step(actions, acted)
        self._play.take_step(actions, acted)
        self._chosen = {}
        self._show(report=self._row_is_due())
        if self._row_is_due():
            self._await_reports()
        self._close_step()
        if self._play.steps == 0:
            self._show()

    def _row_is_due(self) -> bool:
        return self._play.step.done or self._play.env_steps % self._scenario.record.every_steps == 0

    def _close_step(self) -> None:
        """Write down what is due after a step, and begin the next episode if this one is over."""
        if self._row_is_due():
            self._measures.record_row(self._play.step.done)
        if self._play.step.done:
            self._ended = self._play.why_over(self._scenario.duration)
            if self._ended is None:
                self._play.begin_episode()

    def _show(self, report: bool = False) -> None:
        """Every agent gets what it sees, what it earned, and what was played for it."""
        play, step = self._play, self._play.step
        now_s, period_s = time.monotonic(), float(self._scenario.world.period_s or 0.0)
        on_time_s = self._due_s + period_s
        self._due_s = on_time_s if on_time_s > now_s else now_s + period_s
        self._reports_due = set(range(self._n)) if report else set()
        observations = [np.ascontiguousarray(seen) for seen in step.observations]
        together = perception.side_by_side(observations) if self._told_all else None
        last = step.done and play.why_over(self._scenario.duration) is not None
        for agent in range(self._n):
            told = say.Observe(
                step=play.env_steps,
                episode=play.episode,
                episode_step=play.steps,
                done=step.done,
                alive=bool(step.alive[agent]),
                terminated=bool(step.terminated[agent]),
                acted=bool(play.acted[agent]),
                last=last,
                report=report,
            )
            tensors = {"observations": observations[agent][None] if together is None else together}
            if self._told_who_acts:
                tensors["acting"] = step.alive & (not step.done)
            if play.steps > 0:
                tensors["reward"] = np.array(step.rewards[agent])
                tensors["played"] = play.played[-1] if self._told_all else np.array(play.played[-1][agent])
            self._links.say(agent, "observe", told, tensors)

    # ------------------------------------------------------------ hearing

    def _hear(self, wait_s: float) -> None:
        """Take every message that is there, waiting ``wait_s`` for the first; look after absences."""
        self._options.look()
        self._links.wait(wait_s)
        while (message := self._links.receive()) is not None:
            if message.sender >= self._n:
                self._attendance.refuse(message.sender, f"this run has agents 0 to {self._n - 1} only")
                continue
            self._roll.heard_s[message.sender] = time.monotonic()
            handler = {
                "hello": self._attendance.on_hello,
                "ready": self._attendance.on_ready,
                "ping": self._attendance.on_ping,
                "act": self._on_act,
                "report": self._on_report,
                "final": self._on_final,
            }.get(message.kind)
            if handler is not None:
                handler(message)
        for line in self._links.events():
            self._log(line)
        self._attendance.lose_silent(self._deployment.lost_after_s)

    def _on_act(self, message: Message) -> None:
        told = say.read(say.Act, message)
        action = message.tensors.get("action")
        agent = message.sender
        shape = () if self._world.rollouts == 1 else (self._world.rollouts,)
        if told is None or action is None or action.shape != shape or action.dtype != np.int64:
            return
        if (action < 0).any() or (action >= self._world.agents[agent].n_actions).any():
            return
        self._attendance.heard_of(agent)
        if told.step == self._play.env_steps and self._play.step.alive[agent]:
            self._chosen[agent] = action

    def _on_report(self, message: Message) -> None:
        report = say.read(say.Report, message)
        if report is not None:
            self._measures.note(message.sender, report, message.tensors)
            if report.step >= self._play.env_steps:
                self._reports_due.discard(message.sender)
            self._attendance.heard_of(message.sender)

    def _await_reports(self) -> None:
        """Wait for the reports of those who are there; in realtime not longer than to the next step."""
        until_s = time.monotonic() + self._deployment.lockstep_timeout_s
        if not self._lockstep:
            until_s = min(until_s, self._due_s - 0.2 * float(self._scenario.world.period_s or 0.0))
        while not self._interrupted() and time.monotonic() < until_s:
            if all(self._roll.absent[agent] for agent in self._reports_due):
                return
            self._hear(0.02)

    def _on_final(self, message: Message) -> None:
        final = say.read(say.Final, message)
        tensors = dict(message.tensors)
        parameters = tensors.pop("parameters", None)
        links_fit = all(told.shape == (self._n,) for told in tensors.values())
        if final is not None and parameters is not None and parameters.ndim == 1 and links_fit:
            self._roll.parameters[message.sender] = np.array(parameters)
            self._roll.links[message.sender] = {name: np.array(told) for name, told in tensors.items()}
            self._finished.add(message.sender)
            self._links.say(message.sender, "taken", say.Taken())

    # ------------------------------------------------------------ the end

    def _finish(self) -> Summary:
        """Tell everybody, take their last words, and write the run's results."""
        why = self._ended or "interrupted"
        self._log(why)
        for agent in sorted(self._roll.endpoints):
            self._links.say(agent, "stop", say.Stop(why=why))
        until_s = time.monotonic() + _CLOSING_S
        again_s = time.monotonic() + _STOP_EVERY_S
        while (now_s := time.monotonic()) < until_s:
            heard = now_s - self._roll.heard_s < max(self._deployment.lost_after_s, _SILENT_AT_END_S)
            left = [agent for agent in np.flatnonzero(heard).tolist() if agent not in self._finished]
            if not left:
                break
            if now_s >= again_s:  # again for who has come back meanwhile
                again_s = now_s + _STOP_EVERY_S
                for agent in left:
                    self._links.say(agent, "stop", say.Stop(why=why))
            self._hear(0.05)
        for agent in range(self._n):
            if agent not in self._finished:
                self._log(f"{agent_name(agent)} has not sent its final parameters")
        if self._ended is None:
            self._memory.save()
        else:
            self._memory.save_policies(self._ended, self._world)
        status: Status = "interrupted" if self._ended is None else "finished"
        summary = self._measures.write(self._folder, status, self._memory.baseline)
        write_report(self._folder.path)
        return summary

    def _log(self, text: str) -> None:
        with open(self._folder.log_file, "a", encoding="utf-8") as log:
            log.write(f"{self._clock():.3f} s  step {self._play.env_steps}  {text}\n")
        self._display.on_event(text)
