"""How long messages take between two processes, and how many bytes a second get through.

One end listens as the world does (`network.sockets.Hub`), the other connects as an agent does (`Line`), so
keys, encryption and socket settings are those of a run. The listening end answers each message with a small
one, or, in a stream, the last one only.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from f2a2_sim.deployment.fit import Delays, fit_delays
from f2a2_sim.deployment.keyring import Keys
from f2a2_sim.errors import RunError
from network.keys import WORLD, agent_name, make_keys
from network.sockets import Hub, Line, Security
from network.voice import Voice
from network.wire import WORLD_NUMBER, Limits

_AGENT = 0
_STREAM = 16
"""Messages sent one after the other; fewer than a socket keeps."""
_ANSWER_S = 30.0
_JOIN_S = 60.0
_POLL_S = 0.2
_SMALL_SHARE = 0.3  # of the time, for small messages
_NOTHING: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)


@dataclass(frozen=True)
class LinkBench:
    """What was measured between two processes."""

    round_trip_s: float
    """Median of small messages."""
    large_s: float
    """Median from sending a message of the scenario's size to a small answer."""
    message_bytes: int
    delays: Delays


def answer(
    bind: str,
    security: Security,
    stop: Callable[[], bool],
    on_bound: Callable[[str], None] = lambda endpoint: None,
) -> None:
    """Answer the other end until it says that it is done, or ``stop`` does; raises EndpointError."""
    context: zmq.Context[Any] = zmq.Context()
    hub = None
    try:
        security.gate(context)
        hub = Hub(context, security, Limits())
        on_bound(hub.bind(bind))
        voice = Voice(WORLD_NUMBER)
        while not stop():
            hub.socket.poll(int(1000 * _POLL_S))
            while (message := hub.receive()) is not None:
                if message.kind == "done":
                    return
                number = message.fields.get("number")
                if message.kind == "probe" and isinstance(number, int) and abs(number) < 2**62:
                    hub.send(message.sender, voice.frames("answer", {"number": number}))
    finally:
        if hub is not None:
            hub.close(linger_s=2.0)
        security.close()
        context.term()


def measure_link(
    endpoint: str, security: Security, message_bytes: int, seconds: float, agent: int = _AGENT
) -> LinkBench:
    """Measure the link to the process that answers at ``endpoint``, as that agent, for about ``seconds``.

    Raises RunError if it does not answer, and EndpointError.
    """
    context: zmq.Context[Any] = zmq.Context()
    line = None
    try:
        security.gate(context)
        line = Line(context, security, Limits())
        line.connect(endpoint)
        return _Prober(line, endpoint, agent).measure(message_bytes, seconds)
    finally:
        if line is not None:
            line.close(linger_s=2.0)
        security.close()
        context.term()


class _Prober:
    def __init__(self, line: Line, endpoint: str, agent: int) -> None:
        self._line = line
        self._endpoint = endpoint
        self._voice = Voice(agent)
        self._number = 0

    def measure(self, message_bytes: int, seconds: float) -> LinkBench:
        self._await_connection()
        content = np.random.default_rng(0).integers(0, 256, message_bytes, dtype=np.uint8)
        small_s = self._many(_NOTHING, _SMALL_SHARE * seconds)
        large_s = self._many(content, (1.0 - _SMALL_SHARE) / 2 * seconds)
        streams: list[float] = []
        until_s = time.monotonic() + (1.0 - _SMALL_SHARE) / 2 * seconds
        while not streams or time.monotonic() < until_s:
            streams.append(self._stream_s(content))
        size = max(message_bytes, 1)
        stream_s = float(np.median(streams))
        delays = fit_delays(small_s, large_s, stream_s, _STREAM * size, size)
        self._send("done", _NOTHING)
        return LinkBench(float(np.median(small_s)), float(np.median(large_s)), message_bytes, delays)

    def _await_connection(self) -> None:
        until_s = time.monotonic() + _JOIN_S
        while time.monotonic() < until_s:
            if self._line.send(self._voice.frames("probe", {"number": -1})) and self._heard(-1, 1.0):
                return
            time.sleep(0.1)
        raise RunError(
            f"nobody answers at {self._endpoint}: start the other end there with f2a2-sim calibrate "
            "SCENARIO --listen, and see that both have keys of one folder"
        )

    def _many(self, content: NDArray[np.uint8], for_s: float) -> list[float]:
        self._ask("probe", content)
        taken: list[float] = []
        until_s = time.monotonic() + for_s
        while len(taken) < 5 or time.monotonic() < until_s:
            taken.append(self._ask("probe", content))
        return taken

    def _stream_s(self, content: NDArray[np.uint8]) -> float:
        began = time.perf_counter()
        for _ in range(_STREAM - 1):
            self._send("load", content)
        self._ask("probe", content)
        return time.perf_counter() - began

    def _ask(self, kind: str, content: NDArray[np.uint8]) -> float:
        """Seconds from sending a message to its answer."""
        self._number += 1
        began = time.perf_counter()
        self._send(kind, content)
        if not self._heard(self._number, _ANSWER_S):
            raise RunError(
                f"no answer from {self._endpoint} for {_ANSWER_S:g} s; is the link so slow, or cut?"
            )
        return time.perf_counter() - began

    def _send(self, kind: str, content: NDArray[np.uint8]) -> None:
        frames = self._voice.frames(kind, {"number": self._number}, {"content": content})
        until_s = time.monotonic() + _ANSWER_S
        while not self._line.send(frames):
            if time.monotonic() > until_s:
                raise RunError(f"{self._endpoint} takes no messages any more")
            self._line.socket.poll(1, zmq.POLLOUT)

    def _heard(self, number: int, within_s: float) -> bool:
        """Wait for the answer of that number."""
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            self._line.socket.poll(int(1000 * left_s) + 1)
            while (message := self._line.receive()) is not None:
                if message.kind == "answer" and message.fields.get("number") == number:
                    return True
        return False


def measure_localhost(message_bytes: int, seconds: float, insecure: bool = False) -> LinkBench:
    """Both ends on this machine, in two processes; with keys that are made for it and thrown away."""
    context = get_context("forkserver")
    with tempfile.TemporaryDirectory(prefix="f2a2-sim-") as place:
        keys: Path | None = None
        if not insecure:
            keys = Path(place) / "keys"
            make_keys(keys, [WORLD, agent_name(_AGENT)])
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_answering, args=(keys, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            if not ours.poll(_JOIN_S):
                raise RunError("the answering process has not started")
            return measure_link(ours.recv(), Keys(keys).security(agent_name(_AGENT)), message_bytes, seconds)
        except EOFError as error:
            raise RunError("the answering process has died") from error
        finally:
            process.join(5.0)
            if process.is_alive():
                process.terminate()


def _answering(keys: Path | None, end: Any) -> None:
    answer("tcp://127.0.0.1:*", Keys(keys).security(WORLD), lambda: False, end.send)
