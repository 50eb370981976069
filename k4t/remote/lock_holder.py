"""Who holds this cluster's lock on a host. Asking shares the lock for a moment, which those who want it wait out."""

from __future__ import annotations

from k4t.remote.lock import STATE, Holder, read_record
from k4t.remote.transport import Transport

SCRIPT = '[ ! -e "$1" ] || flock -n -s "$1" true || head -n 1 "$1"'


def holder_of(transport: Transport, cluster_id: str) -> Holder | None:
    """None when nobody holds it. Raises what the connection raises."""
    done = transport.run(["sh", "-c", SCRIPT, "sh", f"{STATE}/{cluster_id}/lock"])
    return read_record(done.stdout)
