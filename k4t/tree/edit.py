"""Byte-exact changes to files of the tree: what wasn't asked for keeps every byte.

A change is worked out on the bytes, both versions are parsed and compared (nothing else may differ), the new one
is checked against the table, and renamed into place. Elements are named by a path from the root, such as `app`,
`image`, `health/http` or `port[name=main]`; the root's own name may be left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k4t.errors import Finding, K4tError, Usage
from k4t.tree.check import Checker, Node
from k4t.tree.files import XML_MAX_BYTES
from k4t.tree.read import Refused, parse
from k4t.tree.scan import ElementSpan, elements
from k4t.tree.schema import FILES

_SEGMENT = re.compile(r"([^\[\]/]+)(?:\[([^=\[\]]+)=([^\]]*)\])?")
_RUN = re.compile(rb"<!--.*?-->|<\?.*?\?>|(?P<text>(?:<!\[CDATA\[.*?\]\]>|[^<])+)", re.DOTALL)
_REST_OF_LINE = re.compile(rb"[ \t]*(?:<!--(?:(?!-->)[^\n])*-->[ \t]*)*(?=\r?\n)")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Change:
    """Replace `start`…`end` by `new`; `expected` does the same to the parsed elements."""

    start: int
    end: int
    new: bytes
    expected: Callable[[Node], object]


@dataclass(frozen=True, slots=True)
class _Document:
    path: Path
    data: bytes
    spans: list[ElementSpan]

    def find(self, path: str) -> tuple[int, list[str]]:
        """(index of the deepest element found, the segments of the path that are not there)"""
        segments = path.split("/")
        if segments and segments[0] == self.spans[0].name:
            segments = segments[1:]
        at = 0
        while segments:
            below = [i for i in self.children(at) if _fits(self, i, segments[0])]
            if len(below) > 1:
                raise Usage(f"{self.path}: {path} is not one element but {len(below)}", "name it as in port[name=main]")
            if not below:
                break
            at, segments = below[0], segments[1:]
        return at, segments

    def children(self, at: int) -> list[int]:
        return [i for i, span in enumerate(self.spans) if span.parent == at]

    def steps(self, at: int) -> list[int]:
        """The way from the root to an element, as positions among children."""
        way: list[int] = []
        while at:
            way.insert(0, self.children(self.spans[at].parent).index(at))
            at = self.spans[at].parent
        return way


def set_attribute(path: Path, element: str, name: str, value: str | None) -> bool:
    """Set, add or (None) remove one attribute; an element that isn't there is added on a line of its own.

    Answers whether the file changed. Raises Usage for a path that fits several elements and for a value that the
    table refuses, K4tError when the file can't be read, written, or changed without changing more.
    """
    _allowed(value or "")
    document = _load(path)
    at, missing = document.find(element)
    if missing:
        if value is None:
            return False
        return _apply(document, _insert(document, at, missing, {name: value}, ""))
    span = document.spans[at]
    way = document.steps(at)
    found = next((a for a in span.attributes if a.name == name), None)
    if value is None:
        if found is None:
            return False
        change = _Change(found.whole.start, found.whole.end, b"", lambda root: _at(root, way).attributes.pop(name))
        return _apply(document, change)
    expected = _setter(way, name, value)
    if found is not None:
        new = _attribute_bytes(value, found.quote)
        return _apply(document, _Change(found.value.start, found.value.end, new, expected))
    end = span.attributes[-1].whole.end if span.attributes else span.tag.start + 1 + len(span.name.encode())
    new = f' {name}="'.encode() + _attribute_bytes(value, b'"') + b'"'
    return _apply(document, _Change(end, end, new, expected))


def set_text(path: Path, element: str, text: str) -> bool:
    """Set one element's text, or add the element with it. Comments stay. Answers and raises as `set_attribute`."""
    _allowed(text)
    document = _load(path)
    at, missing = document.find(element)
    if missing:
        return _apply(document, _insert(document, at, missing, {}, text))
    if document.children(at):
        raise Usage(f"{path}: <{document.spans[at].name}> holds elements, not text")
    span, way = document.spans[at], document.steps(at)

    def expected(root: Node) -> None:
        _at(root, way).text = text

    new = _text_bytes(text)
    if span.closes_itself:
        tag = document.data[span.tag.start : span.tag.end]
        opened = tag[:-2].rstrip() + b">" + new + b"</" + span.name.encode() + b">"
        return _apply(document, _Change(span.tag.start, span.tag.end, opened, expected))
    content = document.data[span.content.start : span.content.end]
    return _apply(document, _Change(span.content.start, span.content.end, _with_text(content, new), expected))


def remove_element(path: Path, element: str) -> bool:
    """Remove one element, with its line where it stands alone on it. Answers whether it was there."""
    document = _load(path)
    at, missing = document.find(element)
    if missing:
        return False
    if at == 0:
        raise Usage(f"{path}: the root element can't be removed")
    span, way, data = document.spans[at], document.steps(at), document.data
    start, end = span.tag.start, span.end
    line = data.rfind(b"\n", 0, start) + 1
    after = re.compile(rb"[ \t]*\r?\n").match(data, end)
    if after and not data[line:start].strip():
        start, end = line, after.end()
    return _apply(document, _Change(start, end, b"", lambda root: _at(root, way[:-1]).children.pop(way[-1])))


def write_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Put a whole file into place: written beside it, synced, renamed, the directory synced. Its mode stays.

    Raises K4tError with the path and the system's words; the old file is whole then.
    """
    temporary = path.parent / f".k4t-{secrets.token_hex(6)}"
    try:
        before = _status(path)
        permissions = mode if mode is not None else stat.S_IMODE(before.st_mode) if before else 0o644
        try:
            _write(temporary, data, permissions, before)
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise K4tError(f"can't write {path}: {error.strerror}", "the old file is as it was") from error


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes, permissions: int, like: os.stat_result | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.fchmod(file.fileno(), permissions)
        os.fsync(file.fileno())


# --- the change --------------------------------------------------------------------------------------------


def _load(path: Path) -> _Document:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Usage(f"{path} is no regular file")
            data = file.read(XML_MAX_BYTES + 1)
    except FileNotFoundError:
        raise Usage(f"no such file: {path}") from None
    except OSError as error:
        raise K4tError(f"can't read {path}: {error.strerror}") from error
    _parse(path, data)
    return _Document(path, data, elements(data))


def _parse(path: Path, data: bytes) -> Node:
    if len(data) > XML_MAX_BYTES:
        raise K4tError(f"{path} has more than {XML_MAX_BYTES} bytes", "edit it by hand")
    try:
        return parse(data, str(path))
    except Refused as error:
        raise K4tError(f"{path}:{error.line}: {error.message}", error.remedy) from None


def _apply(document: _Document, change: _Change) -> bool:
    data = document.data[: change.start] + change.new + document.data[change.end :]
    wanted, got = _parse(document.path, document.data), _parse(document.path, data)
    change.expected(wanted)
    if not _same(wanted, got):
        raise K4tError(f"{document.path} can't be changed without changing more than asked", "edit it by hand")
    before = _parse(document.path, document.data)
    if data == document.data or _same(before, got):
        return False
    if wrong := _errors(got) - _errors(before):
        message, remedy = min(wrong)
        raise Usage(f"{document.path} would not be valid: {message}", remedy)
    try:
        still = document.path.read_bytes()
    except OSError as error:
        raise K4tError(f"can't read {document.path}: {error.strerror}") from error
    if still != document.data:
        raise K4tError(f"{document.path} was changed by another program meanwhile", "try again")
    write_file(document.path, data)
    return True


def _errors(root: Node) -> set[tuple[str, str]]:
    """What the table says against a file by itself, without lines, since an edit may move them."""
    row = next((row for row in FILES.values() if row.name == root.tag), None)
    if row is None:
        return set()
    findings: list[Finding] = []
    Checker(findings, [], unexpanded=True).check(root, row)
    return {(finding.message, finding.remedy) for finding in findings if finding.code != "repeated"}


def _same(one: Node, other: Node) -> bool:
    same_text = one.text == other.text or not (one.text.strip() or other.text.strip())
    return (
        one.tag == other.tag
        and one.attributes == other.attributes
        and same_text
        and len(one.children) == len(other.children)
        and all(_same(mine, its) for mine, its in zip(one.children, other.children, strict=True))
    )


def _at(root: Node, way: list[int]) -> Node:
    for step in way:
        root = root.children[step]
    return root


def _setter(way: list[int], name: str, value: str) -> Callable[[Node], object]:
    def expected(root: Node) -> None:
        _at(root, way).attributes[name] = value

    return expected


def _fits(document: _Document, at: int, segment: str) -> bool:
    found = _SEGMENT.fullmatch(segment)
    if not found:
        raise Usage(f"{segment!r} names no element")
    span = document.spans[at]
    if span.name != found[1]:
        return False
    return not found[2] or any(
        a.name == found[2] and document.data[a.value.start : a.value.end].decode() == found[3] for a in span.attributes
    )


def _insert(document: _Document, at: int, missing: list[str], attributes: dict[str, str], text: str) -> _Change:
    """One new element (and those around it), as the last child, on one line."""
    names = []
    for segment in missing:
        found = _SEGMENT.fullmatch(segment)
        if not found:
            raise Usage(f"{segment!r} names no element")
        names.append(found[1])
        if found[2] and segment is missing[-1]:
            attributes = {found[2]: found[3], **attributes}
    new = _element_bytes(names[-1], attributes, text)
    for name in reversed(names[:-1]):
        new = f"<{name}>".encode() + new + f"</{name}>".encode()
    way = document.steps(at)

    def expected(root: Node) -> None:
        node = Node(names[-1], dict(attributes), text, [], "", 0)
        for name in reversed(names[:-1]):
            node = Node(name, {}, "", [node], "", 0)
        _at(root, way).children.append(node)

    return _place(document, at, new, expected)


def _place(document: _Document, at: int, new: bytes, expected: Callable[[Node], object]) -> _Change:
    span, data, below = document.spans[at], document.data, document.children(at)
    if span.closes_itself:
        tag = data[span.tag.start : span.tag.end]
        opened = tag[:-2].rstrip() + b">" + new + b"</" + span.name.encode() + b">"
        return _Change(span.tag.start, span.tag.end, opened, expected)
    if below:
        last = document.spans[below[-1]]
        line = data.rfind(b"\n", 0, last.tag.start) + 1
        rest = _REST_OF_LINE.match(data, last.end)
        if rest and not data[line : last.tag.start].strip():
            return _Change(rest.end(), rest.end(), _newline(data) + data[line : last.tag.start] + new, expected)
        return _Change(last.end, last.end, new, expected)
    content = data[span.content.start : span.content.end]
    if b"\n" in content and not content.strip():
        line = data.rfind(b"\n", 0, span.content.end) + 1
        indent = data[line : span.content.end]
        return _Change(line, line, indent + b"  " + new + _newline(data), expected)
    return _Change(span.content.end, span.content.end, new, expected)


def _newline(data: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in data else b"\n"


def _with_text(content: bytes, new: bytes) -> bytes:
    """The first run of text is replaced, others go, comments stay."""
    runs = [found for found in _RUN.finditer(content) if found["text"] is not None]
    if not runs:
        return content + new
    out, at = b"", 0
    for index, run in enumerate(runs):
        out += content[at : run.start()] + (new if index == 0 else b"")
        at = run.end()
    return out + content[at:]


def _element_bytes(name: str, attributes: dict[str, str], text: str) -> bytes:
    start = f"<{name}".encode()
    for key, value in attributes.items():
        start += f' {key}="'.encode() + _attribute_bytes(value, b'"') + b'"'
    return start + (b">" + _text_bytes(text) + f"</{name}>".encode() if text else b"/>")


def _allowed(text: str) -> None:
    if found := _NOT_XML.search(text):
        raise Usage(f"XML can't hold the character {found[0]!r}", "leave it out")


def text_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def attribute_escaped(text: str, quote: str = '"') -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = text.replace("\t", "&#9;").replace("\n", "&#10;").replace("\r", "&#13;")
    return text.replace(quote, "&quot;" if quote == '"' else "&apos;")


def _text_bytes(text: str) -> bytes:
    return text_escaped(text).encode()


def _attribute_bytes(text: str, quote: bytes) -> bytes:
    return attribute_escaped(text, quote.decode()).encode()
