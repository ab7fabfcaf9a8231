"""One agent as a real process: it perceives, acts, learns and exchanges as in the simulation.

What it does between two messages is the simulation's own code: `Training` says when it is its turn to update
and to exchange, `Exchange` carries a round of consensus, learner and consensus group compute. Only the
clock (`WallAgenda`), the work (`Labour`) and the links (`ZmqCarrier`) are real.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import f2a2_sim
from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment import perception
from f2a2_sim.deployment.agent_memory import AgentMemory
from f2a2_sim.deployment.assembly import assemble
from f2a2_sim.deployment.clock import RunClock
from f2a2_sim.deployment.links import AgentLinks
from f2a2_sim.deployment.logbook import Logbook
from f2a2_sim.deployment.patience import Patience
from f2a2_sim.deployment.policies import POLICY
from f2a2_sim.deployment.reporting import make_report
from f2a2_sim.errors import RunError
from f2a2_sim.results.folder import RunFolder, write_atomically
from network.keys import agent_name
from network.sockets import Security
from network.voice import Voice
from network.wire import Message

_HELLO_EVERY_S = 0.5
_PING_EVERY_S = 1.0
_LONGEST_POLL_S = 0.2
_SHORTEST_STAY_S = 0.05
_LAST_WORDS_S = 60.0  # for the world to take the final parameters
_LAST_ROUND_S = 10.0
_SHARE_OF_LOCKSTEP = 0.5  # of the time for which the world waits for an agent
_IN_TURN = ("observe", "stop")


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
        self._clock = RunClock()
        self._voice = Voice(self._me, self._clock)
        self._logbook = Logbook(self._clock)
        self._over: str | None = None
        self._start: NDArray[Any] | None = None
        self._held: deque[Message] = deque()
        """What the world has said and the agent may not hear yet."""
        self._ready = False
        """Whether the world has been told that the links to the peers stand."""

    # ------------------------------------------------------------ from joining to the end

    def run(self) -> str:
        """Take part until the world stops the run; returns why it did.

        Raises RunError if the world does not answer in time or refuses, or the disk fails.
        """
        options = self._options
        self._links = AgentLinks(
            options.world, options.bind, options.address, self._security, self._voice, self._logbook.write
        )
        try:
            welcome = self._join()
            if welcome is None:
                return "interrupted"
            self._move_in(welcome)
            try:
                self._live()
            finally:
                self._memory.close()
            return self._over or "interrupted"
        finally:
            self._links.close()

    def _join(self) -> say.Welcome | None:
        """Say hello until the world answers; None if interrupted."""
        line = self._links.line
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
                line.socket.poll(int(1000 * left_s) + 1)
                message = line.receive()
                if message is None:
                    self._links.note_events()
                    continue
                if message.kind == "refuse" and (refusal := say.read(say.Refuse, message)):
                    raise RunError(f"agent {self._me}: the world refuses it: {refusal.why}")
                if message.kind == "welcome" and (welcome := say.read(say.Welcome, message)):
                    self._start = message.tensors.get("start")
                    self._clock.learn(asked_s, welcome.run_s)
                    return welcome
        return None

    def _hello(self, updates: int) -> None:
        hello = say.Hello(endpoint=self._links.endpoint, software=f2a2_sim.__version__, updates=updates)
        self._links.say("hello", hello)

    def _move_in(self, welcome: say.Welcome) -> None:
        """Build the agent, or go on from its checkpoint."""
        path = self._options.folder or Path("runs") / f"{agent_name(self._me)}-{welcome.run_id[:12]}"
        path.mkdir(parents=True, exist_ok=True)
        self._folder = folder = RunFolder(path)
        folder.write_scenario(welcome.scenario)
        run_id = f"{welcome.run_id}-{self._me}"
        write_atomically(path / "run_id", run_id.encode())
        self._logbook.move_in(folder)

        session, emulate = self._voice.session, self._options.emulate_network
        self._parts = parts = assemble(
            self._me, welcome, self._start, self._clock, self._links, session, emulate
        )
        self._lockstep = parts.scenario.world.mode == "lockstep"
        parts.labour.when_done(act=self._act_done, update=self._update_done, mix=parts.exchange.mix_done)
        if parts.policies is not None:
            parts.labour.may_update = self._may_update
        parts.carrier.other = self._on_other
        parts.agenda.handle({"ping": self._on_ping, "checkpoint": self._on_checkpoint})
        self._acted_step = -1
        self._last_seen = -1, -1
        self._acting = np.zeros(parts.n_agents, dtype=np.bool_)
        """Who acts on the newest observation, where that has to be known."""
        world = parts.scenario.world
        self._silent_after_death = world.after_death == "silent"
        self._patience_s = world.observation_latency_s + world.action_latency_s
        self._owing = Patience(_SHARE_OF_LOCKSTEP * parts.scenario.deployment.lockstep_timeout_s)
        self._steps_until_s = -math.inf
        self._heard_world_s = time.monotonic()
        parts.training.start()
        self._memory = AgentMemory(parts, folder, run_id)
        back_from = self._memory.restore()
        if back_from is not None:
            self._logbook.write(f"back from {back_from}")
            self._hello(parts.updates)
        parts.agenda.at(0.0, "ping")
        parts.agenda.at(parts.agenda.now_s + 1.0, "checkpoint")

    def _live(self) -> None:
        parts = self._parts
        while self._over is None and not self._interrupted():
            parts.agenda.carry_out()
            parts.carrier.pump(parts.agenda.now_s)
            parts.labour.work_off()
            if self._hear_peers() or self._hear_world():
                continue
            self._note_events()
            if time.monotonic() - self._heard_world_s > self._options.world_timeout_s:
                self._memory.save()
                raise RunError(
                    f"agent {self._me}: nothing has come from the world at {self._options.world} for "
                    f"{self._options.world_timeout_s:g} s (--world-timeout-s). What it has learnt is in "
                    f"{self._folder.path}; start it again to go on"
                )
            due_s = min(parts.agenda.next_time_s(), parts.carrier.next_departure_s())
            if self._held:
                due_s = min(due_s, self._clock() + _SHORTEST_STAY_S)
            wait_s = min(max(due_s - self._clock(), 0.0), _LONGEST_POLL_S)
            if wait_s > 0:
                self._links.poll(wait_s)
        parts.labour.work_off()
        if self._over is not None:
            self._end_round()
            self._say_final()
        self._memory.save()

    def _end_round(self) -> None:
        """Wait for the copies of the round that the agent is in: they have been sent, and count."""
        parts = self._parts
        until_s = time.monotonic() + _LAST_ROUND_S
        while parts.exchange.waits(self._me) and time.monotonic() < until_s:
            parts.agenda.carry_out()
            parts.carrier.pump(parts.agenda.now_s)
            if not self._hear_peers():
                self._links.poll(0.05, world=False)

    def _stays(self) -> bool:
        """In lockstep, whether something comes before the next step: an update that is due and waits for the
        round to end, or the neighbours' steps, for as long as the scenario's world takes for one.

        Where rounds do not fall together, a neighbour may need the next step to begin its own: an agent that
        has stayed in vain stays half as long the next time.
        """
        parts = self._parts
        if not self._lockstep:
            return False
        if self._owing.holds(parts.training.owes(self._me), time.monotonic()) or parts.labour.owes:
            return True
        if parts.hearsay is None or self._clock() >= self._steps_until_s:
            return False
        neighbours = parts.carrier.in_neighbours(self._me)
        there = self._acting[neighbours] & parts.presence.powered[neighbours]
        return not parts.hearsay.has_heard(neighbours[there])

    # ------------------------------------------------------------ the world's messages

    def _hear_world(self) -> bool:
        """Take one message of the world; whether there was one. A step or the end that comes too early is
        kept until it may be heard, and what follows it of that kind."""
        if self._held and not self._stays():
            message = self._held.popleft()
        else:
            received = self._links.line.receive()
            if received is None:
                return False
            if received.kind in _IN_TURN and (self._held or self._stays()):
                self._held.append(received)
                return True
            message = received
        self._parts.agenda.look()
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
        parts = self._parts
        for name, endpoint in roster.endpoints.items():
            number = int(name) if name.isdecimal() else -1
            if number != self._me and 0 <= number < parts.n_agents:
                self._links.locate(number, endpoint)
        for peer in parts.peers().tolist():
            self._links.outbox(peer)
        powered = parts.presence.powered
        absent = np.zeros(parts.n_agents, dtype=np.bool_)
        absent[[a for a in roster.absent if 0 <= a < len(absent)]] = True
        left = bool((absent & powered).any())
        for agent in np.flatnonzero(absent != ~powered).tolist():
            self._logbook.write(f"{agent_name(agent)} is {'absent' if absent[agent] else 'back'}")
        powered[:] = ~absent
        powered[self._me] = True
        if left:
            parts.exchange.left()
        self._tell_policy()
        self._ready = False

    def _on_observe(self, message: Message) -> None:
        """What the agent sees: it remembers what happened, acts, and learns if it is time."""
        told = say.read(say.Observe, message)
        if told is None:
            return
        parts, memory = self._parts, self._memory
        observations = perception.observations(message, parts)
        if observations is None:
            return
        parts.exchange.hear_steps()
        self._heard_world_s = time.monotonic()
        if (told.step, told.episode) == self._last_seen:  # a world that has come back asks again
            if self._acted_step == told.step and told.alive and not told.done:
                self._say_action(told.step)
            return
        self._last_seen = told.step, told.episode
        in_order = told.episode_step > 0 and told.step == memory.last_step + 1
        parts.population.observe(observations)
        if not (in_order and self._remember(message, told)):
            parts.population.begin_episode(told.step)
        memory.last_step, memory.episode = told.step, told.episode
        if self._silent_after_death:
            self._hear_of_deaths(message, told)
        if parts.hearsay is not None:
            self._acting = perception.acting(message, parts.n_agents)
            self._steps_until_s = self._clock() + self._patience_s
            parts.hearsay.advance(told.step, acting=not told.done)
        if told.alive and not told.done:
            parts.labour.request_actions(np.array([self._me]), told.step)
            parts.labour.act()
        silent = self._silent_after_death and not told.alive
        if told.episode_step > 0 and not told.last and not silent:
            parts.training.tick(np.array([self._me]))
        parts.labour.work_off()
        if told.report:
            self._report(told.step)

    def _hear_of_deaths(self, message: Message, told: say.Observe) -> None:
        """Who is dead and silent is not waited for, until the next episode."""
        parts = self._parts
        silent = parts.presence.silent
        before = silent.copy()
        silent[:] = False if told.done else ~perception.acting(message, parts.n_agents)
        silent[self._me] = False
        if (silent & ~before).any():
            parts.exchange.left()

    def _remember(self, message: Message, told: say.Observe) -> bool:
        """Store what followed from the agent's last action; False if the message does not say it."""
        outcome = perception.outcome(message, told, self._parts)
        if outcome is None:
            return False
        # An agent that has come back does not know what it acted on before.
        acted = told.acted and self._acted_step == told.step - 1
        rows = np.array([self._me] if acted else [], dtype=np.int64)
        self._parts.population.remember(rows, outcome.rewards, outcome.terminated, outcome.actions)
        return True

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
        self._parts.exchange.tell_step(agent, step)
        self._say_action(step)

    def _say_action(self, step: int) -> None:
        action = np.asarray(self._parts.population.actions[self._me], dtype=np.int64)
        self._links.say("act", say.Act(step=step), {"action": action})

    def _report(self, step: int) -> None:
        report, tensors = make_report(self._parts, self._links.inbox.counts, step)
        self._links.say("report", report, tensors)

    def _say_final(self) -> None:
        self._report(max(self._memory.last_step, 0))
        table = self._parts.carrier.link_table()
        parameters = self._parts.fleet.learner.parameters[self._parts.row].cpu().numpy()
        tensors = {**table, "parameters": parameters}
        line = self._links.line
        until_s = time.monotonic() + _LAST_WORDS_S
        said = False
        while time.monotonic() < until_s:
            said = said or self._links.say("final", say.Final(), tensors)
            line.socket.poll(100)
            while (message := line.receive()) is not None:
                if message.kind == "taken":
                    return
        self._logbook.write("the world has not taken the final parameters")

    def _on_ping(self, _subject: int, _detail: int) -> None:
        """Ask for the time, say that it is there, and that it is ready once its links stand."""
        self._links.say("ping", say.Ping(asked_s=self._clock.own_s()))
        if not self._ready and self._links.stand(self._parts.peers().tolist()):
            self._ready = self._links.say("ready", say.Ready())
        agenda = self._parts.agenda
        agenda.at(agenda.now_s + (_PING_EVERY_S if self._ready else 0.05), "ping")

    def _on_checkpoint(self, _subject: int, _detail: int) -> None:
        self._parts.labour.work_off()  # what has been asked for and not been done is not in a checkpoint
        self._memory.save_if_due()
        self._parts.agenda.at(self._parts.agenda.now_s + 1.0, "checkpoint")

    # ------------------------------------------------------------ peers

    def _hear_peers(self) -> bool:
        """Take what has come from the peers; whether anything follows from it that is to be done now."""
        if not self._links.inbox.socket.poll(0):
            return False
        self._parts.agenda.look()
        self._parts.exchange.drain()
        self._parts.labour.work_off()
        return True

    def _on_other(self, message: Message) -> None:
        if message.kind == POLICY and self._parts.policies is not None:
            self._parts.policies.hear(message)

    def _may_update(self) -> bool:
        """Whether the others' policies are known as they must be for the next update; then they are used."""
        parts = self._parts
        assert parts.policies is not None
        if not parts.policies.may_update(parts.updates, parts.presence.powered):
            return False
        parts.policies.install(parts.updates)
        return True

    def _update_done(self, agent: int) -> None:
        self._parts.training.update_done(agent)
        self._tell_policy()

    def _tell_policy(self) -> None:
        parts = self._parts
        if parts.policies is not None and parts.updates:  # what it was at first follows from the seed
            fields, tensors = parts.policies.own(parts.updates)
            parts.carrier.tell(parts.peers(), POLICY, parts.agenda.now_s, fields, tensors)

    def _note_events(self) -> None:
        if self._links.note_events():  # the world sends only by connections that it has been heard on
            self._hello(self._parts.updates)
