"""The locks of one run: the tree's own, then this cluster's on every host that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k4t.errors import K4tError, Unreachable
from k4t.master.fleet import Fleet
from k4t.model.events import Emit, Note
from k4t.remote import lock


@contextmanager
def locked(path: Path, fleet: Fleet, holder: lock.Holder, emit: Emit, *, wait_s: float) -> Iterator[None]:
    """Hold them while entered. Raises Locked (who, where, since when), K4tError for a host that can't hold a lock.

    A host whose lock is lost is unreachable for the rest of the run: its connection is ended here too.
    """
    transports = {transport.host: transport for transport in fleet.connected().values()}

    def lost(host: str) -> None:
        emit(Note(f"{host}: the lock is lost, this run does nothing more there", warning=True))
        transports[host].close()

    with lock.LocalLock(path).take(holder, wait_s=wait_s):
        held = lock.take_all(
            list(transports.values()), fleet.tree.cluster.id, holder, wait_s=wait_s, on_lost=lost
        )  # fmt: skip
        try:
            for host, error in held.failed.items():
                _unlockable(error)
                lost(host)
            yield
        finally:
            held.release()


def _unlockable(error: K4tError) -> None:
    """A host that went away is unknown from here on; one that refuses to hold a lock must be put right first."""
    if not isinstance(error, Unreachable):
        raise error
