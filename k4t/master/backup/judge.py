"""What a look at a target means: which of its copies is the newest good one, whose history it is, whether it holds less
than it should. Pure but for the arithmetic of signatures."""

from __future__ import annotations

from datetime import datetime

from k4t.errors import BadCopy
from k4t.master.backup.snapshot import check, check_confirmation, digest
from k4t.master.backup.target import Known, Listing
from k4t.master.planning.lineage import fenced
from k4t.model.snapshot import Lineage, Manifest
from k4t.model.value import value

HEADERS = 8
"""How many of the newest are looked at first: the newest one alone counts, unless it is none of ours."""


@value
class Trust:
    """Whose copies are believed: this cluster's, under this key."""

    cluster: str
    key: str


@value
class Judged:
    """`newest`: the newest good copy. `refused`: (name, why) of those that claim to be newer and are none."""

    newest: Known | None = None
    refused: tuple[tuple[str, str], ...] = ()


def judge(listing: Listing, trust: Trust) -> Judged:
    """By signatures; names only say where to begin."""
    good: list[Known] = []
    refused = []
    for name, size_bytes, line in reversed(listing.headers):
        known, why = _known(name, line, size_bytes, trust)
        if known is not None:
            good.append(known)
        elif not good:
            refused.append((name, why))
    return Judged(max(good, key=lambda one: one.manifest.order, default=None), tuple(refused))


def _known(name: str, line: bytes, size_bytes: int, trust: Trust) -> tuple[Known | None, str]:
    try:
        known = Known(line + b"\n", check(line + b"\n", cluster=trust.cluster, cluster_key=trust.key))
    except BadCopy as error:
        return None, error.message
    if known.size_bytes != size_bytes:
        return None, f"it has {size_bytes} bytes instead of {known.size_bytes}"
    if known.name != name:
        return None, f"it is {known.name} under another name"
    return known, ""


def remembered(header: str, trust: Trust) -> Known | None:
    """A copy by its first line as it was kept; None for what is none."""
    if not header:
        return None
    try:
        data = header.encode()
        return Known(data, check(data, cluster=trust.cluster, cluster_key=trust.key))
    except (BadCopy, UnicodeEncodeError):
        return None


def replaced(own: Lineage | None, live: Lineage | None, newest: Manifest | None) -> str:
    """Why a working copy of lineage `own` may leave no copy where the head says `live` and `newest` is the newest good
    one: another master took over. "" when it may. One that knows no lineage yet is behind at most."""
    if own is None or (why := fenced(own, live)):
        return why if own else ""
    if newest is None or newest.generation < own.generation or newest.lineage in ("", own.id):
        return ""
    return f"this working copy was replaced: there are copies of another master, the newest of {newest.time}"


def behind(own: Lineage | None, serial: int, live: Lineage | None, newest: Manifest | None) -> str:
    """Why a copy at `serial` would not be the newest there; "" when it would. Asked when nobody replaced us."""
    ours = own.generation if own else 1
    if newest is not None and (newest.generation, newest.serial) > (ours, serial):
        return f"this working copy is at serial {serial}, the copy of {newest.time} at {newest.serial}"
    if live is not None and live.generation > ours:
        return f"this working copy never applied, and {live.who or 'somebody'} took the cluster over at {live.at}"
    return ""


def rolled_back(before: Known | None, newest: Known | None) -> str:
    """What was done to a target on which we left `before` and now find `newest`; "" for nothing."""
    if before is None or (newest is not None and newest.manifest.order >= before.manifest.order):
        return ""
    was = f"the copy of {before.manifest.time} (serial {before.manifest.serial}) that was written there is gone"
    if newest is None:
        return f"{was}, and there is no other: was it wiped?"
    return f"{was}, the newest is of {newest.manifest.time} (serial {newest.manifest.serial}): was it rolled back?"


def confirmed_at(listing: Listing, newest: Known, trust: Trust) -> str:
    """When that copy was last known to be what the tree is (RFC 3339): its own time, or a confirmation's."""
    try:
        said = check_confirmation(listing.confirmed, cluster=trust.cluster, cluster_key=trust.key)
    except BadCopy:
        return newest.manifest.time
    if said.snapshot != digest(newest.manifest):
        return newest.manifest.time
    return max(said.time, newest.manifest.time)


def seconds(time: str) -> float:
    """Since 1970, of an RFC 3339 time."""
    return datetime.fromisoformat(time).timestamp()
