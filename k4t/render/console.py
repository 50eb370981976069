"""Where text goes and whether it has colour. The rest of the package makes strings; this module prints them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from k4t.errors import Interrupted, NeedsTerminal

Output = Literal["table", "json", "jsonl"]
CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


@dataclass(frozen=True, slots=True)
class Console:
    """`color` is about both streams: it is on only when the stream in question is a terminal."""

    output: Output = "table"
    color: bool = True

    def style(self, text: str, *styles: str, stream: TextIO | None = None) -> str:
        if not styles or not self.colored(stream or sys.stdout):
            return text
        return f"\x1b[{';'.join(CODES[name] for name in styles)}m{text}\x1b[0m"

    def colored(self, stream: TextIO) -> bool:
        return self.color and "NO_COLOR" not in os.environ and stream.isatty() and os.environ.get("TERM") != "dumb"

    def columns(self) -> int:
        """How wide standard output is; 0 where it is no terminal, and has no end."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0

    def result(self, lines: str | Iterable[str]) -> None:
        """A result for people, on standard output."""
        text = lines if isinstance(lines, str) else "\n".join(lines)
        with _terminal_may_be_gone():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def data(self, value: Any, *, rows: str = "") -> None:
        """A result for programs. With jsonl, the list under `rows` is one line each (else the value is one line)."""
        if self.output == "jsonl":
            for row in value[rows] if rows else [value]:
                sys.stdout.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        else:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
        sys.stdout.flush()

    def note(self, text: str, *styles: str) -> None:
        """Progress or a remark, on standard error. The work goes on when nobody is there to read it any more."""
        with suppress(OSError):
            sys.stderr.write(self.style(text, *styles, stream=sys.stderr) + "\n")
            sys.stderr.flush()

    def error(self, text: str) -> None:
        self.note(f"{self.style('k4t:', 'red', stream=sys.stderr)} {text}")

    def ask(self, question: str, *, option: str) -> None:
        """Go on, or raise Interrupted: a no is the operator's own, as Ctrl-C is. Nothing prompts without a terminal:
        NeedsTerminal names the option to give."""
        if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
            raise NeedsTerminal(
                f"this needs an answer and there is no terminal: “{question}”", f"if it is yes, give {option}"
            )
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Interrupted("not confirmed: nothing was changed")


@contextmanager
def _terminal_may_be_gone() -> Iterator[None]:
    """Its user has closed it: nobody reads this, and what is under way shall end in good order."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def table(head: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> list[str]:
    """Columns as wide as what is in them, two spaces between; the head is bold on a terminal."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    return [console.style(line(head), "bold"), *(line(row) for row in rows)]


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def age(seconds: float) -> str:
    """8s, 5m, 3h, 12d: one figure, as people say it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
