"""Where things stand in the bytes of an XML file that is known to be well-formed and to have no DTD.

lxml says what a file holds, not where: its `sourceline` is the last line of a start tag, and it knows no offsets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>"
    rb"|</(?P<end>[^\s>]+)\s*>"
    rb"""|<(?P<start>[^\s/>!?]+)(?P<attributes>(?:[^<>"'/]|"[^<"]*"|'[^<']*')*)(?P<close>/?)>""",
    re.DOTALL,
)
_START = re.compile(
    rb"""<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|(<[^\s/>!?])(?:[^<>"']|"[^<"]*"|'[^<']*')*>""", re.DOTALL
)
_TAG = re.compile(rb"""<[^\s/>!?<](?:[^<>"']|"[^<"]*"|'[^<']*')*+""")
_LONG_TAG_BYTES = 8192
_ATTRIBUTE = re.compile(
    rb"""(?P<space>\s+)(?P<name>[^\s=]+)\s*=\s*(?P<quote>["'])(?P<value>.*?)(?P=quote)""", re.DOTALL
)
_PROLOG = re.compile(rb"(?:\s++|<!--.*?-->|<\?.*?\?>)*+", re.DOTALL)
_ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([^"']*)["']""")
_INSTRUCTION = re.compile(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?(?P<target>[^\s?]+).*?\?>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class AttributeSpan:
    """`whole` begins at the white space before the name; `value` is what stands between the quotes."""

    name: str
    whole: Span
    value: Span
    quote: bytes


@dataclass(slots=True)
class ElementSpan:
    """`tag` is the start tag, `content` what stands between it and the end tag (empty where it closes itself)."""

    name: str
    parent: int
    tag: Span
    content: Span
    end: int
    closes_itself: bool
    attributes: tuple[AttributeSpan, ...]


def start_lines(data: bytes) -> list[int]:
    """The line on which each start tag begins, in document order."""
    lines: list[int] = []
    line, before = 1, 0
    for found in _START.finditer(data):
        if found.start(1) < 0:
            continue
        start = found.start()
        line += data.count(b"\n", before, start)
        before = start
        lines.append(line)
    return lines


def doctype_line(data: bytes) -> int:
    """The line of a DTD, which stands before the first element; 0 without one."""
    found = _PROLOG.match(data)
    at = found.end() if found else 0
    return data.count(b"\n", 0, at) + 1 if data[at : at + 2] == b"<!" and data[at : at + 4] != b"<!--" else 0


def crowded_line(data: bytes, attributes_max: int) -> int:
    """The line of a start tag with more attributes; 0 without one. In linear time, also when this is no XML."""
    if len(data) < _LONG_TAG_BYTES:
        return 0
    for found in _TAG.finditer(data):
        if found.end() - found.start() < _LONG_TAG_BYTES or found[0].count(b"=") <= attributes_max:
            continue
        if sum(1 for _ in _ATTRIBUTE.finditer(found[0])) > attributes_max:
            return data.count(b"\n", 0, found.start()) + 1
    return 0


def encoding(data: bytes) -> str:
    """The encoding that the file says it has; "" when it says nothing."""
    found = _ENCODING.match(data)
    return found[1].decode("ascii", "replace") if found else ""


def instructions(data: bytes) -> Iterator[tuple[str, int]]:
    """(target, line) of each processing instruction but the XML declaration."""
    if data.count(b"<?") <= data.startswith(b"<?xml "):
        return
    for found in _INSTRUCTION.finditer(data):
        target = found["target"]
        if target is not None and target != b"xml":
            yield target.decode("utf-8", "replace"), data.count(b"\n", 0, found.start()) + 1


def elements(data: bytes) -> list[ElementSpan]:
    """All elements in document order; `parent` is an index into the list, -1 for the root."""
    found: list[ElementSpan] = []
    path: list[int] = []
    for token in _TOKEN.finditer(data):
        if token["start"]:
            closes = bool(token["close"])
            found.append(
                ElementSpan(
                    token["start"].decode(),
                    path[-1] if path else -1,
                    Span(token.start(), token.end()),
                    Span(token.end(), token.end()),
                    token.end(),
                    closes,
                    _attributes(data, token.start("attributes"), token.end("attributes")),
                )
            )
            if not closes:
                path.append(len(found) - 1)
        elif token["end"]:
            element = found[path.pop()]
            element.content = Span(element.tag.end, token.start())
            element.end = token.end()
    return found


def _attributes(data: bytes, start: int, end: int) -> tuple[AttributeSpan, ...]:
    return tuple(
        AttributeSpan(a["name"].decode(), Span(a.start(), a.end()), Span(a.start("value"), a.end("value")), a["quote"])
        for a in _ATTRIBUTE.finditer(data, start, end)
    )
