"""A master takes the cluster over: every host that answers is told whose history it is now, under the locks.

The pure rule is `planning.lineage`; the old master finds it in the head at its next apply, and is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from k4t.errors import K4tError, Unsafe
from k4t.master.backup.targets import targets_of
from k4t.master.fleet import Fleet, Host, at_once
from k4t.master.planning import serials
from k4t.master.planning.lineage import fenced
from k4t.master.planning.safety import behind
from k4t.model.events import Note
from k4t.model.snapshot import Lineage
from k4t.model.state import Head
from k4t.model.value import value
from k4t.remote import head as remote_head

if TYPE_CHECKING:
    from k4t.master.run import Run


@value
class Heard:
    """What one host says: its head (None: it has none), or why it can't be asked."""

    host: str
    head: Head | None = None
    error: K4tError | None = None


def hosts_of(fleet: Fleet) -> list[Host]:
    """The tree's machines, and those that keep copies alone."""
    others = {target.host.key: target.host for target in targets_of(fleet.tree) if target.host.key not in fleet.hosts}
    return [*fleet.hosts.values(), *others.values()]


def heads(fleet: Fleet, silent: Mapping[str, K4tError] | None = None) -> list[Heard]:
    """Of all hosts at once. `silent`: those that could not be asked a moment ago, and why; of them, hosts that keep
    copies alone are not asked again. Raises nothing."""
    cluster, known = fleet.tree.cluster.id, silent or {}

    def ask(host: Host) -> Heard:
        if host.name in known and host.key not in fleet.hosts:
            return Heard(host.name, error=known[host.name])
        try:
            return Heard(host.name, remote_head.read(fleet.connection(host), cluster))
        except K4tError as error:
            return Heard(host.name, error=error)

    return at_once(ask, hosts_of(fleet))


def require_newest(run: Run, head: Head | None, allows: Collection[str]) -> None:
    """What changes hosts without a plan is for the master and the newest tree alone, as an apply is. Raises Unsafe."""
    if "rewind" in allows:
        return
    tree = run.tree
    words = fenced(run.copy.lineage(), head.lineage if head else None)
    words = words or behind(tree.sha256, tree.app_sha256, head, run.copy.base_serial(), None)
    if words:
        raise Unsafe(f"unsafe: {words}", "do it from the newest tree; if that is meant, add --allow rewind")


def announce(run: Run, lineage: Lineage) -> tuple[str, ...]:
    """The newest head, with this lineage, on every host. The names of those that could not be told: they take what the
    next apply tells them. Raises what taking the locks raises."""
    with run.lock():
        return tell(run, lineage, heads(run.fleet))


def tell(run: Run, lineage: Lineage, heard: list[Heard]) -> tuple[str, ...]:
    """`announce`, under the locks already. `heard`: all heads, as they are now."""
    found = serials.newest(one.head for one in heard if one.head is not None) or Head(run.tree.cluster.id)
    head = dataclasses.replace(found, lineage=lineage, who=run.who, at=run.at)
    locked, silent = run.fleet.locked, {one.host for one in heard if one.error is not None}

    def write(host: Host) -> str:
        if host.name in silent or (locked is not None and host.key in run.fleet.hosts and host.key not in locked):
            return host.name
        try:
            remote_head.write(run.fleet.connection(host), head)
        except K4tError as error:
            run.emit(Note(f"{host.name} was not told who is the master: {error.words}", warning=True))
            return host.name
        return ""

    return tuple(name for name in at_once(write, hosts_of(run.fleet)) if name)
