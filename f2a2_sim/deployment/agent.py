"""One agent as a real process: it perceives, acts, learns and exchanges as in the simulation.

What it does between two messages is the simulation's own code: `Training` says when it is its turn to update
and to exchange, `Exchange` carries a round of consensus, learner and consensus group compute. Only the
clock (`WallAgenda`), the work (`Labour`) and the links (`ZmqCarrier`) are real.
"""

from __future__ import annotations

import resource
import socket as sockets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
import yaml
import zmq
from numpy.typing import NDArray

import f2a2_sim
from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment.clock import RunClock, WallAgenda
from f2a2_sim.deployment.journal import Journal
from f2a2_sim.deployment.labour import Labour
from f2a2_sim.deployment.policies import POLICY, Policies
from f2a2_sim.deployment.remote import CopyCargo, RemoteWorld
from f2a2_sim.deployment.sketch import sketch
from f2a2_sim.errors import RunError
from f2a2_sim.learners.base import joint_information
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.randomness import Streams
from f2a2_sim.results.folder import RunFolder, write_atomically
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.scenario.fleet import plan_fleet
from f2a2_sim.scenario.load import dump_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_population
from f2a2_sim.simulator.checkpoint import find_checkpoint, list_checkpoints, read_checkpoint, write_checkpoint
from f2a2_sim.simulator.exchange import Exchange
from f2a2_sim.simulator.parts import IntArray, Setting
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.simulator.training import Training
from f2a2_sim.worlds.base import AgentSpec
from network.carrier import SimulatedCarrier
from network.errors import EndpointError
from network.keys import agent_name
from network.sockets import Inbox, Line, Outbox, Security, Watch
from network.voice import Voice
from network.wire import Limits, Message
from network.zmq_carrier import ZmqCarrier

_HELLO_EVERY_S = 0.5
_PING_EVERY_S = 1.0
_LONGEST_POLL_S = 0.2
_LAST_WORDS_S = 60.0  # for the world to take the final parameters
_LAST_ROUND_S = 10.0
_LINGER_S = 5.0
_HELD_AGES = 1024
_INBOX_MESSAGES = 8  # unread from each peer, before it has to wait
_OUTBOX_MESSAGES = 4  # on their way to a slow peer, before the newest waits and older ones are dropped


@dataclass(frozen=True)
class AgentOptions:
    """How one agent takes part; see the command `f2a2-sim agent`."""

    number: int
    world: str
    """The world's endpoint."""
    bind: str = "tcp://127.0.0.1:*"
    """Where it listens to its peers."""
    address: str | None = None
    """Where its peers reach it, if that is not where it listens."""
    folder: Path | None = None
    """Its checkpoints and log; None = runs/agent-N-RUN."""
    join_timeout_s: float = 60.0
    world_timeout_s: float = 300.0
    emulate_network: bool = False


class AgentNode:
    """An agent from joining to the end of the run; `run` returns when the world has ended it."""

    def __init__(self, options: AgentOptions, security: Security, interrupted: Callable[[], bool]) -> None:
        self._options = options
        self._me = options.number
        self._security = security
        self._interrupted = interrupted
        self._context: zmq.Context[Any] = zmq.Context()
        self._clock = RunClock()
        self._voice = Voice(self._me, self._clock)
        self._over: str | None = None
        self._log_lines: list[str] = []
        self._folder: RunFolder | None = None
        self._endpoints: dict[int, str] = {}
        self._outboxes: dict[int, Outbox] = {}
        self._watches: dict[str, Watch] = {}
        self._connected: set[str] = set()
        self._ready = False
        """Whether the world has been told that the links to the peers stand."""

    # ------------------------------------------------------------ from joining to the end

    def run(self) -> str:
        """Take part until the world stops the run; returns why it did.

        Raises RunError if the world does not answer in time or refuses, or the disk fails.
        """
        try:
            self._open_sockets()
            welcome = self._join()
            if welcome is None:
                return "interrupted"
            self._move_in(welcome)
            self._live()
            return self._over or "interrupted"
        finally:
            self._close()

    def _open_sockets(self) -> None:
        limits = Limits()
        self._security.gate(self._context)
        self._line = Line(self._context, self._security, limits)
        self._watches["world"] = Watch(self._line.socket, "world")
        self._line.connect(self._options.world)
        self._inbox = Inbox(self._context, self._security, limits, _INBOX_MESSAGES)
        self._watches["peers"] = Watch(self._inbox.socket, "a peer")
        bound = self._inbox.bind(self._options.bind)
        self._endpoint = self._options.address or reachable(bound, self._options.world)
        self._poller = zmq.Poller()
        self._poller.register(self._line.socket, zmq.POLLIN)
        self._poller.register(self._inbox.socket, zmq.POLLIN)

    def _join(self) -> say.Welcome | None:
        """Say hello until the world answers; None if interrupted."""
        give_up_s = time.monotonic() + self._options.join_timeout_s
        while not self._interrupted():
            if time.monotonic() > give_up_s:
                raise RunError(
                    f"agent {self._me}: the world at {self._options.world} has not answered for "
                    f"{self._options.join_timeout_s:g} s. Is it running, is that its address, is its port "
                    "open, and are both keys from one folder?"
                )
            asked_s = self._clock.own_s()
            self._hello(updates=0)
            until_s = time.monotonic() + _HELLO_EVERY_S
            while (left_s := until_s - time.monotonic()) > 0:
                self._line.socket.poll(int(1000 * left_s) + 1)
                message = self._line.receive()
                if message is None:
                    self._note_connections()
                    continue
                if message.kind == "refuse" and (refusal := say.read(say.Refuse, message)):
                    raise RunError(f"agent {self._me}: the world refuses it: {refusal.why}")
                if message.kind == "welcome" and (welcome := say.read(say.Welcome, message)):
                    self._clock.learn(asked_s, welcome.run_s)
                    return welcome
        return None

    def _hello(self, updates: int) -> None:
        self._say(
            "hello",
            say.Hello(endpoint=self._endpoint, software=f2a2_sim.__version__, updates=updates),
        )

    def _move_in(self, welcome: say.Welcome) -> None:
        """Build the agent, or go on from its checkpoint."""
        scenario = Scenario.model_validate(yaml.safe_load(welcome.scenario))
        self._scenario = scenario
        n = len(welcome.action_counts)
        path = self._options.folder or Path("runs") / f"{agent_name(self._me)}-{welcome.run_id[:12]}"
        path.mkdir(parents=True, exist_ok=True)
        self._folder = folder = RunFolder(path)
        folder.write_scenario(dump_scenario(scenario))
        self._run_id = f"{welcome.run_id}-{self._me}"
        write_atomically(path / "run_id", self._run_id.encode())

        self._streams = streams = Streams(scenario.seed, dense_ids=n)
        self._agenda = WallAgenda(self._clock)
        self._carrier = ZmqCarrier(
            n,
            self._me,
            scenario.network.topology,
            streams,
            self._inbox,
            self._outbox,
            self._voice.session,
            scenario.consensus.max_age_s,
            self._emulator(scenario, n) if self._options.emulate_network else None,
        )
        sizes = zip(welcome.observation_sizes, welcome.action_counts, strict=True)
        world = RemoteWorld(
            [AgentSpec(f"agent_{k}", size, count) for k, (size, count) in enumerate(sizes)], welcome.rollouts
        )
        self._world = world
        self._joint = joint_information(scenario.learner.name)
        here = np.array([self._me])
        self._population = population = build_population(
            scenario, world, self._carrier, streams, torch.device("cpu"), here=here
        )
        fleet, self._row = population.fleet_of(self._me)
        self._fleet = fleet
        if fleet.consensus is not None:
            self._carrier.cargo = CopyCargo(fleet.consensus)
        self._recorder = _AgeKeeper()
        self._presence = Presence(np.ones(n, dtype=np.bool_))
        setting = Setting(
            scenario, population, self._carrier, streams, self._agenda, self._recorder, Stopwatch()
        )
        self._labour = Labour(population)
        self._exchange = Exchange(setting, self._presence, self._labour)
        self._training = Training(setting, self._labour, self._exchange)
        self._labour.when_done(act=self._act_done, update=self._update_done, mix=self._exchange.mix_done)
        self._policies: Policies | None = None
        if isinstance(fleet.learner, JointFleet) and fleet.learner.moa is None:
            timeout_s = scenario.deployment.lockstep_timeout_s
            lockstep = scenario.world.mode == "lockstep"
            self._policies = Policies(fleet.learner, self._me, timeout_s, lockstep)
            self._labour.may_update = self._may_update
        self._carrier.other = self._on_other
        self._exchange.when_mixed(self._training.mixed)
        self._exchange.when_behind(self._training.catch_up)
        self._agenda.handle({"ping": self._on_ping, "checkpoint": self._on_checkpoint})
        self._last_step = self._acted_step = -1
        self._last_seen = -1, -1
        self._heard_world_s = time.monotonic()
        self._next_checkpoint = 1
        self._training.start()
        self._journal = Journal(folder.path / "journal")
        self._restore()
        population.when_remembered(self._keep)
        self._saved_at_s = self._clock()
        self._agenda.at(0.0, "ping")
        self._agenda.at(self._agenda.now_s + 1.0, "checkpoint")

    def _emulator(self, scenario: Scenario, n: int) -> SimulatedCarrier:
        """The simulated network of the same scenario and seed, with random streams of its own."""
        streams = Streams(scenario.seed, dense_ids=n)
        plan = plan_fleet(scenario, n)
        return SimulatedCarrier(
            n, scenario.network.topology, plan.links, streams, scenario.network.partitions
        )

    def _live(self) -> None:
        while self._over is None and not self._interrupted():
            self._agenda.carry_out()
            self._carrier.pump(self._agenda.now_s)
            self._labour.work_off()
            if self._hear_peers() or self._hear_world():
                continue
            self._note_connections()
            if time.monotonic() - self._heard_world_s > self._options.world_timeout_s:
                self._save()
                raise RunError(
                    f"agent {self._me}: nothing has come from the world at {self._options.world} for "
                    f"{self._options.world_timeout_s:g} s (--world-timeout-s). What it has learnt is in "
                    f"{self._folder.path if self._folder else ''}; start it again to go on"
                )
            due_s = min(self._agenda.next_time_s(), self._carrier.next_departure_s())
            wait_s = min(max(due_s - self._clock(), 0.0), _LONGEST_POLL_S)
            if wait_s > 0:
                self._poll(wait_s)
        self._labour.work_off()
        if self._over is not None:
            self._end_round()
            self._say_final()
        self._save()

    def _end_round(self) -> None:
        """Wait for the copies of the round that the agent is in: they have been sent, and count."""
        until_s = time.monotonic() + _LAST_ROUND_S
        while self._exchange.waits(self._me) and time.monotonic() < until_s:
            self._agenda.carry_out()
            self._carrier.pump(self._agenda.now_s)
            if not self._hear_peers():
                self._inbox.socket.poll(50)

    def _poll(self, wait_s: float) -> None:
        """Wait for a message: also of the world, unless the agent may not hear it yet."""
        if self._must_finish_round():
            self._inbox.socket.poll(int(1000 * wait_s) + 1)
        else:
            self._poller.poll(int(1000 * wait_s) + 1)

    def _must_finish_round(self) -> bool:
        """In lockstep, an update that is due and waits for the round to end comes before the next step."""
        lockstep = self._scenario.world.mode == "lockstep"
        return lockstep and (self._training.owes(self._me) or self._labour.owes)

    # ------------------------------------------------------------ the world's messages

    def _hear_world(self) -> bool:
        """Take one message of the world; whether there was one."""
        if self._must_finish_round():
            return False
        message = self._line.receive()
        if message is None:
            return False
        self._agenda.look()
        handler = {
            "observe": self._on_observe,
            "roster": self._on_roster,
            "pong": self._on_pong,
            "stop": self._on_stop,
        }.get(message.kind)
        if handler is not None:  # another welcome, say, of a world that was started again
            handler(message)
        return True

    def _on_roster(self, message: Message) -> None:
        roster = say.read(say.Roster, message)
        if roster is None:
            return
        for name, endpoint in roster.endpoints.items():
            number = int(name) if name.isdecimal() else -1
            if number == self._me or not 0 <= number < self._carrier.n_agents:
                continue
            if self._endpoints.get(number) != endpoint:
                if number in self._endpoints:
                    self._log(f"{agent_name(number)} is now at {endpoint}")
                self._endpoints[number] = endpoint
                if number in self._outboxes:
                    self._connect(number)
        for peer in self._peers().tolist():
            self._outbox(peer)
        absent = np.zeros(self._carrier.n_agents, dtype=np.bool_)
        absent[[a for a in roster.absent if 0 <= a < len(absent)]] = True
        left = bool((absent & self._presence.powered).any())
        for agent in np.flatnonzero(absent != ~self._presence.powered).tolist():
            self._log(f"{agent_name(agent)} is {'absent' if absent[agent] else 'back'}")
        self._presence.powered[:] = ~absent
        self._presence.powered[self._me] = True
        if left:
            self._exchange.left()
        self._tell_policy()
        self._ready = False

    def _on_observe(self, message: Message) -> None:
        """What the agent sees: it remembers what happened, acts, and learns if it is time."""
        told = say.read(say.Observe, message)
        if told is None:
            return
        population = self._population
        observations = self._observations(message)
        if observations is None:
            return
        self._exchange.hear_steps()
        self._heard_world_s = time.monotonic()
        if (told.step, told.episode) == self._last_seen:  # a world that has come back asks again
            if self._acted_step == told.step and told.alive and not told.done:
                self._act_done(self._me, told.step)
            return
        self._last_seen = told.step, told.episode
        in_order = told.step == self._last_step + 1
        population.observe(observations)
        if told.episode_step > 0:
            if told.acted and in_order:
                self._remember(message, told)
        else:
            population.begin_episode(told.step)
        self._last_step = told.step
        if told.alive and not told.done:
            self._labour.request_actions(np.array([self._me]), told.step)
            self._labour.act()
        silent = self._scenario.world.after_death == "silent" and not told.alive
        if told.episode_step > 0 and not told.last and not silent:
            self._training.tick(np.array([self._me]))
        self._labour.work_off()
        if told.report:
            self._report(told.step)

    def _observations(self, message: Message) -> list[NDArray[np.float32]] | None:
        """What each agent sees, zeros for those of whom nothing is told; None if it has not their shapes."""
        specs, rollouts = self._world.agents, self._world.rollouts
        before = () if rollouts == 1 else (rollouts,)
        seen = [np.zeros((*before, spec.observation_size), dtype=np.float32) for spec in specs]
        for agent in range(len(specs)) if self._joint else [self._me]:
            told = message.tensors.get(f"observation_{agent}")
            if told is None or told.shape != seen[agent].shape or told.dtype != np.float32:
                return None
            seen[agent] = told
        return seen

    def _remember(self, message: Message, told: say.Observe) -> None:
        """Store what followed from the agent's last action; others' rewards are nothing to it."""
        n, rollouts = self._carrier.n_agents, self._world.rollouts
        shape = (n,) if rollouts == 1 else (n, rollouts)
        reward, played = message.tensors.get("reward"), message.tensors.get("played")
        if reward is None or played is None or reward.shape != shape[1:] or played.shape != shape:
            return
        rewards = np.zeros(shape, dtype=np.float32)
        rewards[self._me] = reward
        terminated = np.zeros(n, dtype=np.bool_)
        terminated[self._me] = told.terminated
        self._population.remember(np.array([self._me]), rewards, terminated, np.array(played))

    def _on_other(self, message: Message) -> None:
        if message.kind == POLICY and self._policies is not None:
            self._policies.hear(message)

    def _may_update(self) -> bool:
        """Whether the others' policies are known as they must be for the next update; then they are used."""
        assert self._policies is not None
        updates = int(self._training.updates[self._me])
        if not self._policies.may_update(updates, self._presence.powered):
            return False
        self._policies.install(updates)
        return True

    def _update_done(self, agent: int) -> None:
        self._training.update_done(agent)
        self._tell_policy()

    def _tell_policy(self) -> None:
        updates = int(self._training.updates[self._me])
        if self._policies is not None and updates:  # what it was at first follows from the seed
            fields, tensors = self._policies.own(updates)
            self._carrier.tell(self._peers(), POLICY, self._agenda.now_s, fields, tensors)

    def _on_pong(self, message: Message) -> None:
        told = say.read(say.Pong, message)
        self._heard_world_s = time.monotonic()
        if told is not None:
            self._clock.learn(told.asked_s, told.run_s)

    def _on_stop(self, message: Message) -> None:
        told = say.read(say.Stop, message)
        self._over = told.why if told is not None else "the world ended the run"

    # ------------------------------------------------------------ to the world

    def _act_done(self, agent: int, step: int) -> None:
        self._acted_step = step
        action = np.asarray(self._population.actions[agent], dtype=np.int64)
        self._say("act", say.Act(step=step), {"action": action})

    def _report(self, step: int) -> None:
        sums, count, update_s = self._labour.take_statistics()
        counts = self._carrier.counts
        learner = self._fleet.learner
        fields = say.Report(
            step=step,
            updates=int(self._training.updates[self._me]),
            rounds=int(self._exchange.round[self._me]),
            statistics=sums,
            statistics_count=count,
            dual_norm=float(learner.dual_norm(np.array([self._row]))[0]),
            counts={
                **counts.as_dict(),
                "unusable": self._carrier.unusable,
                **{f"refused_{reason}": number for reason, number in self._inbox.counts.items()},
            },
            ages_s=self._recorder.take_ages(),
            update_s=update_s[-_HELD_AGES:],
            busy_act_s=self._labour.busy_s["act"],
            busy_learn_s=self._labour.busy_s["learn"],
            busy_mix_s=self._labour.busy_s["mix"],
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        shared = learner.shared_parameters()[self._row]
        self._say("report", fields, {"sketch": sketch(shared, self._scenario.seed)})

    def _say_final(self) -> None:
        self._report(max(self._last_step, 0))
        links = {name: values.astype(float).tolist() for name, values in self._carrier.link_table().items()}
        parameters = self._fleet.learner.parameters[self._row].cpu().numpy()
        until_s = time.monotonic() + _LAST_WORDS_S
        said = False
        while time.monotonic() < until_s:
            said = said or self._say("final", say.Final(links=links), {"parameters": parameters})
            self._line.socket.poll(100)
            while (message := self._line.receive()) is not None:
                if message.kind == "taken":
                    return
        self._log("the world has not taken the final parameters")

    def _on_ping(self, _subject: int, _detail: int) -> None:
        """Ask for the time, say that it is there, and that it is ready once its links stand."""
        self._say("ping", say.Ping(asked_s=self._clock.own_s()))
        if not self._ready and self._links_stand():
            self._ready = self._say("ready", say.Ready())
        self._agenda.at(self._agenda.now_s + (_PING_EVERY_S if self._ready else 0.05), "ping")

    def _links_stand(self) -> bool:
        return all(agent_name(j) in self._connected for j in self._peers().tolist())

    def _peers(self) -> IntArray:
        """Those whom the agent sends something to: its neighbours, or everybody where policies are told."""
        if self._policies is None:
            neighbours: IntArray = self._carrier.out_neighbours(self._me)
            return neighbours
        everybody = np.arange(self._carrier.n_agents)
        others: IntArray = everybody[everybody != self._me]
        return others

    def _say(self, kind: str, fields: say.Fields, tensors: Mapping[str, Any] | None = None) -> bool:
        return self._line.send(self._voice.frames(kind, fields.model_dump(), tensors))

    # ------------------------------------------------------------ peers

    def _hear_peers(self) -> bool:
        """Take what has come from the peers; whether anything follows from it that is to be done now."""
        if not self._inbox.socket.poll(0):
            return False
        self._agenda.look()
        self._exchange.drain()
        self._labour.work_off()
        return True

    def _outbox(self, peer: int) -> Outbox:
        if peer not in self._outboxes:
            name = agent_name(peer)
            box = Outbox(self._context, self._security, name, _OUTBOX_MESSAGES)
            self._watches[name] = Watch(box.socket, name)
            self._outboxes[peer] = box
            if peer in self._endpoints:
                self._connect(peer)
        return self._outboxes[peer]

    def _connect(self, peer: int) -> None:
        """Send to where the roster says that a peer is; what is no address is only noted."""
        try:
            self._outboxes[peer].connect(self._endpoints[peer])
        except EndpointError as error:
            self._log(f"{agent_name(peer)} cannot be reached: {error}")

    def _note_connections(self) -> None:
        for line in self._security.events():
            self._log(line)
        for name, watch in self._watches.items():
            for line in watch.events():
                if line.endswith(" connected"):
                    self._connected.add(name)
                    if name == "world" and self._folder is not None:
                        # The world sends only by connections that it has been heard on.
                        self._hello(int(self._training.updates[self._me]))
                elif line.endswith(" disconnected"):
                    self._connected.discard(name)
                self._log(line)

    # ------------------------------------------------------------ what survives

    def _on_checkpoint(self, _subject: int, _detail: int) -> None:
        every_s = self._scenario.checkpoint.every_wall_s
        if every_s is not None and self._clock() - self._saved_at_s >= every_s:
            self._save()
        self._agenda.at(self._agenda.now_s + 1.0, "checkpoint")

    def _save(self) -> None:
        """A checkpoint of this agent alone, from which it can come back under the same number."""
        assert self._folder is not None
        state = {
            "population": self._population.state(np.empty(0, dtype=np.int64)),
            "training": self._training.state(),
            "exchange": self._exchange.state(),
            "streams": self._streams.state(),
            "carrier": self._carrier.state(),
            "busy_s": dict(self._labour.busy_s),
            "last_step": self._last_step,
        }
        write_checkpoint(
            self._folder, self._next_checkpoint, state, self._run_id, self._scenario.checkpoint.keep
        )
        self._journal.clear()
        self._next_checkpoint += 1
        self._saved_at_s = self._clock()

    def _restore(self) -> None:
        """Go on from the newest checkpoint of this run, if there is one."""
        assert self._folder is not None
        there = list_checkpoints(self._folder)
        if there:
            state = read_checkpoint(self._folder, find_checkpoint(self._folder), self._run_id)
            self._population.load_state(state["population"])
            self._training.load_state(state["training"])
            self._exchange.load_state(state["exchange"])
            self._streams.load_state(state["streams"])
            self._carrier.load_state(state["carrier"])
            self._labour.busy_s.update(state["busy_s"])
            self._last_step = int(state["last_step"])
            self._next_checkpoint = there[-1].number + 1
            self._exchange.wait_anew()
        kept = 0
        for message in self._journal.read():
            if message.fields.get("run") == self._run_id and message.sequence > self._last_step:
                names = sorted(message.tensors, key=int)
                self._fleet.learner.remember(*(np.array(message.tensors[name]) for name in names))
                self._last_step = message.sequence
                kept += 1
        if there or kept:
            updates = int(self._training.updates[self._me])
            number = there[-1].number if there else 0
            self._log(f"back from checkpoint {number} with {updates} updates and {kept} transitions since")
            self._hello(updates)

    def _keep(self, arguments: tuple[Any, ...]) -> None:
        """Write down what the learner has just been given to remember."""
        tensors = {str(k): np.ascontiguousarray(value) for k, value in enumerate(arguments)}
        step = self._last_step + 1
        self._journal.append(
            Message("transition", self._me, self._voice.session, step, 0.0, {"run": self._run_id}, tensors)
        )

    def _log(self, text: str) -> None:
        line = f"{self._clock():.3f} s  {text}\n"
        if self._folder is None:
            self._log_lines.append(line)
            return
        with open(self._folder.log_file, "a", encoding="utf-8") as log:
            log.writelines([*self._log_lines, line])
        self._log_lines = []

    def _close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        for box in self._outboxes.values():
            box.close(linger_s=_LINGER_S)
        if hasattr(self, "_line"):
            self._line.close(linger_s=_LINGER_S)
        if hasattr(self, "_inbox"):
            self._inbox.close()
        if hasattr(self, "_journal"):
            self._journal.close()
        self._security.close()
        self._context.term()


class _AgeKeeper(Recorder):
    """A recorder for one agent: it keeps the ages of the copies that were used, for the next report."""

    def __init__(self) -> None:
        super().__init__(timeline_agents=0, timeline_events=0)
        self._kept: list[float] = []

    def ages(self, ages_s: Any) -> None:
        self._kept.extend(ages_s.tolist())
        del self._kept[:-_HELD_AGES]

    def take_ages(self) -> list[float]:
        """The newest ages since this was last called."""
        taken, self._kept = self._kept, []
        return taken


def reachable(bound: str, world: str) -> str:
    """The address of a bound endpoint for others: its host, or where that is all of this machine's addresses,
    the one by which this machine reaches the world."""
    parts = urlsplit(bound)
    if parts.scheme != "tcp" or parts.hostname not in ("0.0.0.0", "::"):
        return bound
    host = urlsplit(world).hostname or "127.0.0.1"
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    with sockets.socket(family, sockets.SOCK_DGRAM) as probe:
        probe.connect((host, urlsplit(world).port or 9))  # sends nothing
        own = probe.getsockname()[0]
    return f"tcp://[{own}]:{parts.port}" if ":" in own else f"tcp://{own}:{parts.port}"
