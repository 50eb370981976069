"""The end of a delivery's time, whatever the other side does: one that sends a byte now and then never runs into a
socket's own time-out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

STEP_S = 10.0


class Bound:
    """Ends what it watches `within_s` from now, or when it is `cut`."""

    def __init__(self, within_s: float) -> None:
        self.within_s = within_s
        self._deadline_s = time.monotonic() + within_s
        self._guard = threading.Lock()
        self._watched: list[socket.socket] = []
        self._over = threading.Event()
        self.is_cut = False
        self._timer = threading.Timer(within_s, self.end)
        self._timer.daemon = True

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    @property
    def step_s(self) -> float:
        """For one operation of a socket."""
        return max(0.1, min(STEP_S, self._deadline_s - time.monotonic()))

    def watch(self, connection: socket.socket) -> None:
        """By a descriptor of its own: TLS takes the given one away from its socket."""
        with self._guard:
            self._watched.append(connection.dup())
        if self.is_over:
            self.end()

    def cut(self) -> None:
        """End it early."""
        self.is_cut = True
        self.end()

    def end(self) -> None:
        self._over.set()
        with self._guard:
            for connection in self._watched:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._guard:
            for connection in self._watched:
                connection.close()
            self._watched.clear()
