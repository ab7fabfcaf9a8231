"""The compute unit of each device: one piece of work at a time, acting before learning.

A state machine driven from outside: it never looks at a clock. The simulator reports what happens,
and schedules an event at the ``finish_s`` of every ``Run`` it is given. Work is not preempted: an
action that arrives while the device learns waits for that update, then goes ahead of all others.
Plain Python lists, for it is called once or twice per simulated event.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from devices.streams import FloatArray

ACT: Final = 0
LEARN: Final = 1
_IDLE: Final = -1


class Run(NamedTuple):
    """Work that starts (or, after a pause, goes on) at ``start_s`` and will be done at ``finish_s``."""

    kind: int
    token: int
    start_s: float
    finish_s: float


class ComputeUnits:
    """``n`` compute units, all on and idle at first.

    ``token`` is any integer by which the simulator knows a piece of work again. Events of work that
    was since paused or lost are told apart by ``is_due``.
    """

    def __init__(self, n: int) -> None:
        self._on = [True] * n
        self._kind = [_IDLE] * n
        self._token = [0] * n
        self._start_s = [0.0] * n
        self._finish_s = [math.inf] * n
        self._remaining_s = [0.0] * n
        self._pending: tuple[list[list[tuple[float, int]]], ...] = (
            [[] for _ in range(n)],
            [[] for _ in range(n)],
        )
        self._busy_s = ([0.0] * n, [0.0] * n)

    def request(self, agent: int, kind: int, now_s: float, duration_s: float, token: int = 0) -> Run | None:
        """Ask for work (ACT or LEARN): the Run if it starts at once, None if it waits its turn.

        While a device is off its requests wait, and start after ``resume``.
        """
        if self._on[agent] and self._kind[agent] == _IDLE:
            return self._start(agent, kind, token, now_s, duration_s)
        self._pending[kind][agent].append((duration_s, token))
        return None

    def is_due(self, agent: int, now_s: float) -> bool:
        """Whether work of this device ends now; False for an event overtaken by a pause or a crash."""
        return self._finish_s[agent] == now_s

    def finished(self, agent: int, now_s: float) -> Run | None:
        """End the work that is due now, and start the next that waits: its Run, or None if none waits."""
        if self._finish_s[agent] != now_s:
            raise ValueError(f"unit {agent}: no work ends at {now_s!r} (but at {self._finish_s[agent]!r})")
        self._stop(agent, now_s)
        return self._start_next(agent, now_s)

    def pause(self, agent: int, now_s: float) -> None:
        """Switch off; the work under way and all that waits are kept. No effect if already off."""
        if not self._on[agent]:
            return
        self._on[agent] = False
        if self._kind[agent] != _IDLE:
            kind = self._kind[agent]
            self._remaining_s[agent] = self._finish_s[agent] - now_s
            self._stop(agent, now_s)
            self._kind[agent] = kind

    def crash(self, agent: int, now_s: float) -> list[tuple[int, int]]:
        """Switch off; the work under way and all that waits are lost: their (kind, token), in order."""
        lost = []
        if self._kind[agent] != _IDLE:
            lost.append((self._kind[agent], self._token[agent]))
            if self._on[agent]:
                self._stop(agent, now_s)
            self._kind[agent] = _IDLE
        for kind in (ACT, LEARN):
            lost += [(kind, token) for token in self.discard_pending(agent, kind)]
        self._on[agent] = False
        return lost

    def resume(self, agent: int, now_s: float) -> Run | None:
        """Switch on; go on with the work that a pause interrupted, or start what waits. None if nothing."""
        if self._on[agent]:
            raise ValueError(f"unit {agent} is on already; only a paused or crashed unit can resume")
        self._on[agent] = True
        if self._kind[agent] == _IDLE:
            return self._start_next(agent, now_s)
        return self._start(agent, self._kind[agent], self._token[agent], now_s, self._remaining_s[agent])

    def discard_pending(self, agent: int, kind: int) -> list[int]:
        """Drop work of one kind that has not started (stale actions, say): its tokens."""
        waiting = self._pending[kind][agent]
        tokens = [token for _, token in waiting]
        waiting.clear()
        return tokens

    def pending(self, agent: int, kind: int) -> int:
        """How many pieces of work of that kind wait."""
        return len(self._pending[kind][agent])

    def is_on(self, agent: int) -> bool:
        """Whether the device is on (neither paused nor crashed)."""
        return self._on[agent]

    def is_busy(self, agent: int) -> bool:
        """Whether the device computes now."""
        return self._finish_s[agent] != math.inf

    def running(self, agent: int) -> Run | None:
        """The work under way, or None."""
        if not self.is_busy(agent):
            return None
        return Run(self._kind[agent], self._token[agent], self._start_s[agent], self._finish_s[agent])

    def busy_s(self, kind: int, now_s: float) -> FloatArray:
        """Seconds that each device has spent on work of that kind, up to now: float64 ``[n]``."""
        total = np.array(self._busy_s[kind], dtype=np.float64)
        for agent, current in enumerate(self._kind):
            if current == kind and self._finish_s[agent] != math.inf:
                total[agent] += now_s - self._start_s[agent]
        return total

    def busy_time_s(self, agent: int, now_s: float) -> float:
        """Seconds that one device has spent on work of either kind, up to now."""
        total = self._busy_s[ACT][agent] + self._busy_s[LEARN][agent]
        return total + (now_s - self._start_s[agent] if self.is_busy(agent) else 0.0)

    def _start(self, agent: int, kind: int, token: int, now_s: float, duration_s: float) -> Run:
        finish_s = now_s + duration_s
        self._kind[agent] = kind
        self._token[agent] = token
        self._start_s[agent] = now_s
        self._finish_s[agent] = finish_s
        return Run(kind, token, now_s, finish_s)

    def _start_next(self, agent: int, now_s: float) -> Run | None:
        for kind in (ACT, LEARN):
            waiting = self._pending[kind][agent]
            if waiting:
                duration_s, token = waiting.pop(0)
                return self._start(agent, kind, token, now_s, duration_s)
        return None

    def _stop(self, agent: int, now_s: float) -> None:
        self._busy_s[self._kind[agent]][agent] += now_s - self._start_s[agent]
        self._kind[agent] = _IDLE
        self._finish_s[agent] = math.inf

    def state(self) -> dict[str, Any]:
        """Arrays for a checkpoint: ``[n]``, and one entry per waiting piece of work."""
        waiting = [
            (agent, kind, duration_s, token)
            for kind in (ACT, LEARN)
            for agent, queue in enumerate(self._pending[kind])
            for duration_s, token in queue
        ]
        return {
            "on": np.array(self._on, dtype=np.bool_),
            "kind": np.array(self._kind, dtype=np.int64),
            "token": np.array(self._token, dtype=np.int64),
            "start_s": np.array(self._start_s, dtype=np.float64),
            "finish_s": np.array(self._finish_s, dtype=np.float64),
            "remaining_s": np.array(self._remaining_s, dtype=np.float64),
            "busy_act_s": np.array(self._busy_s[ACT], dtype=np.float64),
            "busy_learn_s": np.array(self._busy_s[LEARN], dtype=np.float64),
            "waiting_agent": np.array([w[0] for w in waiting], dtype=np.int64),
            "waiting_kind": np.array([w[1] for w in waiting], dtype=np.int64),
            "waiting_duration_s": np.array([w[2] for w in waiting], dtype=np.float64),
            "waiting_token": np.array([w[3] for w in waiting], dtype=np.int64),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a ``state()`` of as many units."""
        n = len(self._on)
        if len(state["on"]) != n:
            raise ValueError(
                f"state of {len(state['on'])} compute units does not fit {n}; "
                "load it into a run of the same scenario"
            )
        self._on = [bool(on) for on in state["on"]]
        self._kind = [int(kind) for kind in state["kind"]]
        self._token = [int(token) for token in state["token"]]
        self._start_s = [float(time) for time in state["start_s"]]
        self._finish_s = [float(time) for time in state["finish_s"]]
        self._remaining_s = [float(time) for time in state["remaining_s"]]
        self._busy_s = (
            [float(time) for time in state["busy_act_s"]],
            [float(time) for time in state["busy_learn_s"]],
        )
        self._pending = ([[] for _ in range(n)], [[] for _ in range(n)])
        entries = zip(
            state["waiting_agent"],
            state["waiting_kind"],
            state["waiting_duration_s"],
            state["waiting_token"],
            strict=True,
        )
        for agent, kind, duration_s, token in entries:
            self._pending[int(kind)][int(agent)].append((float(duration_s), int(token)))
