"""History for people and programs, and where a rollback leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k4t.master.revisions import GONE, Entry, Way
from k4t.render.console import Console, table


def history(entries: Sequence[Entry], console: Console) -> None:
    """Newest first."""
    if console.output != "table":
        console.data({"version": 1, "revisions": [_row(entry) for entry in entries]}, rows="revisions")
        return
    if not entries:
        console.note("nothing was applied yet")
        return
    cells = [
        (str(entry.serial), entry.at or "-", entry.who or "-", entry.result or "-", _changed(entry), entry.message)
        for entry in entries
    ]
    console.result(table(("SERIAL", "WHEN", "WHO", "RESULT", "CHANGED", "MESSAGE"), cells, console))


def _row(entry: Entry) -> dict[str, Any]:
    """`kept`: this working copy can go back to it."""
    return {
        "serial": entry.serial, "at": entry.at, "who": entry.who, "message": entry.message, "result": entry.result,
        "tree": entry.tree, "apps": sorted(name for name, sha in entry.apps.items() if sha != GONE),
        "removed": sorted(name for name, sha in entry.apps.items() if sha == GONE), "kept": entry.kept,
    }  # fmt: skip


def _changed(entry: Entry) -> str:
    return " ".join(f"-{name}" if sha == GONE else name for name, sha in sorted(entry.apps.items())) or "-"


def way(back: Way, console: Console) -> None:
    entry = back.entry
    what = ", ".join(back.apps) or "the tree"
    said = ", ".join(filter(None, (entry.at, entry.who, entry.message)))
    console.note(f"{what} goes back to serial {entry.serial}{f' ({said})' if said else ''}")
    for remark in back.remarks:
        console.note(f"! {remark}", "yellow")
