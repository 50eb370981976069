"""Which parts this machine's key made of which contents: `.k4t/backup/parts.json`. It saves packing large files again
to learn what their parts are called; lost or damaged, that is done. Never part of a copy.

    {"version":1,"by":sha256 of the certificate,"parts":[[sha256 of the contents,encrypted,"name",size,"key"],…]}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from pathlib import Path

from k4t.master.backup import memory
from k4t.master.backup.keys import Keys
from k4t.master.backup.parts import LargeFiles, Part, part_from_json, part_to_json

VERSION = 1


def recall(db: Path, keys: Keys, large: LargeFiles) -> LargeFiles:
    """With the parts of `large` that this machine's key made before: those need not be read and packed to be named."""
    if not large.files:
        return large
    known: dict[tuple[str, bool], Part] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = json.loads((memory.directory(db) / "parts.json").read_bytes())
        if (found["version"], found["by"]) == (VERSION, _by(keys)):
            wanted = set(large.chunks)
            known = {
                (chunk, bool(encrypted)): part_from_json(row)
                for chunk, encrypted, *row in found["parts"] if chunk in wanted
            }  # fmt: skip
    return dataclasses.replace(large, known=known)


def save(db: Path, keys: Keys, large: LargeFiles) -> None:
    """Those of these files alone. Raises K4tError naming the path."""
    if not large.files:
        return
    from k4t.tree.edit import write_file

    rows = [[chunk, encrypted, *part_to_json(part)] for (chunk, encrypted), part in sorted(large.known.copy().items())]
    content = {"version": VERSION, "by": _by(keys), "parts": rows}
    path = memory.directory(db) / "parts.json"
    data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    write_file(path, data, 0o600)


def _by(keys: Keys) -> str:
    """Another signing key makes other parts."""
    return hashlib.sha256(keys.certificate.encode()).hexdigest()
