"""What this working copy remembers, in `.k4t/` of the tree: the serial it last applied, revisions, the audit log,
and whose history that is (`planning.lineage`).

Nothing here is needed to go on from another machine: the head on the hosts is. It serves people, and it tells a
deliberate step back (this copy applied the newest serial) from an old clone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from k4t.errors import K4tError
from k4t.master.kept import Store
from k4t.model.snapshot import Lineage
from k4t.remote.head import lineage_from_json, lineage_to_json
from k4t.tree.edit import write_file


class WorkingCopy:
    """The `.k4t/` directory of one tree. Reading a copy that has none answers None or nothing."""

    def __init__(self, tree: Path) -> None:
        self.directory = tree / ".k4t"

    def prepare(self) -> None:
        """Make the directory. Raises K4tError when the tree can't be written."""
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise K4tError(
                f"can't write {self.directory}: {error.strerror}", "apply from a copy of the tree you may write"
            ) from error

    @property
    def lock_path(self) -> Path:
        return self.directory / "lock"

    def log_is_closed(self) -> bool:
        """Whether the redo log has as many ends as beginnings: then nothing in it needs looking at. Quotes within a
        record are escaped, so nothing else looks like that."""
        try:
            data = (self.directory / "redo.log").read_bytes()
        except OSError:
            return not (self.directory / "redo.log").exists()
        return data.count(b'"kind":"begin"') == data.count(b'"kind":"end"')

    def base_serial(self) -> int | None:
        """The serial that this working copy applied last; None when it never did, or forgot."""
        try:
            return int((self.directory / "base").read_text())
        except (OSError, ValueError):
            return None

    def lineage(self) -> Lineage | None:
        """Whose history this working copy is part of; None when it never applied, or forgot."""
        try:
            return lineage_from_json(json.loads((self.directory / "lineage").read_bytes()))
        except (OSError, ValueError, RecursionError):
            return None

    def keep_lineage(self, lineage: Lineage) -> None:
        """Raises K4tError naming the path."""
        if self.lineage() != lineage:
            self.prepare()
            write_file(self.directory / "lineage", _line(lineage_to_json(lineage)))

    @property
    def store(self) -> Store:
        return Store(self.directory)

    def remember(self, serial: int, revision: Mapping[str, object], applied: Mapping[str, str]) -> None:
        """Keep a revision, the tree's files and the serial. `applied`: the hash of each app as it was applied last.
        Raises K4tError naming the path; the revision and the serial are kept then all the same, if they can be."""
        failure: K4tError | None = None
        try:
            revision = {**revision, **self.store.keep(self.directory.parent, applied)}
        except K4tError as error:
            failure = error
        self._remember(serial, revision)
        if failure is not None:
            raise failure

    def _remember(self, serial: int, revision: Mapping[str, object]) -> None:
        revisions = self.directory / "revisions"
        try:
            revisions.mkdir(mode=0o700, exist_ok=True)
            write_file(revisions / f"{serial:06}.json", _line(revision))
            write_file(self.directory / "base", f"{serial}\n".encode())
            self.store.tidy()
        except OSError as error:
            raise K4tError(f"can't write {self.directory}: {error.strerror}") from error

    def audit(self, entry: Mapping[str, object]) -> None:
        """Append one line: who did what, when, why, with which --allow. Lines are chained by sha256."""
        path = self.directory / "audit.jsonl"
        try:
            with path.open("a+b") as log:
                log.write(_line({**entry, "previous": _last_hash(path)}))
                log.flush()
                os.fsync(log.fileno())
        except OSError as error:
            raise K4tError(f"can't write {path}: {error.strerror}") from error


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _last_hash(path: Path) -> str:
    """sha256 of the last line; of nothing when there is none."""
    size_bytes = path.stat().st_size
    with path.open("rb") as log:
        log.seek(max(0, size_bytes - 64 * 1024))
        lines = log.read().splitlines(keepends=True)
    return hashlib.sha256(lines[-1] if lines else b"").hexdigest()
