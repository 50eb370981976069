"""`k4t status` live: a screen that is drawn anew, or a JSON line each time. Every look has connections of its own: a
host that was away may be back. Ctrl-C ends it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from k4t.errors import K4tError, Usage
from k4t.render.console import Console, table
from k4t.render.status import Part, notes, parts, title

if TYPE_CHECKING:
    from rich.console import Console as Terminal

LEAST_S, MOST_S = 1.0, 3600.0
GLANCE_S = 0.2
NOTES_SHARE = 3
"""Notes take this part of the screen at most."""
PLAIN = Console(color=False)


def interval_s(text: str) -> float:
    """Of `5`, `5s` or `1m`. Raises Usage."""
    from k4t.tree.values import PERIOD

    try:
        seconds = float(str(PERIOD.parse(text if not text.isdigit() else f"{text}s")))
    except ValueError:
        seconds = math.nan
    if not LEAST_S <= seconds <= MOST_S:
        raise Usage(f"--watch {text} is nothing from 1s to 1h", "such as --watch 5")
    return seconds


def watch(look: Callable[[], dict[str, Any]], console: Console, every_s: float) -> None:
    """Raises Usage where it could not end well, and what the first look raises; later ones may fail."""
    if console.output == "json" or (console.output == "table" and not sys.stdout.isatty()):
        reason = "-o json has an end, and this has none" if console.output == "json" else "--watch draws on a terminal"
        raise Usage(reason, "use -o jsonl for one line each time, or leave --watch out")
    try:
        if console.output == "table":
            _on_screen(look, console, every_s)
        else:
            _as_lines(look, console, every_s)
    except KeyboardInterrupt:
        return


def _as_lines(look: Callable[[], dict[str, Any]], console: Console, every_s: float) -> None:
    seen: dict[str, Any] | None = look()
    while True:
        if seen is not None:
            console.data(seen)
        time.sleep(every_s)
        try:
            seen = look()
        except K4tError as error:
            seen = None
            console.error(str(error))


def _on_screen(look: Callable[[], dict[str, Any]], console: Console, every_s: float) -> None:
    """Drawn after each look, and when the terminal gets another size."""
    from rich import console as ours
    from rich.live import Live
    from rich.text import Text

    terminal, seen = ours.Console(), look()
    about = looked_at = _now()
    with Live(console=terminal, auto_refresh=False, screen=True) as screen:
        while True:
            for columns, rows in _sizes(terminal, every_s):
                shown = fitted(seen, console, f"{about}, every {every_s:g} s", columns, rows)
                screen.update(Text.from_ansi("\n".join(shown)), refresh=True)
            try:
                seen = look()
                about = looked_at = _now()
            except K4tError as error:
                about = f"of {looked_at}: {error}"


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


def _sizes(terminal: Terminal, for_s: float) -> Iterator[tuple[int, int]]:
    """The terminal's, now and each time that it gets another, for so long."""
    drawn, until_s = None, time.monotonic() + for_s
    while drawn is None or time.monotonic() < until_s:
        size = terminal.size
        if size != drawn:
            drawn = size
            yield size.width, size.height
        time.sleep(GLANCE_S)


# --- one screen ------------------------------------------------------------------------------------------------------


def fitted(status: dict[str, Any], console: Console, about: str, columns: int, rows: int) -> list[str]:
    """At most so many rows of so many columns. What doesn't fit is counted, and what is unwell goes before it. Pure."""
    first = f"{title(status, PLAIN)}  {about}"
    said = [_cut(note, columns) for note in notes(status)]
    most = max(1, rows // NOTES_SHARE)
    if len(said) > most:
        said = [*said[: most - 1], _cut(f"! and {len(said) - most + 1} more: k4t status", columns)]
    tables = list(parts(status, columns))
    left = rows - 1 - len(said)
    spaced = sum(len(one.rows) + 2 for one in tables) + bool(said) <= left
    gap = [""] if spaced else []
    shown = [console.style(_cut(first, columns), "bold"), *(gap if said else [])]
    shown += [console.style(one, "yellow") for one in said]
    for one, room in zip(tables, _rooms(tables, left), strict=True):
        shown += [*gap, *_part(one, room, console, columns)]
    return shown[:rows]


def _rooms(tables: Sequence[Part], left: int) -> list[int]:
    """How many lines each gets, its head among them: all it needs, or what is left, evenly."""
    rooms = [0] * len(tables)
    for _ in range(left):
        short = [place for place, one in enumerate(tables) if rooms[place] < len(one.rows) + 1]
        if not short:
            break
        rooms[min(short, key=lambda place: rooms[place])] += 1
    return rooms


def _part(one: Part, room: int, console: Console, columns: int) -> Iterator[str]:
    if room < 1:
        return
    head, *drawn = [_cut(line, columns) for line in table(one.head, one.rows, PLAIN)]
    yield console.style(head, "bold")
    drawn = [console.style(line, *["yellow"] * bad) for line, bad in zip(drawn, one.unwell, strict=True)]
    if room > len(one.rows):
        yield from drawn
        return
    order = sorted(range(len(one.rows)), key=lambda place: not one.unwell[place])
    kept, rest = sorted(order[: max(0, room - 2)]), order[max(0, room - 2) :]
    yield from (drawn[place] for place in kept)
    if room >= 2:
        unwell = sum(one.unwell[place] for place in rest)
        how = f"{unwell} of them to look at" if unwell else "all well"
        yield _cut(f"… {len(rest)} {'more ' if kept else ''}{one.what}, {how}", columns)


def _cut(line: str, columns: int) -> str:
    return line if len(line) <= columns else line[: max(0, columns - 1)] + "…"
