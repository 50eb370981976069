"""What putting a copy back would change in the tree, file by file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from k4t.errors import Usage
from k4t.master.backup import unpack
from k4t.master.backup.compare import of_tree
from k4t.model.value import value
from k4t.tree import files

Present = Mapping[str, tuple[str, bool]]
"""By path, sha256 and whether it is executable."""


@value
class Differences:
    """Paths of the tree, sorted."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def present(directory: Path) -> Present:
    """The tree's files as far as they can be read; nothing where there is none."""
    try:
        found = files.read_files(directory)
    except (Usage, files.Changed):
        return {}
    return {path: (sha256, path in found.executable) for path, sha256 in found.digests.items()}


def differences(now: Present, archive: bytes, app: str = "") -> Differences:
    """Notes, and what a working copy remembers, don't count. `app`: its directory alone. Raises BadCopy."""
    start = f"apps/{app}/" if app else ""
    old = {path: one for path, one in now.items() if path.startswith(start)}
    new = {
        path: (hashlib.sha256(unpack.content(archive, entry)).hexdigest(), entry.mode == 0o755)
        for path, entry in unpack.listed(archive).items()
        if path.startswith(start) and of_tree(path)
    }
    return Differences(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(path for path in new.keys() & old.keys() if new[path] != old[path])),
        tuple(sorted(old.keys() - new.keys())),
    )
