"""“Off on purpose”: before the master goes off, it says so where a monitor looks, so that no alarm rings.

`/var/lib/k4t/CLUSTERID/off` on `places`: one line (`signed`, `backup.envelope`) whose text is, final:

    {"format":1,"cluster":ID,"host":NAME,"who":USER@HOST,"at":TIME,"why":TEXT}

`host`: what `<power host=…>` says. It stands until the master wakes: then, or when it could not be switched off, it is
taken away. A monitor believes one that is signed by a certified key, and not contradicted by most of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.master.power import signed
from k4t.master.power.places import Failure, directory, everywhere, places
from k4t.master.power.signed import Refused, Trust
from k4t.model.value import value
from k4t.remote.transport import Transport

if TYPE_CHECKING:
    from k4t.master.backup.keys import Keys

FORMAT = 1
TEXTS = ("cluster", "host", "who", "at", "why")
MAX_TEXT = 200


@value
class Off:
    """`at`: RFC 3339 UTC."""

    cluster: str
    host: str
    who: str
    at: str
    why: str = ""


def path(cluster_id: str) -> str:
    return f"{directory(cluster_id)}/off"


def encode(off: Off, keys: Keys | None) -> bytes:
    texts = {key: getattr(off, key)[:MAX_TEXT] for key in TEXTS}
    return signed.encode(signed.OFF, {"format": FORMAT, **texts}, keys)


def decode(data: bytes, trust: Trust) -> Off:
    """Raises Refused. One without a signature counts only in a cluster that has no key at all."""
    found = signed.decode(signed.OFF, data, trust, unsigned=not trust.key)
    if found.pop("format", None) != FORMAT:
        raise Refused("it is of another format: a newer k4t wrote it")
    if set(found) != set(TEXTS) or not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in found.values()):
        raise Refused("it does not say who is off, since when and why")
    return Off(**found)


def announce(fleet: Fleet, off: Off, keys: Keys | None) -> tuple[list[str], list[Failure]]:
    """Say it on all places: where it stands now, and where it could not be said."""
    data = encode(off, keys)

    def write(transport: Transport) -> None:
        transport.put(path(off.cluster), data, 0o644)

    done, failed = everywhere(fleet, places(fleet), write)
    return list(done), failed


def take_away(fleet: Fleet) -> list[Failure]:
    """From all places that answer; one that does not keeps it until the next run."""
    at = path(fleet.tree.cluster.id)

    def clear(transport: Transport) -> None:
        done = transport.run(["rm", "-f", "--", at])
        if not done.ok:
            raise K4tError(done.words(), host=transport.host)

    return everywhere(fleet, places(fleet), clear)[1]
