"""Where copies go: the tree's `<backup>` elements as hosts that the fleet can reach, each machine connected once."""

from __future__ import annotations

from k4t.errors import K4tError
from k4t.master.backup.target import Target
from k4t.master.fleet import Fleet, Host, backup_host
from k4t.model.shared import NOWHERE, Where
from k4t.model.spec import Backup, Tree
from k4t.model.value import value


@value
class TargetSpec:
    """`name`: the node's, or the host as the tree writes it. `host`: how it is reached. `dead`: the tree gave it up,
    so nothing is copied there, and nobody waits for it."""

    name: str
    every_s: float
    keep: int
    keep_daily: int
    encrypted: bool
    host: Host
    dead: bool = False
    where: Where = NOWHERE


def targets_of(tree: Tree) -> list[TargetSpec]:
    """In the tree's order."""
    return [_target(tree, one) for one in tree.cluster.backups]


def _target(tree: Tree, one: Backup) -> TargetSpec:
    host = backup_host(tree, one)
    return TargetSpec(
        name=one.node or one.host, every_s=one.every_s, keep=one.keep, keep_daily=one.keep_daily,
        encrypted=one.encrypted, host=host, where=one.where,
        dead=bool(one.node) and tree.nodes[one.node].availability == "dead",
    )  # fmt: skip


def open_target(fleet: Fleet, spec: TargetSpec) -> Target:
    """Raises what connecting raises."""
    known = fleet.hosts.get(spec.host.key, spec.host)
    return Target(fleet.connection(known), fleet.tree.cluster.id, name=spec.name)


def named(tree: Tree, name: str) -> TargetSpec:
    """Raises K4tError with the names there are."""
    found = {one.name: one for one in targets_of(tree)}
    if name not in found:
        raise K4tError(f"the tree has no <backup> {name!r}", f"it has: {', '.join(sorted(found)) or 'none'}")
    return found[name]
