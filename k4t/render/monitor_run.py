"""What a monitor that runs says: a line an event, for people on standard error, as JSON on standard output."""

from __future__ import annotations

from datetime import UTC, datetime

from k4t.monitor.events import GRAVE, Event, encode
from k4t.render.console import Console

COLORS = {"critical": "red", "warning": "yellow", "unknown": "cyan"}


def event(one: Event, console: Console) -> None:
    if console.output == "jsonl":
        console.data(encode(one))
        return
    about = f"{one.subject}: {one.what}" if one.what else str(one.subject)
    level = f" {one.level}" if one.level and one.kind in GRAVE else ""
    color = COLORS.get(one.level, "") if one.kind in GRAVE else "green" if one.kind in ("over", "done") else ""
    console.note(f"{one.at} {one.kind}{level} {about}: {one.words}", *([color] if color else []))


def note(text: str, console: Console) -> None:
    """What is the matter with the monitor itself; on standard error in any case."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    console.note(f"{at} note {text}", "yellow")
