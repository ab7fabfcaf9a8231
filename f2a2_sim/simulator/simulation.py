"""One run in virtual time, put together from its flows, which meet on one agenda of pending events.

===============  ==================================================================
``episodes``     the world's steps: observations out, actions in
``computing``    what the devices compute, and when the arithmetic is done
``training``     whose turn it is to update, and to exchange
``exchange``     rounds of consensus: messages, waits, averaging
``switching``    devices on and off, empty batteries, silent agents
``measures``     what is written down
===============  ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from f2a2_sim.results.recorder import Recorder
from f2a2_sim.simulator.agenda import Agenda
from f2a2_sim.simulator.batteries import Batteries
from f2a2_sim.simulator.computing import Computing
from f2a2_sim.simulator.episodes import Episodes
from f2a2_sim.simulator.exchange import Exchange
from f2a2_sim.simulator.measures import Measures
from f2a2_sim.simulator.parts import Context, FloatArray, Parts
from f2a2_sim.simulator.presence import Presence
from f2a2_sim.simulator.stopwatch import Stopwatch
from f2a2_sim.simulator.switching import Switching
from f2a2_sim.simulator.training import Training


class Simulation:
    """:meth:`start` or :meth:`load_state`, then :meth:`step` until ``ended``."""

    def __init__(
        self, parts: Parts, recorder: Recorder, stopwatch: Stopwatch, log: Callable[[str], None]
    ) -> None:
        self.parts = parts
        self.recorder = recorder
        self.stopwatch = stopwatch
        self.agenda = Agenda()
        self.n_agents = parts.population.n_agents
        self.ended: str | None = None
        """Why the run is over; None while it is not."""
        self._limit_s = parts.scenario.duration.virtual_time_s

        context = Context(parts, self.agenda, recorder, stopwatch, log)
        self.presence = Presence(parts.availability.initially_on())
        self.batteries = Batteries(context, self.presence)
        self.computing = Computing(context, self.batteries)
        self.exchange = Exchange(context.setting, self.presence, self.computing)
        self.training = Training(context.setting, self.computing, self.exchange)
        self.switching = Switching(
            context, self.presence, self.batteries, self.computing, self.exchange, self.training
        )
        self.episodes = Episodes(
            context,
            self.presence,
            self.computing,
            self.training,
            self.switching,
            tell=self.exchange.tell_step,
            hear=self.exchange.hear_steps,
            record=lambda episode_end: self.measures.record_row(episode_end),
            stop=self.stop,
        )
        self.measures = Measures(
            context, self.presence, self.computing, self.exchange, self.training, self.episodes
        )
        self.computing.when_done(
            act=self.episodes.act_done, update=self.training.update_done, mix=self.exchange.mix_done
        )
        self.exchange.when_mixed(self.training.mixed)
        self.exchange.when_behind(self.training.catch_up)
        self.switching.when_left(self.episodes.left)

    # -- running -------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.agenda.now_s

    @property
    def episode(self) -> int:
        """Number of the present episode, from 0."""
        return self.episodes.play.episode

    @property
    def env_steps(self) -> int:
        """Steps that the world has taken."""
        return self.episodes.play.env_steps

    def start(self) -> None:
        """Begin a new run at time zero."""
        self.training.start()
        self.switching.start()
        self.episodes.begin()

    def step(self) -> None:
        """Carry out the next event, or end the run if its limit of virtual time comes first."""
        due_s = self.agenda.next_time_s()
        if due_s == math.inf:
            self.stop("nothing is left to happen: every device is off for good")
        elif self._limit_s is not None and due_s > self._limit_s:
            self.stop("the limit of virtual time is reached")
        else:
            self.agenda.step()

    def stop(self, reason: str) -> None:
        """End the run where it is."""
        if self.ended is None:
            self.ended = reason

    # -- what there is to see ------------------------------------------------------------------------

    def metrics(self) -> dict[str, Any]:
        """The present values of the columns of ``metrics.parquet``."""
        return self.measures.metrics()

    def off_s(self) -> FloatArray:
        """Seconds that each device has been off, ``[n]``."""
        return self.measures.off_s()

    def devices_table(self) -> dict[str, Any]:
        """Columns of ``tables/devices.parquet``."""
        return self.measures.devices_table()

    def links_table(self) -> dict[str, Any]:
        """Columns of ``tables/links.parquet``."""
        return self.parts.carrier.link_table()

    # -- checkpoints ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that the future depends on; arrays and tensors are views, written out at once."""
        parts = self.parts
        return {
            "agenda": self.agenda.state(),
            "population": parts.population.state(parts.carrier.versions_in_flight()),
            **{name: part.state() for name, part in self._saved().items()},
            "ended": self.ended,
        }

    def final_state(self) -> dict[str, Any]:
        """What is kept of a run that is over, which nobody can go on with: why, and its policies."""
        return {"ended": self.ended, "population": self.parts.population.policies()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`: the future is the same, bit for bit."""
        self.agenda.load_state(state["agenda"])
        self.parts.population.load_state(state["population"])
        for name, part in self._saved().items():
            part.load_state(state[name])
        self.ended = state["ended"]

    def _saved(self) -> dict[str, Any]:
        """Whatever has a state, by its name in a checkpoint."""
        parts = self.parts
        return {
            "units": parts.units,
            "compute": parts.compute,
            "availability": parts.availability,
            "carrier": parts.carrier,
            "streams": parts.streams,
            "recorder": self.recorder,
            "stopwatch": self.stopwatch,
            "presence": self.presence,
            "batteries": self.batteries,
            "computing": self.computing,
            "training": self.training,
            "exchange": self.exchange,
            "episodes": self.episodes,
        }
