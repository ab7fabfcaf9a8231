"""The world's process: it hosts the environment, knows who takes part, and writes the run's folder.

Agents' parameters do not go through it: they exchange those with each other. It hears actions and reports.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment.clock import RunClock
from f2a2_sim.deployment.journal import Journal
from f2a2_sim.deployment.measured import measured
from f2a2_sim.deployment.roll import Roll
from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.learners.base import joint_information
from f2a2_sim.randomness import Streams
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.progress import Progress
from f2a2_sim.results.recorder import Recorder, RowStore
from f2a2_sim.results.report import write_report
from f2a2_sim.results.summary import Baseline, Summary, build_summary
from f2a2_sim.results.tables import DEVICES, LINKS
from f2a2_sim.scenario.load import dump_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_world, fleets_of
from f2a2_sim.simulator.checkpoint import find_checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from f2a2_sim.simulator.measures import episode_row
from f2a2_sim.simulator.play import Play
from f2a2_sim.simulator.stopwatch import Stopwatch
from network.errors import EndpointError
from network.keys import agent_name
from network.sockets import Hub, Security, Watch
from network.voice import Voice
from network.wire import WORLD_NUMBER, Limits, Message

_LONGEST_POLL_S = 0.2
_CLOSING_S = 60.0  # for the agents' last words


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
        self._security = security
        self._options = options
        self._display = display
        self._baseline = baseline
        self._interrupted = interrupted
        self._deployment = scenario.deployment
        self._lockstep = scenario.world.mode == "lockstep"
        self._joint = joint_information(scenario.learner.name)

        self._world = build_world(scenario)
        self._n = n = len(self._world.agents)
        self._streams = Streams(scenario.seed, dense_ids=n)
        self._clock = RunClock()
        self._stopwatch = Stopwatch()
        self._recorder = Recorder(0, 0, [display])
        self._roll = Roll(n)
        self._run_id = os.urandom(16).hex()
        self._voice = Voice(WORLD_NUMBER, self._clock)
        self._next_checkpoint = 1

        self._play = Play(self._world, self._streams, self._stopwatch)
        self._chosen: dict[int, NDArray[np.int64]] = {}
        self._finished: set[int] = set()
        self._ended: str | None = None
        self._saved_at_s = 0.0
        self._due_s = -math.inf
        duration = scenario.duration
        self._limit_s = min(duration.virtual_time_s or math.inf, duration.wall_time_s or math.inf)
        self._open = False
        """Whether agents can be told anything yet."""

    # ------------------------------------------------------------ from start to end

    def serve(self, resuming: bool = False) -> Summary:
        """Host the run; returns its summary, whose status says whether it was interrupted.

        Raises RunError if agents do not come in time.
        """
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._security.gate(self._context)
            self._hub = Hub(self._context, self._security, Limits())
            self._watch = Watch(self._hub.socket, "an agent")
            self._journal = Journal(self._folder.path / "journal")
            if resuming:
                self._restore()
            endpoint = self._hub.bind(self._options.bind)
            self._log(f"listening at {endpoint}")
            self._options.on_bound(endpoint)
            self._open = True
            self._gather()
            if self._play.episode < 0:
                self._play.begin_episode()
                self._save(over=False)
            self._show()
            while self._ended is None and not self._interrupted():
                self._advance()
            return self._finish()
        finally:
            self._watch.close()
            self._hub.close(linger_s=2.0)
            self._journal.close()
            self._security.close()
            self._context.term()

    def _gather(self) -> None:
        """Wait until everybody is there, and linked with their neighbours."""
        self._display.on_event(f"waiting for {self._n} agents")
        limit_s = self._deployment.start_timeout_s
        give_up_s = time.monotonic() + limit_s
        while self._roll.missing and not self._interrupted():
            self._hear(_LONGEST_POLL_S)
            if time.monotonic() > give_up_s:
                raise RunError(
                    f"{_names(self._roll.missing)}: not there after {limit_s:g} s "
                    "(deployment.start_timeout_s). Start them with f2a2-sim agent --world ADDRESS --id N, "
                    "look into their logs, and check addresses, firewall and keys"
                )
        self._tell_roster()
        while len(self._roll.ready) < self._n and not self._interrupted():
            self._hear(_LONGEST_POLL_S)
            if time.monotonic() > give_up_s:
                late = [a for a in range(self._n) if a not in self._roll.ready]
                self._log(f"going on although {_names(late)} cannot reach all neighbours")
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
                self._lose(agent, f"no action within {limit_s:g} s")
        self._take_step(awaited)
        self._save_if_due()

    def _take_step(self, alive: set[int]) -> None:
        """Play the actions that have come, and tell everybody what followed."""
        actions = self._play.default_actions()
        acted = np.zeros(self._n, dtype=np.bool_)
        for agent, action in self._chosen.items():
            if agent in alive:
                actions[agent] = action
                acted[agent] = True
        played = self._voice.message(
            "played", {"step": self._play.env_steps}, {"actions": actions, "acted": acted}
        )
        self._journal.append(played)
        self._play.take_step(actions, acted)
        self._chosen = {}
        self._show(report=self._row_is_due())
        if self._row_is_due():
            self._await_reports()
        self._close_step()

    def _row_is_due(self) -> bool:
        return self._play.step.done or self._play.env_steps % self._scenario.record.every_steps == 0

    def _close_step(self) -> None:
        """Write down what is due after a step, and go on with the next episode if this one is over."""
        if self._row_is_due():
            self._record_row(self._play.step.done)
        if self._play.step.done:
            self._ended = self._play.why_over(self._scenario.duration)
            if self._ended is None:
                self._play.begin_episode()
                self._show()

    # ------------------------------------------------------------ episodes

    def _show(self, report: bool = False) -> None:
        """Every agent gets what it sees, what it earned, and what was played for it."""
        step = self._play.step
        if not self._open:
            return
        now_s, period_s = time.monotonic(), float(self._scenario.world.period_s or 0.0)
        on_time_s = self._due_s + period_s
        self._due_s = on_time_s if on_time_s > now_s else now_s + period_s
        self._reports_due = set(range(self._n)) if report else set()
        observations = [np.ascontiguousarray(seen) for seen in step.observations]
        last = step.done and self._play.why_over(self._scenario.duration) is not None
        for agent in range(self._n):
            told = say.Observe(
                step=self._play.env_steps,
                episode=self._play.episode,
                episode_step=self._play.steps,
                done=step.done,
                alive=bool(step.alive[agent]),
                terminated=bool(step.terminated[agent]),
                acted=bool(self._play.acted[agent]),
                last=last,
                report=report,
            )
            seen = range(self._n) if self._joint else [agent]
            tensors = {f"observation_{other}": observations[other] for other in seen}
            if self._play.steps > 0:
                tensors["reward"] = np.array(step.rewards[agent])
                tensors["played"] = self._play.played[-1]
            self._say(agent, "observe", told, tensors)

    # ------------------------------------------------------------ hearing

    def _hear(self, wait_s: float) -> None:
        """Take every message that is there, waiting ``wait_s`` for the first; look after absences."""
        self._options.look()
        self._hub.socket.poll(int(1000 * wait_s) + 1)
        while (message := self._hub.receive()) is not None:
            if message.sender >= self._n:
                self._refuse(message.sender, f"this run has agents 0 to {self._n - 1} only")
                continue
            self._roll.heard_s[message.sender] = time.monotonic()
            handler = {
                "hello": self._on_hello,
                "ready": self._on_ready,
                "act": self._on_act,
                "report": self._on_report,
                "final": self._on_final,
                "ping": self._on_ping,
            }.get(message.kind)
            if handler is not None:
                handler(message)
        for line in [*self._security.events(), *self._watch.events()]:
            self._log(line)
        silent = time.monotonic() - self._roll.heard_s > self._deployment.lost_after_s
        for agent in np.flatnonzero(silent & ~self._roll.absent).tolist():
            self._lose(agent, f"silent for {self._deployment.lost_after_s:g} s")

    def _on_hello(self, message: Message) -> None:
        hello = say.read(say.Hello, message)
        if hello is None:
            return
        agent = message.sender
        try:
            self._security.check_endpoint(hello.endpoint)
        except EndpointError as error:
            self._refuse(agent, str(error))
            return
        known = self._roll.endpoints.get(agent)
        world = self._world
        welcome = say.Welcome(
            scenario=dump_scenario(self._scenario),
            run_id=self._run_id,
            run_s=self._clock(),
            observation_sizes=[spec.observation_size for spec in world.agents],
            action_counts=[spec.n_actions for spec in world.agents],
            rollouts=world.rollouts,
        )
        self._say(agent, "welcome", welcome)
        self._roll.endpoints[agent] = hello.endpoint
        if known != hello.endpoint or self._roll.absent[agent]:
            if known is not None:
                self._log(f"{agent_name(agent)} is back at {hello.endpoint}, with {hello.updates} updates")
            self._return(agent, silently=True)
            if not self._roll.missing:
                self._tell_roster()
        elif not self._roll.missing:
            self._tell_roster([agent])

    def _on_ready(self, message: Message) -> None:
        self._roll.ready.add(message.sender)

    def _on_act(self, message: Message) -> None:
        told = say.read(say.Act, message)
        action = message.tensors.get("action")
        agent = message.sender
        shape = () if self._world.rollouts == 1 else (self._world.rollouts,)
        if told is None or action is None or action.shape != shape or action.dtype != np.int64:
            return
        if (action < 0).any() or (action >= self._world.agents[agent].n_actions).any():
            return
        self._return(agent)
        if told.step == self._play.env_steps and self._play.step.alive[agent]:
            self._chosen[agent] = action

    def _on_report(self, message: Message) -> None:
        report = say.read(say.Report, message)
        if report is not None:
            self._roll.note(message.sender, report, message.tensors.get("sketch"), self._recorder)
            if report.step >= self._play.env_steps:
                self._reports_due.discard(message.sender)
            self._return(message.sender)

    def _on_final(self, message: Message) -> None:
        final = say.read(say.Final, message)
        parameters = message.tensors.get("parameters")
        if final is not None and parameters is not None and parameters.ndim == 1:
            self._roll.parameters[message.sender] = np.array(parameters)
            self._roll.links[message.sender] = final.links
            self._finished.add(message.sender)
            self._say(message.sender, "taken", say.Taken())

    def _on_ping(self, message: Message) -> None:
        ping = say.read(say.Ping, message)
        if ping is not None:
            self._say(message.sender, "pong", say.Pong(asked_s=ping.asked_s, run_s=self._clock()))
            self._return(message.sender)

    def _await_reports(self) -> None:
        """Wait for the reports of those who are there; in realtime not longer than to the next step."""
        until_s = time.monotonic() + self._deployment.lockstep_timeout_s
        if not self._lockstep:
            until_s = min(until_s, self._due_s - 0.2 * float(self._scenario.world.period_s or 0.0))
        while not self._interrupted() and time.monotonic() < until_s:
            if all(self._roll.absent[agent] for agent in self._reports_due):
                return
            self._hear(0.02)

    # ------------------------------------------------------------ presence

    def _lose(self, agent: int, why: str) -> None:
        if not self._roll.absent[agent]:
            self._roll.absent[agent] = True
            self._roll.lost_at_s[agent] = time.monotonic()
            self._log(f"{agent_name(agent)} is absent: {why}")
            self._tell_roster()

    def _return(self, agent: int, silently: bool = False) -> None:
        """An agent has been heard of; ``silently``: the caller says so."""
        if self._roll.absent[agent] and agent in self._roll.endpoints:
            self._roll.absent[agent] = False
            now_s = time.monotonic()
            gone_s = now_s - self._roll.lost_at_s.pop(agent, now_s)
            self._roll.off_s[agent] += gone_s
            if not silently:
                self._log(f"{agent_name(agent)} takes part again after {gone_s:.1f} s")
                self._tell_roster()

    def _tell_roster(self, agents: list[int] | None = None) -> None:
        roster = say.Roster(
            endpoints={str(agent): endpoint for agent, endpoint in self._roll.endpoints.items()},
            absent=np.flatnonzero(self._roll.absent).tolist(),
        )
        for agent in agents if agents is not None else sorted(self._roll.endpoints):
            self._say(agent, "roster", roster)

    def _refuse(self, agent: int, why: str) -> None:
        self._say(agent, "refuse", say.Refuse(why=why))

    # ------------------------------------------------------------ speaking

    def _say(
        self, agent: int, kind: str, fields: say.Fields, tensors: Mapping[str, Any] | None = None
    ) -> bool:
        return self._hub.send(agent, self._voice.frames(kind, fields.model_dump(), tensors))

    def _log(self, text: str) -> None:
        with open(self._folder.log_file, "a", encoding="utf-8") as log:
            log.write(f"{self._clock():.3f} s  step {self._play.env_steps}  {text}\n")
        self._display.on_event(text)

    # ------------------------------------------------------------ what is written down

    def _record_row(self, episode_end: bool) -> None:
        row = self._metrics(episode_end)
        self._recorder.row(**row)
        if episode_end:
            self._recorder.episode(**episode_row(row, self._play.returns, self._play.steps))

    def _metrics(self, episode_end: bool = False) -> dict[str, Any]:
        """The columns of ``metrics.parquet``, measured instead of modelled."""
        roll, counts = self._roll, self._roll.counts()
        outcome = self._world.episode_summary() if episode_end else {}
        now_s = self._clock()
        total_s = self._stopwatch.total_s()
        world_s = self._stopwatch.breakdown_s()["world"]
        learning_s = float((roll.of_each("busy_act_s") + roll.of_each("busy_learn_s")).mean())
        consensus_s = float(roll.of_each("busy_mix_s").mean())
        return {
            "virtual_time_s": now_s,
            "env_steps": self._play.env_steps,
            "episode": self._play.episode,
            "episode_step": self._play.steps,
            "episode_end": episode_end,
            "updates": int(roll.of_each("updates").sum()),
            "return_mean_per_agent": float(self._play.returns.mean()),
            **self._play.counts,
            "alive": int(self._play.step.alive.sum()),
            "win": float(outcome.get("win", math.nan)),
            "online": int((~roll.absent).sum()),
            **roll.take_statistics(),
            "dual_norm": float(roll.of_each("dual_norm").mean()),
            "disagreement": roll.disagreement(),
            **counts.as_dict(),
            "missed_deadlines": int(self._play.missed.sum()),
            "utilisation": float(roll.utilisation(now_s).mean()),
            "energy_j": math.nan,
            "wall_time_s": total_s,
            "wall_world_s": world_s,
            "wall_learning_s": learning_s,
            "wall_network_s": 0.0,
            "wall_consensus_s": consensus_s,
            "wall_other_s": max(total_s - world_s - learning_s - consensus_s, 0.0),
        }

    def _devices_table(self) -> dict[str, Any]:
        roll, now_s = self._roll, self._clock()
        return {
            "agent": np.arange(self._n),
            "name": np.array([agent.name for agent in self._world.agents]),
            "profile": np.full(self._n, f"real ({platform.machine()})"),
            "link": np.full(self._n, "zmq"),
            "busy_act_s": roll.of_each("busy_act_s"),
            "busy_learn_s": roll.of_each("busy_learn_s") + roll.of_each("busy_mix_s"),
            "off_s": roll.off_s,
            "utilisation": roll.utilisation(now_s),
            "energy_j": np.full(self._n, math.nan),
            "battery_empty": np.zeros(self._n, dtype=np.bool_),
            "updates": roll.of_each("updates").astype(np.int64),
            "consensus_rounds": roll.of_each("rounds").astype(np.int64),
            "actions": self._play.actions_taken,
            "missed_deadlines": self._play.missed,
            "return_mean": self._play.lifetime_returns / max(self._play.finished_episodes, 1),
        }

    def _links_table(self) -> dict[str, Any]:
        """What both ends of every link have told, put together."""
        n = self._n
        told = self._roll.links
        ends = {agent: {k: np.array(v) for k, v in links.items()} for agent, links in told.items()}
        pairs = [
            (s, r)
            for s in range(n)
            for r in range(n)
            if (s in ends and ends[s]["sent"][r]) or (r in ends and ends[r]["delivered"][s])
        ]

        def at(agent: int, name: str, peer: int) -> float:
            return float(ends[agent][name][peer]) if agent in ends else 0.0

        rows = RowStore(LINKS)
        for s, r in pairs:
            delivered = at(r, "delivered", s)
            sent, expired, dropped = at(s, "sent", r), at(r, "expired", s), at(s, "queue_dropped", r)
            copied = at(s, "duplicated", r)
            rows.append(
                {
                    "sender": s,
                    "receiver": r,
                    "sent": sent,
                    "duplicated": copied,
                    "delivered": delivered,
                    "lost": max(sent + copied - delivered - expired - dropped, 0.0),
                    "queue_dropped": dropped,
                    "absent_dropped": 0,
                    "expired": expired,
                    "latency_mean_s": at(r, "delay_s", s) / delivered if delivered else math.nan,
                    "currently_connected": 1,
                }
            )
        return rows.columns()

    def _finish(self) -> Summary:
        """Tell everybody, take their last words, and write the run's results."""
        why = self._ended or "interrupted"
        self._log(why)
        finished = self._ended is not None
        for agent in sorted(self._roll.endpoints):
            self._say(agent, "stop", say.Stop(why=why))
        until_s = time.monotonic() + _CLOSING_S
        while time.monotonic() < until_s:
            if all(a in self._finished or self._roll.absent[a] for a in range(self._n)):
                break
            self._hear(0.05)
        for agent in range(self._n):
            if agent not in self._finished:
                self._log(f"{agent_name(agent)} has not sent its final parameters")
        self._save(over=finished)
        summary = self._write_results("finished" if finished else "interrupted")
        write_report(self._folder.path)
        return summary

    def _write_results(self, status: Any) -> Summary:
        totals = {"row": 0, "staleness_p50_s": 0.0, "staleness_p95_s": 0.0, **self._metrics()}
        totals["energy_j"] = 0.0
        if status == "finished" and totals["in_flight"]:
            totals["lost"] += totals["in_flight"]
            totals["in_flight"] = 0
        self._recorder.write(self._folder)
        devices = self._devices_table()
        self._folder.write_table(DEVICES, devices)
        if self._scenario.record.links:
            self._folder.write_table(LINKS, self._links_table())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        summary = build_summary(
            scenario=self._scenario.name,
            seed=self._scenario.seed,
            agents=self._n,
            status=status,
            clock="real",
            totals=totals,
            metrics=self._recorder.metrics(),
            episodes=self._recorder.episodes(),
            devices=devices,
            staleness_s=self._recorder.staleness_s(),
            baseline=self._baseline,
            peak_memory_bytes=max([memory, *(r.peak_memory_bytes for r in self._roll.reports.values())]),
        )
        self._folder.write_summary(summary)
        measured(self._roll, int(self._play.actions_taken.sum())).write(self._folder.path)
        return summary

    # ------------------------------------------------------------ what survives

    def _save_if_due(self) -> None:
        every_s = self._scenario.checkpoint.every_wall_s
        if every_s is not None and self._clock() - self._saved_at_s >= every_s and self._ended is None:
            self._save(over=False)

    def _save(self, over: bool) -> None:
        """A checkpoint of the world, or of a run that is over: its policies."""
        if over:
            state: dict[str, Any] = {"simulation": {"ended": self._ended, "population": self._policies()}}
        else:
            state = {
                "run_id": self._run_id,
                "run_s": self._clock(),
                "play": self._play.state(),
                "recorder": self._recorder.state(),
                "stopwatch": self._stopwatch.state(),
                "baseline": None if self._baseline is None else self._baseline.model_dump(),
                "roll": self._roll.state(),
            }
        keep = self._scenario.checkpoint.keep
        write_checkpoint(self._folder, self._next_checkpoint, state, _FORMAT, keep)
        self._journal.clear()
        self._next_checkpoint += 1
        self._saved_at_s = self._clock()

    def _policies(self) -> dict[str, Any]:
        """The agents' final parameters, by fleet, as far as they have sent them."""
        import torch

        fleets = []
        for ids in fleets_of(self._scenario, self._world):
            got = [self._roll.parameters.get(agent) for agent in ids.tolist()]
            widths = {len(p) for p in got if p is not None}
            width = widths.pop() if len(widths) == 1 else 0
            rows = [np.zeros(width, np.float32) if p is None or len(p) != width else p for p in got]
            fleets.append({"learner": {"parameters": torch.from_numpy(np.stack(rows))}})
        return {"fleets": fleets}

    def _restore(self) -> None:
        """Go on from the newest checkpoint, and the steps that have been taken since."""
        there = list_checkpoints(self._folder)
        if there:
            state = read_checkpoint(self._folder, find_checkpoint(self._folder), _FORMAT)
            if "simulation" in state:
                raise UsageError(
                    f"{self._folder.path}: this run has finished; there is nothing to go on with. Its report "
                    f"is {self._folder.report_file}"
                )
            self._run_id = state["run_id"]
            self._clock.set(float(state["run_s"]))
            self._recorder.load_state(state["recorder"])
            self._stopwatch.load_state(state["stopwatch"])
            saved = state["baseline"]
            self._baseline = Baseline(**saved) if saved is not None else None
            self._next_checkpoint = there[-1].number + 1
            self._roll.load_state(state["roll"])
            self._play.load_state(state["play"])
            for message in list(self._journal.read()):
                if message.fields.get("step") == self._play.env_steps and self._ended is None:
                    self._play.take_step(
                        np.array(message.tensors["actions"]), np.array(message.tensors["acted"])
                    )
                    self._close_step()
            self._log(f"goes on with episode {self._play.episode + 1}, step {self._play.steps}")


_FORMAT = "deployed world"


def _names(agents: list[int]) -> str:
    some = ", ".join(agent_name(agent) for agent in agents[:10])
    return some + (f" and {len(agents) - 10} more" if len(agents) > 10 else "")
