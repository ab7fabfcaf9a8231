"""A wire between two processes of this machine that can be cut and healed, as a network would be."""

from __future__ import annotations

import selectors
import socket
import threading

_CHUNK = 65_536


class Wire:
    """Forwards TCP connections from ``port`` to a port of this machine, until it is cut.

    While it is cut nothing passes and nothing ends: what was sent waits, as behind an unplugged cable.
    """

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._whole = threading.Event()
        self._whole.set()
        self._ended = False
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._ended = True
        self._whole.set()
        self._thread.join(5.0)
        self._listener.close()

    def _forward(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ, None)
        ends: list[socket.socket] = []
        while not self._ended:
            self._whole.wait()
            for key, _ in selector.select(0.1):
                if not self._whole.is_set():
                    break
                if key.data is None:
                    near, _ = self._listener.accept()
                    try:
                        far = socket.create_connection(self._target, 1.0)
                    except OSError:
                        near.close()
                        continue
                    for one, other in ((near, far), (far, near)):
                        selector.register(one, selectors.EVENT_READ, other)
                        ends.append(one)
                    continue
                one, other = key.fileobj, key.data
                assert isinstance(one, socket.socket)
                try:
                    data = one.recv(_CHUNK)
                    if data:
                        other.sendall(data)
                        continue
                except OSError:
                    pass
                for end in (one, other):
                    if end.fileno() >= 0 and end in selector.get_map():
                        selector.unregister(end)
                    end.close()
        for end in ends:
            end.close()
        selector.close()
