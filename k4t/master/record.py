"""After the work: the head on every host that answers, the revision and the audit line in this working copy."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.history import WorkingCopy
from k4t.master.planning.lineage import recorded
from k4t.master.revisions import applied
from k4t.model.events import Emit, Note
from k4t.model.snapshot import Lineage
from k4t.model.spec import Tree
from k4t.model.state import Head
from k4t.remote import head as remote_head
from k4t.remote.transport import Transport

GONE = hashlib.sha256(b"").hexdigest()
"""The hash of an app that the tree no longer has."""


def app_hashes(tree: Tree, scope: Iterable[str]) -> dict[str, str]:
    return {name: tree.app_sha256.get(name, GONE) for name in scope}


def changed_hashes(head: Head | None, hashes: dict[str, str]) -> dict[str, str]:
    """Those that differ from the newest that the head knows: what a revision is about."""
    newest = applied(head)
    return {name: sha256 for name, sha256 in hashes.items() if newest.get(name) != sha256}


def lineage(copy: WorkingCopy, head: Head | None, *, serial: int, who: str, at: str, emit: Emit) -> Lineage:
    """Whose history this is from now on. The working copy knows it before any host does: a master that is killed in
    between is not fenced off by itself."""
    new = begun(serial=serial, who=who, at=at)
    found = recorded(copy.lineage(), head.lineage if head else None, new)
    try:
        copy.keep_lineage(found)
    except K4tError as error:
        emit(Note(str(error), warning=True))
    return found


def begun(*, serial: int, who: str, at: str) -> Lineage:
    """One that begins now."""
    return Lineage(id=secrets.token_hex(8), serial=serial, who=who, at=at)


def write_heads(fleet: Fleet, head: Head, emit: Emit) -> None:
    """The head to every host that this run may act on. One that can't take it is named: the highest head seen counts,
    so a host that is behind does no harm."""

    def write(transport: Transport) -> None:
        try:
            remote_head.write(transport, head)
        except K4tError as error:
            emit(Note(f"the head was not written: {error}", warning=True))

    at_once(write, fleet.mine().values())


def remember(copy: WorkingCopy, head: Head, about: dict[str, str], entry: dict[str, object], emit: Emit) -> None:
    """Revision and audit line. The hosts have the head by now, so a working copy that can't be written is a warning."""
    revision = {"serial": head.serial, "tree": head.tree, "apps": about, "who": head.who, "at": head.at}
    try:
        more = {"message": entry["message"], "result": entry["result"], "digests": dict(head.digests)}
        copy.remember(head.serial, revision | more, applied(head))
        copy.audit(entry)
    except K4tError as error:
        emit(Note(str(error), warning=True))
