"""The locks of one run: the tree's own, then this cluster's on every host that answers; on late ones when they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k4t.errors import K4tError, Locked, Unreachable
from k4t.master.fleet import Fleet, Key, at_once
from k4t.model.events import Emit, Note
from k4t.remote import lock
from k4t.remote.transport import Transport

LATE_WAIT_S = 3.0
"""Another run that is refused holds the lock of a late host for a moment."""


class Locks:
    """The locks on hosts. What they are held on is `fleet.locked`; a host whose lock is lost is unreachable for the
    rest of the run: its connection is ended here too."""

    def __init__(self, fleet: Fleet, holder: lock.Holder, emit: Emit) -> None:
        self._fleet = fleet
        self._holder = holder
        self._emit = emit
        self._transports: dict[str, Transport] = {}
        self._held: list[lock.HostLock] = []

    def take(self, wait_s: float) -> None:
        """On every host that answers. Raises Locked (who, where, since when), K4tError for one that can't hold a
        lock; none is held then."""
        self._fleet.meet()
        hosts = self._fleet.lockable()
        self._transports = {transport.host: transport for transport in hosts.values()}
        held = lock.take_all(
            list(hosts.values()), self._fleet.tree.cluster.id, self._holder, wait_s=wait_s, on_lost=self._lost
        )  # fmt: skip
        self._held = list(held.locks.values())
        try:
            for host, error in held.failed.items():
                _unlockable(error)
                self._lost(host)
        except K4tError:
            self.release()
            raise
        self._fleet.locked = frozenset(key for key, one in hosts.items() if one.host in held.locks)

    def take_late(self) -> None:
        """On hosts that have answered since. One that is held elsewhere, or can't be locked, is barred."""
        before = self._fleet.locked or frozenset()
        late = {key: one for key, one in self._fleet.lockable().items() if key not in before}
        self._transports |= {transport.host: transport for transport in late.values()}
        found = [key for key in at_once(self._take_one, late.items()) if key is not None]
        self._fleet.locked = before.union(found)

    def _take_one(self, host: tuple[Key, Transport]) -> Key | None:
        key, transport = host
        cluster = self._fleet.tree.cluster.id
        try:
            taken = lock.HostLock.take(transport, cluster, self._holder, wait_s=LATE_WAIT_S, on_lost=self._lost)
        except Locked as error:
            self._fleet.barred[key] = error
            return None
        except K4tError as error:
            self._fleet.barred[key] = error
            transport.close()
            return None
        self._held.append(taken)
        return key

    def _lost(self, host: str) -> None:
        self._emit(Note(f"{host}: the lock is lost, this run does nothing more there", warning=True))
        self._transports[host].close()

    def release(self) -> None:
        held, self._held = self._held, []
        lock.release_all(held)
        self._fleet.locked = None


@contextmanager
def locked(path: Path, fleet: Fleet, holder: lock.Holder, emit: Emit, *, wait_s: float) -> Iterator[Locks]:
    """Hold them while entered. `wait_s` is for all of it. Raises what taking them raises."""
    locks = Locks(fleet, holder, emit)
    began_s = time.monotonic()
    with lock.LocalLock(path).take(holder, wait_s=wait_s):
        locks.take(max(0.0, wait_s - (time.monotonic() - began_s)))
        try:
            yield locks
        finally:
            locks.release()


def _unlockable(error: K4tError) -> None:
    """A host that went away is unknown from here on; one that refuses to hold a lock must be put right first."""
    if not isinstance(error, Unreachable):
        raise error
