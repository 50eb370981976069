"""After the work: the head on every host that answers, the revision and the audit line in this working copy."""

from __future__ import annotations

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.model.events import Emit, Note
from k4t.model.state import Head
from k4t.remote import head as remote_head
from k4t.remote.transport import Transport


def write_heads(fleet: Fleet, head: Head, emit: Emit) -> None:
    """The head to every host that is connected. A host that fails is named: the highest head seen counts, so one
    that is behind does no harm."""

    def write(transport: Transport) -> None:
        try:
            remote_head.write(transport, head)
        except K4tError as error:
            emit(Note(f"the head was not written: {error}", warning=True))

    at_once(write, fleet.connected().values())
