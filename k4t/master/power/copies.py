"""Which backup targets hold the tree as it is now, by what this working copy remembers of its copies."""

from __future__ import annotations

from pathlib import Path

from k4t.errors import BadCopy
from k4t.master.backup import keys, memory, snapshot
from k4t.master.backup.pack import picture
from k4t.master.backup.targets import targets_of
from k4t.model.snapshot import Recovery
from k4t.model.spec import Tree


def outdated(db: Path, tree: Tree) -> tuple[tuple[str, str], ...]:
    """(target, why its copy is not the tree). Nodes that were given up count no more. Raises K4tError."""
    targets = [one.name for one in targets_of(tree) if not one.dead]
    if not targets:
        return ()
    own = keys.load(tree)
    if own is None:
        return tuple((name, keys.not_certified(tree.cluster.id).message) for name in targets)
    mark = snapshot.tree_mark(own, picture(db).archive)
    known = memory.load(db, tree.cluster.id)
    why = {name: _why(known.of(name), mark, tree.cluster.id, own.recovery) for name in targets}
    return tuple((name, sentence) for name, sentence in why.items() if sentence)


def _why(last: memory.Remembered, mark: str, cluster: str, recovery: Recovery) -> str:
    if not last.header:
        return last.problem or "none was made from here"
    try:
        found = snapshot.check(last.header.encode(), cluster=cluster, cluster_key=recovery.key)
    except BadCopy as error:
        return error.message
    return "" if found.tree == mark else f"it is of {found.time}, and the tree has changed since"
