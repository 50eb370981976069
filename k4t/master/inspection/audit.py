"""The audit log of this working copy, read and checked. `history.WorkingCopy.audit` writes it: each line holds the
sha256 of the one before, so that none can be changed or taken out without a trace (but the last)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k4t.errors import K4tError


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain does not hold. `line` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


MAX_BYTES = 256 * 1024 * 1024
NOTHING = hashlib.sha256(b"").hexdigest()


def path_of(tree: Path) -> Path:
    return tree / ".k4t" / "audit.jsonl"


def entries(tree: Path) -> list[dict[str, Any]]:
    """In order of writing; what can't be read is left out (`breaks` names it)."""
    found = []
    for _, line in _lines(path_of(tree)):
        entry = _parsed(line)
        if entry is not None:
            found.append(entry)
    return found


def breaks(tree: Path) -> list[Break]:
    """Where the chain does not hold. Empty: every line is as it was written."""
    path = path_of(tree)
    found = []
    previous = NOTHING
    for number, line in _lines(path):
        entry = _parsed(line)
        if entry is None:
            found.append(Break(str(path), number, "this is no line of the audit log"))
        elif entry.get("previous") != previous:
            what = "the line before it is not the one that was there when it was written" if number > 1 else (
                "it was not the first line: what stood before it is gone"
            )  # fmt: skip
            found.append(Break(str(path), number, what))
        previous = hashlib.sha256(line).hexdigest()
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise K4tError(f"{path} is larger than {MAX_BYTES >> 20} MiB", "move it away: a new one is begun")
        with path.open("rb") as log:
            yield from enumerate(log, 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise K4tError(f"can't read {path}: {error.strerror}") from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "previous" in found else None
