"""The page as a file, with what this machine remembers: what the monitor saw and did, and what it makes of loads."""

from __future__ import annotations

from pathlib import Path

from k4t.monitor import eventlog, scaling
from k4t.monitor.acting import wants
from k4t.monitor.check import Looked
from k4t.monitor.page import page
from k4t.tree.edit import write_file

EVENTS_MOST = 500


def text(looked: Looked, now_s: float, *, refresh_s: float) -> str:
    """Raises nothing: what is not remembered is not shown."""
    head, cluster = looked.facts.head, looked.facts.cluster_id
    apps = [app.name for app in looked.tree.apps.values() if app.scale is not None]
    remembered = wants.remembered(cluster) if apps else scaling.NONE
    return page(
        looked, looked.tree, head.revisions if head else (), now_s, refresh_s=refresh_s,
        events=eventlog.read(eventlog.path(cluster))[-EVENTS_MOST:],
        sizing={app: words for app in apps if (words := scaling.words(remembered, app))},
    )  # fmt: skip


def write(file: Path, looked: Looked, now_s: float, *, refresh_s: float) -> None:
    """In one step. Raises K4tError with the path."""
    write_file(file, text(looked, now_s, refresh_s=refresh_s).encode())
