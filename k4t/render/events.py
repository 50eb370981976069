"""What happened, line by line; the audit log."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from k4t.master.inspection.audit import Break
from k4t.master.inspection.events import Told
from k4t.render.console import Console, plural, table

GRAVE = ("die", "oom", "health_status unhealthy")
SEEN = ("raised critical", "worse critical", "failed")


def events(told: Told, console: Console, *, last: int) -> None:
    shown = told.happenings[-last:]
    if console.output != "table":
        rows = [dataclasses.asdict(one) for one in shown]
        console.data({"version": 1, "events": rows, "problems": list(told.problems)}, rows="events")
    elif not shown:
        console.note("nothing is remembered")
    else:
        cells = [(one.at, one.node or "-", one.subject, one.what) for one in shown]
        head, *lines = table(("TIME", "NODE", "WHO", "WHAT"), cells, console)
        console.result(head)
        for one, line in zip(shown, lines, strict=True):
            grave = one.source == "docker" and one.what.startswith(GRAVE) and one.what != "die exit status 0"
            grave = grave or (one.source == "monitor" and one.what.startswith(SEEN))
            console.result(console.style(line, "red") if grave else line)
    for problem in told.problems:
        console.note(f"! {problem}", "yellow")


def audit(entries: Sequence[dict[str, Any]], console: Console) -> None:
    if console.output != "table":
        console.data({"version": 1, "entries": list(entries)}, rows="entries")
        return
    rows = [
        (
            str(entry.get("at", "")), str(entry.get("who", "")), str(entry.get("serial", "")),
            str(entry.get("result", "")), " ".join(entry.get("apps") or []) or "all",
            " ".join(entry.get("allow") or []) or "-", str(entry.get("message") or "-"),
        )
        for entry in entries
    ]  # fmt: skip
    console.result(table(("TIME", "WHO", "SERIAL", "RESULT", "APPS", "ALLOWED", "MESSAGE"), rows, console))


def verified(count: int, breaks: Sequence[Break], console: Console) -> None:
    """How many lines the audit log has, and where it is not as it was written."""
    if console.output != "table":
        rows = [dataclasses.asdict(one) for one in breaks]
        console.data({"version": 1, "lines": count, "intact": not breaks, "breaks": rows}, rows="breaks")
        return
    for one in breaks:
        console.note(str(one))
    if not breaks:
        console.result(f"{plural(count, 'line')}, each as it was written")
