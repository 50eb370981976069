"""One container's log, line by line, with Docker's own timestamps.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerLogs
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from urllib.parse import urlencode

from k4t.model.state import Container
from k4t.model.value import value
from k4t.node.call import Request
from k4t.node.docker import Engine
from k4t.node.flow import Channel, Flow

MAX_LINE_BYTES = 256 * 1024
"""A longer line comes in parts."""
TIMESTAMP_LEAST = len("2026-11-20T10:00:00Z")
FRAMED = (b"\x00", b"\x01", b"\x02")


@value
class Line:
    """`at` is RFC 3339 UTC with nine digits of a second, so it sorts as text."""

    at: str
    container: Container
    channel: Channel
    text: str


def begin(
    engine: Engine, container: Container, *, since: str = "", tail: int | None = None, follow: bool = False
) -> Flow:
    """Ask for a log. `since` is RFC 3339 UTC, inclusive; `tail` the number of last lines; `follow`: it goes on."""
    query = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow), "tail": "all" if tail is None else tail}
    if since:
        query["since"] = _unix(since)
    return engine.flow(Request("GET", f"/containers/{container.id}/logs?{urlencode(query)}"))


def lines(flow: Flow, container: Container) -> Iterator[Line]:
    """The lines of a log as they come. A line that Docker keeps in parts is one line again."""
    open_lines: dict[Channel, Line] = {}
    for channel, data in _records(flow):
        *whole, rest = data.split(b"\n")
        for part in whole:
            yield _joined(open_lines.pop(channel, None), part, container, channel)
        if rest:
            held = _joined(open_lines.pop(channel, None), rest, container, channel)
            if len(held.text) > MAX_LINE_BYTES:
                yield held
            else:
                open_lines[channel] = held
    yield from open_lines.values()


def _records(flow: Flow) -> Iterator[tuple[Channel, bytes]]:
    """A container with a terminal of its own has an unframed log, which begins with a digit of a timestamp."""
    first = next(flow.pieces(), b"")
    flow.unread(first)
    if not first or first[:1] in FRAMED:
        yield from flow.frames()
        return
    rest = b""
    for piece in flow.pieces():
        whole, end, rest = (rest + piece).rpartition(b"\n")
        if end or len(rest) > MAX_LINE_BYTES:
            yield "stdout", whole + end if end else rest
            rest = rest if end else b""
    if rest:
        yield "stdout", rest


def _joined(begun: Line | None, part: bytes, container: Container, channel: Channel) -> Line:
    """A part of a line has a timestamp of its own, unless the log is unframed."""
    said = part.decode("utf-8", "replace").removesuffix("\r")
    at, _, text = said.partition(" ")
    if len(at) < TIMESTAMP_LEAST or at[10:11] != "T" or at[-1:] != "Z":
        at, text = "", said
    return Line(begun.at, container, channel, begun.text + text) if begun else Line(at, container, channel, text)


def _unix(at: str) -> str:
    """2026-11-20T10:00:00.5Z as seconds and nanoseconds, as Docker wants it."""
    whole, _, fraction = at.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return f"{seconds}.{(fraction or '0')[:9].ljust(9, '0')}"
