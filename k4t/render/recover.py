"""What `k4t recover` says: what was taken from where, what it could not find out, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.master.backup.recover import Asked, Recovered, missing_keys
from k4t.tree.read import read_tree


def lines(done: Recovered, asked: Asked, kit: Path) -> str:
    manifest = done.manifest
    taken = f"the copy of {manifest.time} from {done.source}"
    said = [
        f"{asked.kit.name} ({asked.kit.id}) is back in {done.directory}: serial {manifest.serial}, {taken}.",
        f"This machine is the master now (generation {done.lineage.generation}); the old one's next apply is refused.",
        *(f"Passed over: {sentence}" for sentence in done.refused),
        *(f"Not in it, and live: {sentence}" for sentence in done.missing),
        *(f"Warning: {sentence}" for sentence in _warnings(done)),
        "",
        "Next:",
        *(f"  {sentence}" for sentence in _next(done, asked, kit)),
    ]
    return "\n".join(said)


def _warnings(done: Recovered) -> Iterator[str]:
    yield from done.notes
    yield from done.away
    if not done.answered and not done.notes:
        yield "no host says what is live: whether anything newer was applied than this copy is unknown"
    if done.untold:
        yield f"not told yet who is the master, and will be at the next apply: {', '.join(done.untold)}"
    if done.signs:
        yield f"this machine may make no copies yet: {done.signs}; k4t kit certify --kit FILE"


def _next(done: Recovered, asked: Asked, kit: Path) -> Iterator[str]:
    """Lines that can be typed as they stand."""
    for path in _keys(done.directory):
        yield f"# put the SSH key to {path}: the tree names it, and it is not here"
    if asked.jump:
        yield f'# say the way in cluster.xml: <ssh jump="{asked.jump}"/>, or in ~/.ssh/config'
    if done.secrets is not None:
        own = done.secrets and asked.kit.identity
        remark = "opens the tree's secrets" if own else "an identity that opens the tree's secrets; the kit's doesn't"
        yield f"export K4T_IDENTITY={shlex.quote(str(kit.absolute())) if own else 'FILE'}  # {remark}"
    yield f"export K4T_DB={shlex.quote(str(done.directory.absolute()))}"
    yield "k4t plan  # nothing to do, if all is well"
    yield "k4t backup  # copies go on from here; on a schedule: k4t backup schedule install"
    yield f"k4t kit --check {shlex.quote(str(kit))}  # does the kit still fit?"


def _keys(db: Path) -> list[str]:
    try:
        return list(missing_keys(read_tree(db)))
    except K4tError:
        return []


def as_json(done: Recovered, asked: Asked) -> dict[str, Any]:
    manifest, lineage = done.manifest, done.lineage
    return {
        "version": 1,
        "cluster": asked.kit.name,
        "id": asked.kit.id,
        "directory": str(done.directory),
        "copy": {
            "from": done.source, "serial": manifest.serial, "sequence": manifest.sequence, "time": manifest.time,
            "generation": manifest.generation,
        },
        "lineage": {"generation": lineage.generation, "id": lineage.id, "serial": lineage.serial},
        "asked": done.asked,
        "answered": done.answered,
        "refused": list(done.refused),
        "missing": list(done.missing),
        "warnings": list(_warnings(done)),
    }  # fmt: skip
