"""What this working copy did with intents, in `.k4t/intents.done`: so that none is done twice, whoever shows it again.

    {"version":1,"intents":[{"id","action","who","at","expires","result","exit_status","error","done_at","tries"}]}

`result`: begun (a run that was killed left it), done, failed, refused. An entry stays as long as its intent could still
be shown; after that, the newest ones stay for people to read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.master.power import intents
from k4t.master.power.intents import Intent
from k4t.model.value import value
from k4t.tree.changes import read
from k4t.tree.edit import write_file

FILE = "intents.done"
KEPT = 200
MAX_ENTRIES = 5000
MAX_TRIES = 2
BEGUN, DONE, FAILED = "begun", "done", "failed"


@value
class Entry:
    id: str
    action: str
    who: str = ""
    at: str = ""
    expires: str = ""
    result: str = BEGUN
    exit_status: int = 0
    error: str = ""
    done_at: str = ""
    tries: int = 1


class Memory:
    """Of one working copy. Reading one that has none answers nothing."""

    def __init__(self, tree: Path) -> None:
        self.path = tree / ".k4t" / FILE

    def entries(self) -> dict[str, Entry]:
        """By id, oldest first. Raises K4tError for a file that is damaged: without it, intents would be done twice."""
        found = read(self.path)
        if found is None:
            return {}
        try:
            rows = json.loads(found.data)["intents"]
            return {row["id"]: _entry(row) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise K4tError(
                f"{self.path} is damaged: what was done already is not known",
                "look at it; if it is removed, intents that are still queued are done again",
            ) from error

    def begin(self, intent: Intent, now: datetime) -> Entry:
        """Write down that it is being done, before it is."""
        before = self.entries()
        old = before.get(intent.id)
        entry = Entry(
            intent.id, intent.words, intent.who, intent.at, intent.expires, tries=old.tries + 1 if old else 1
        )  # fmt: skip
        self._write({**before, entry.id: entry}, now)
        return entry

    def end(self, entry: Entry, result: str, exit_status: int, error: str, now: datetime) -> Entry:
        done_at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = replace(entry, result=result, exit_status=exit_status, error=error[:1000], done_at=done_at)
        self._write({**self.entries(), entry.id: ended}, now)
        return ended

    def _write(self, entries: Mapping[str, Entry], now: datetime) -> None:
        kept = kept_of(entries.values(), now)
        content = {"version": 1, "intents": [asdict(entry) for entry in kept]}
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            write_file(self.path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n", 0o600)
        except OSError as error:
            raise K4tError(f"can't write {self.path}: {error.strerror}") from error


def kept_of(entries: Iterable[Entry], now: datetime) -> list[Entry]:
    """Pure. Those whose intent may still be shown, and the newest of the others; bounded."""
    listed = list(entries)
    recent = {entry.id for entry in listed[-KEPT:]}
    return [one for one in listed if one.id in recent or not intents.expired(one.expires, now)][-MAX_ENTRIES:]


def to_do(entry: Entry | None) -> bool:
    """Whether an intent of which this is remembered is still to be done. One that was killed is tried once more."""
    return entry is None or (entry.result == BEGUN and entry.tries < MAX_TRIES)


def _entry(row: Mapping[str, Any]) -> Entry:
    known = {key: row[key] for key in Entry.__dataclass_fields__ if key in row}
    return Entry(**known)
