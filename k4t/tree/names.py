"""Names of things in the tree, by listing only: for shell completion, instant and never an error."""

from __future__ import annotations

import os
from pathlib import Path

_DIRECTORIES = {
    "app": "apps",
    "node": "nodes",
    "gateway": "gateways",
    "certificate": "certificates",
    "secret": "secrets",
}
_LIMIT = 10_000


def names(directory: Path, kind: str) -> list[str]:
    """Sorted names of apps, nodes, gateways, dns, certificates or secrets (singular or plural)."""
    kind = _DIRECTORIES.get(kind, kind)
    try:
        found = os.listdir(os.path.join(directory, kind))
    except (OSError, ValueError):
        return []
    visible = [name for name in found[:_LIMIT] if not name.startswith((".", "README"))]
    if kind == "apps":
        return sorted(visible)
    stems = (name.rpartition(".") for name in visible)
    return sorted({stem for stem, _, extension in stems if extension in ("xml", "age") and stem})
