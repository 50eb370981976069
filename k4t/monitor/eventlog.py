"""Where events are kept: XDG_STATE_HOME/k4t/monitor/CLUSTERID.events.jsonl, a line each, and one older file beside it.

Several may append at once (one write each). A torn tail, or a line that is none, is left out by whoever reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from k4t.errors import K4tError
from k4t.monitor import statefile
from k4t.monitor.events import Event, decode, encode

MAX_BYTES = 4 * 1024 * 1024
"""Of one file; then it becomes the older one."""


def path(cluster_id: str) -> Path:
    return statefile.path(cluster_id).with_name(f"{cluster_id}.events.jsonl")


def append(file: Path, events: Iterable[Event]) -> None:
    """On the disk when this returns. Raises K4tError with the path."""
    lines = [json.dumps(encode(one), ensure_ascii=True, separators=(",", ":")) for one in events]
    if not lines:
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _rotate(file)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write(handle, lines)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise K4tError(f"can't write {file}: {error.strerror}") from error


def _write(handle: int, lines: list[str]) -> None:
    """A tail that was torn when the machine went down gets its end first, or this line would be lost with it."""
    size = os.fstat(handle).st_size
    torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
    data = (b"\n" if torn else b"") + "".join(f"{line}\n" for line in lines).encode()
    while data:
        data = data[os.write(handle, data) :]


def _rotate(file: Path) -> None:
    try:
        if file.stat().st_size >= MAX_BYTES:
            file.replace(_older(file))
    except FileNotFoundError:
        return


def _older(file: Path) -> Path:
    return file.with_name(file.name.removesuffix(".jsonl") + ".1.jsonl")


def read(file: Path) -> list[Event]:
    """In the order of writing; what can't be read is as if it were not there."""
    found = []
    for one in (_older(file), file):
        for line in _lines(one):
            try:
                found.append(decode(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                continue
    return found


def _lines(file: Path) -> list[bytes]:
    try:
        with file.open("rb") as log:
            return log.read(2 * MAX_BYTES).splitlines()
    except OSError:
        return []
