"""One taking of the host's allocation lock, shared by the threads of a run that create containers there.

Taking it costs the host some twenty milliseconds of CPU, as much as a fifth of a container. So it is kept for a
moment after its last use, and numbers that are about to be used are remembered until their container has its label.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from k4t.errors import StepError

LINGER_S = 0.25
MAX_AGE_S = 20.0
"""The lock is for short operations: after that long it is given back before it is taken again."""
WAIT_S = 300.0
"""For containers that are being created under a hold that is too old."""


class Held(Protocol):
    """What k4t.remote.lock.host_lock holds. `listening`: the host's sockets, by protocol and number."""

    @property
    def listening(self) -> frozenset[tuple[str, int]]: ...


Locker = Callable[[], AbstractContextManager[Held]]
Key = tuple[str, int]


Entries = list[dict[str, Any]]


class Allocator:
    """`choosing` is held while numbers are chosen; `in_flight` are those of containers that are being created. A key is
    protocol and number on the node's own address, or an address of its pool and 0.

    While the lock is held nobody else takes a number, so one listing of containers serves all that are created:
    `seen`, and what has been `made` since. Only what is gone since is not known: who finds a number taken looks again.
    """

    def __init__(self) -> None:
        self.choosing = threading.Lock()
        self.in_flight: dict[Key, str] = {}
        self.seen: Entries | None = None
        self.made: dict[Key, str] = {}
        self._guard = threading.Condition()
        self._users = 0
        self._since = 0.0
        self._lock: AbstractContextManager[Held] | None = None
        self._held: Held | None = None
        self._timer: threading.Timer | None = None

    @contextmanager
    def hold(self, locker: Locker) -> Iterator[Held]:
        """The host's lock, taken or shared. Raises what taking it raises."""
        held = self._enter(locker)
        try:
            yield held
        finally:
            self._leave()

    def close(self) -> None:
        """Give the lock back now, if nobody uses it."""
        with self._guard:
            self._release_unused()

    def _enter(self, locker: Locker) -> Held:
        with self._guard:
            if not self._guard.wait_for(lambda: self._users == 0 or self._young(), WAIT_S):
                raise StepError(f"waited {WAIT_S:g} s for other containers of this host to be created")
            if not self._young():
                self._release_unused()
            if self._held is None:
                lock = locker()
                self._held = lock.__enter__()
                self._lock, self._since = lock, time.monotonic()
                self.seen, self.made = None, {}
            self._users += 1
            return self._held

    def _leave(self) -> None:
        with self._guard:
            self._users -= 1
            self._guard.notify_all()
            if self._users == 0:
                self._timer = threading.Timer(LINGER_S, self.close)
                self._timer.daemon = True
                self._timer.start()

    def _young(self) -> bool:
        return self._held is not None and time.monotonic() - self._since < MAX_AGE_S

    def _release_unused(self) -> None:
        if self._users:
            return
        if self._timer is not None:
            self._timer.cancel()
        lock, self._lock, self._held, self._timer = self._lock, None, None, None
        if lock is not None:
            lock.__exit__(None, None, None)
