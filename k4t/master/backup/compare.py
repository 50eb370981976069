"""What differs between two trees, file by file: XML by element and attribute, other text line by line, the rest by size
and hash. Pure. A secret's content is never told, also where it is encrypted.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from k4t.model.value import value
from k4t.tree.check import Node
from k4t.tree.files import SECRET_FILES, ignored
from k4t.tree.read import Refused, parse

MAX_LINES = 400
MAX_TEXT_BYTES = 1 << 20
MAX_SHOWN = 160
_KEYS = ("name", "node", "host", "target", "replica", "on", "by", "domain", "prefix", "listen", "type")
"""Attributes that tell elements of one kind apart, the most telling first."""


@value
class File:
    data: bytes
    executable: bool = False


Files = Mapping[str, File]
Kind = Literal["added", "removed", "changed"]


@value
class Change:
    """One file. `form` says what `lines` are: sentences (xml), a unified diff (text), one remark (binary, secret)."""

    path: str
    kind: Kind
    form: Literal["xml", "text", "binary", "secret"]
    lines: tuple[str, ...] = ()


def compare(old: Files, new: Files) -> tuple[Change, ...]:
    """Sorted by path, without notes and what a working copy remembers."""
    paths = sorted(path for path in old.keys() | new.keys() if of_tree(path))
    found = (_change(path, old.get(path), new.get(path)) for path in paths)
    return tuple(one for one in found if one is not None)


def of_tree(path: str) -> bool:
    """Whether a file is the tree's own, and neither a note of people's (README) nor of k4t's or git's."""
    return not any(ignored(part) for part in path.split("/", 2)[:2])


def _change(path: str, old: File | None, new: File | None) -> Change | None:
    if old == new:
        return None
    kind: Kind = "added" if old is None else "removed" if new is None else "changed"
    before, after = old or File(b""), new or File(b"")
    mode = _mode(old, new)
    if is_secret(path, before.data, after.data):
        return Change(path, kind, "secret", ("its content is a secret", *mode))
    if old and new and path.endswith(".xml") and (said := _xml(path, old.data, new.data)) is not None:
        return Change(path, kind, "xml", (*said, *mode))
    if (lines := _text(path, before.data, after.data)) is not None:
        return Change(path, kind, "text", (*lines, *mode))
    return Change(path, kind, "binary", (_sizes(old, new), *mode))


def _mode(old: File | None, new: File | None) -> tuple[str, ...]:
    if old is None or new is None or old.executable == new.executable:
        return ()
    return ("is executable now" if new.executable else "is no longer executable",)


def is_secret(path: str, *contents: bytes) -> bool:
    """Encrypted values, keys, and what looks like one."""
    if path.endswith(".age") or (path in SECRET_FILES and path != "secrets/recipients"):
        return True
    return any(b"PRIVATE KEY-----" in data or b"AGE-SECRET-KEY-" in data for data in contents)


# --- text and bytes ------------------------------------------------------------------------------------------------


def readable(data: bytes) -> str | None:
    """The text that it is; None for what is no text, and for what is too long to be compared as one."""
    if len(data) > MAX_TEXT_BYTES or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def shown(text: str) -> str:
    """As a terminal may have it: what a file holds cannot drive it."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def _text(path: str, old: bytes, new: bytes) -> tuple[str, ...] | None:
    before, after = readable(old), readable(new)
    if before is None or after is None:
        return None
    found = list(difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm="", n=2))[2:]
    lines = [shown(line) for line in found[:MAX_LINES]]
    if len(found) > MAX_LINES:
        lines.append(f"… and {len(found) - MAX_LINES} more lines")
    return tuple(lines) or ("ends of lines changed",)


def _sizes(old: File | None, new: File | None) -> str:
    return " → ".join(_size(one) for one in (old, new) if one is not None)


def _size(one: File) -> str:
    return f"{len(one.data)} bytes (sha256 {hashlib.sha256(one.data).hexdigest()[:12]}…)"


# --- XML -----------------------------------------------------------------------------------------------------------


def _xml(path: str, old: bytes, new: bytes) -> tuple[str, ...] | None:
    """None for what is no XML as trees have it."""
    try:
        before, after = parse(old, path), parse(new, path)
    except Refused:
        return None
    if before.tag != after.tag:
        return None
    lines = list(_element("", before, after))
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"… and {len(lines) - MAX_LINES} more changes"]
    return tuple(lines) or ("comments or white space changed, nothing else",)


def _element(way: str, old: Node, new: Node) -> Iterator[str]:
    """`way`: how it is called from the root on; "" is the root itself."""
    here = way or old.tag
    for name in sorted(old.attributes.keys() | new.attributes.keys()):
        before, after = old.attributes.get(name), new.attributes.get(name)
        if before != after:
            yield f"{here} {name} {_quoted(before)} → {_quoted(after)}"
    if old.text != new.text:
        said = (None if not one.text and one.children else one.text for one in (old, new))
        yield f"{here} {' → '.join(map(_quoted, said))}"
    for tag in dict.fromkeys(child.tag for child in (*old.children, *new.children)):
        yield from _children(
            way, tag, [c for c in old.children if c.tag == tag], [c for c in new.children if c.tag == tag]
        )


def _children(way: str, tag: str, old: list[Node], new: list[Node]) -> Iterator[str]:
    """Those of one kind: by what tells them apart, then whichever are left in their order."""
    if len(old) == len(new) == 1:
        yield from _element(_below(way, tag), old[0], new[0])
        return
    before, after = _keyed(old), _keyed(new)
    both = [key for key in before if key in after]
    for key in both:
        yield from _element(_below(way, f"{tag}[{shown(key)}]"), before[key], after[key])
    gone = [node for key, node in before.items() if key not in after]
    come = [node for key, node in after.items() if key not in before]
    yield from (f"- {_below(way, _whole(node))}" for node in gone)
    yield from (f"+ {_below(way, _whole(node))}" for node in come)
    if both != [key for key in after if key in before]:
        yield f"{_below(way, tag)}: the order changed to {', '.join(map(shown, after))}"


def _keyed(nodes: Iterable[Node]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for node in nodes:
        name = key = next((node.attributes[one] for one in _KEYS if one in node.attributes), "") or _plain(node)
        times = 1
        while key in found:
            times += 1
            key = f"{name} {times}"
        found[key] = node
    return found


def _plain(node: Node) -> str:
    """Where nothing names it: all that stands in it."""
    return node.text or " ".join(node.attributes.values()) or " ".join(child.tag for child in node.children)


def _below(way: str, name: str) -> str:
    return f"{way}/{name}" if way else name


def _whole(node: Node) -> str:
    """An element on one line: image "web:1", env name="A" "x", health(http path="/")."""
    words = [node.tag, *(f"{name}={_quoted(text)}" for name, text in node.attributes.items())]
    if node.text:
        words.append(_quoted(node.text))
    inside = f"({', '.join(_whole(child) for child in node.children)})" if node.children else ""
    return _cut(" ".join(words) + inside)


def _quoted(text: str | None) -> str:
    return "(none)" if text is None else f'"{_cut(shown(text))}"'


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
