"""Lines of many logs: each with its replica before it, in that replica's colour on a terminal."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from k4t.master.inspection.exec import Ended, Say
from k4t.model.state import Container
from k4t.node.flow import Channel
from k4t.node.logs import Line
from k4t.render.console import Console

COLORS = ("cyan", "yellow", "green", "blue", "red")


def label(container: Container) -> str:
    return f"{container.app}.{container.replica}"


def show(
    lines: Iterable[Line],
    console: Console,
    containers: Sequence[Container],
    *,
    grep: re.Pattern[str] | None = None,
    times: bool = False,
) -> None:
    """Print lines as they come; `containers` (those known at the start) give the width of the first column."""
    wanted = (line for line in lines if grep is None or grep.search(line.text))
    if console.output == "jsonl":
        for line in wanted:
            _write(_compact(as_json(line)) + "\n")
    elif console.output == "json":
        _as_one_object(wanted)
    else:
        _for_people(wanted, console, list(dict.fromkeys(map(label, containers))), times=times)


def _for_people(lines: Iterable[Line], console: Console, names: list[str], *, times: bool) -> None:
    width = max(map(len, names), default=0)
    prefixes: dict[str, str] = {}
    for line in lines:
        name = label(line.container)
        if name not in prefixes:
            names += [] if name in names else [name]
            prefixes[name] = console.style(f"{name.ljust(width)} |", COLORS[names.index(name) % len(COLORS)])
        _write(f"{prefixes[name]} {line.at + ' ' if times else ''}{line.text}\n")


def _as_one_object(lines: Iterable[Line]) -> None:
    """Written while it is read: a log may be longer than memory."""
    _write('{"version":1,"lines":[')
    for count, line in enumerate(lines):
        _write(("," if count else "") + "\n" + _compact(as_json(line)))
    _write("\n]}\n")


def as_json(line: Line) -> dict[str, Any]:
    one = line.container
    return {
        "at": line.at, "app": one.app, "replica": int(one.replica) if one.replica.isdigit() else one.replica,
        "generation": one.generation, "node": one.node, "container": one.name, "stream": line.channel,
        "text": line.text,
    }  # fmt: skip


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def printer(console: Console) -> Say:
    """Prints lines of `exec --all` as they come, from many threads."""
    guard = threading.Lock()
    prefixes: dict[str, str] = {}

    def say(container: Container, channel: Channel, text: str) -> None:
        with guard:
            if console.output == "jsonl":
                said = {"app": container.app, "replica": container.replica, "node": container.node}
                _write(_compact({**said, "stream": channel, "text": text}) + "\n")
                return
            name = label(container)
            if name not in prefixes:
                prefixes[name] = console.style(f"{name} |", COLORS[len(prefixes) % len(COLORS)])
            _write(f"{prefixes[name]} {text}\n")

    return say


def ended(results: Sequence[Ended], console: Console) -> int:
    """Name those that failed; 1 when any did."""
    failed = [one for one in results if one.exit_status != 0]
    for one in failed:
        console.note(f"{label(one.container)} on {one.container.node}: {one.error or f'exit status {one.exit_status}'}")
    return 1 if failed else 0
