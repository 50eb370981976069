"""The table-driven checker: elements as they were read → items whose values are converted, and findings.

It knows nothing of what the elements mean; that is `semantics`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from k4t.errors import Finding
from k4t.model.shared import Where
from k4t.tree.nearest import did_you_mean
from k4t.tree.table import Attribute, Element
from k4t.tree.values import Type

SHOWN_MAX = 80
_PRIVATE = re.compile("(SECRET|PRIVATE).KEY", re.IGNORECASE)


@dataclass(slots=True)
class Node:
    """One element as it was read: texts as they stand, the line on which its start tag begins."""

    tag: str
    attributes: dict[str, str]
    text: str
    children: list[Node]
    file: str
    line: int


@dataclass(slots=True)
class Item:
    """One checked element: `values` of all attributes (defaults included), its `text`, its `children` by name."""

    where: Where
    values: dict[str, object]
    given: dict[str, str]
    text: object = None
    children: dict[str, list[Item]] = field(default_factory=dict)

    def all(self, name: str) -> Sequence[Item]:
        return self.children.get(name, ())

    def one(self, name: str) -> Item | None:
        found = self.children.get(name)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that names something: `kind` as in the table's `refers`."""

    kind: str
    name: str
    where: Where


class Checker:
    """Checks elements against rows, gathering `findings` and sentences about what has `no_effect` yet.

    `partial`: the elements are defaults, so what is required may be missing. `unexpanded`: some variables are not
    known, which has been told; values that hold one are not looked at.
    """

    def __init__(
        self, findings: list[Finding], no_effect: list[str], *, partial: bool = False, unexpanded: bool = False
    ) -> None:
        self.references: list[Reference] = []
        self.findings = findings
        self.no_effect = no_effect
        self.partial = partial
        self.unexpanded = unexpanded

    def check(self, node: Node, row: Element, *, quiet: bool = False) -> Item:
        """`quiet`: something around it has no effect, so it need not say so itself."""
        if not (row.effect or quiet):
            self.no_effect.append(f"{node.file}:{node.line}: <{row.name}> has no effect yet")
            quiet = True
        item = Item(Where(node.file, node.line), dict(row.defaults), node.attributes)
        self._attributes(node, row, item, quiet)
        self._text(node, row, item)
        if node.children or row.children:
            self._children(node, row, item, quiet)
        return item

    def add(self, node: Node, code: str, message: str, remedy: str) -> None:
        self.findings.append(Finding(node.file, node.line, code, message, remedy))

    def _attributes(self, node: Node, row: Element, item: Item, quiet: bool) -> None:
        for name, text in node.attributes.items():
            known = row.by_attribute.get(name)
            if known is None:
                remedy = did_you_mean(name, row.by_attribute, _listed(row.by_attribute, "it has none", "it has "))
                self.add(node, "unknown-attribute", f"<{row.name}> has no attribute {cut(name)!r}", remedy)
                continue
            item.values[name] = value = self._value(node, name, text, known.type)
            if known.refers and value is not None:
                self.references.append(Reference(known.refers, text, item.where))
            if not (known.effect or quiet or text in known.effective):
                self.no_effect.append(f"{node.file}:{node.line}: {_sentence(row, known, text)} has no effect yet")
        if len(node.attributes) < len(row.by_attribute):
            for known in row.attributes:
                if known.required and known.name not in node.attributes and (row.many or not self.partial):
                    message = f"<{row.name}> lacks the attribute {known.name}"
                    self.add(node, "missing-attribute", message, f'write {known.name}="{known.type.example}"')

    def _text(self, node: Node, row: Element, item: Item) -> None:
        text = node.text
        if row.text is None:
            if text and not text.isspace():
                remedy = "remove it" if not row.attributes else "facts are attributes"
                self.add(
                    node, "stray-text", f"<{row.name}> holds no text, but {cut(text.strip())!r} stands there", remedy
                )
        elif text:
            item.text = self._value(node, "", text, row.text)
        elif row.text_required and not self.partial:
            self.add(
                node, "missing-text", f"<{row.name}> is empty", f"write {row.text.phrase}, such as {row.text.example}"
            )
        else:
            item.text = ""

    def _value(self, node: Node, name: str, text: str, kind: Type) -> object:
        """`name` is the attribute's, "" for the element's text."""
        if text and (text[0].isspace() or text[-1].isspace()):
            self.add(
                node,
                "white-space",
                f"<{node.tag}>: white space around {_named(name, text)}",
                "remove it; nothing is trimmed",
            )
            return None
        if self.unexpanded and "${" in text:
            return None
        try:
            return kind.parse(text)
        except ValueError as error:
            remedy = f"write for example {kind.example}"
            if kind.choices:
                remedy = did_you_mean(text, kind.choices, f"write {kind.example}")
            shown, words = _named(name, text), str(error)
            if words and words.startswith(("is ", "has ", "must ", "can't ")):
                message = f"<{node.tag}>: {shown} {words}"
            else:
                message = f"<{node.tag}>: {shown}: {words}" if words else f"<{node.tag}>: {shown} is not {kind.phrase}"
            self.add(node, "value", message, remedy)
            return None

    def _children(self, node: Node, row: Element, item: Item, quiet: bool) -> None:
        children = item.children
        lines: dict[tuple[str, object], int] = {}
        for child in node.children:
            known = row.by_child.get(child.tag)
            if known is None:
                remedy = did_you_mean(
                    child.tag, row.by_child, _listed(row.by_child, "it holds no elements", "it holds ")
                )
                self.add(child, "unknown-element", f"<{row.name}> holds no <{cut(child.tag)}>", remedy)
                continue
            checked = self.check(child, known, quiet=quiet)
            key = checked.values.get(known.key) if known.many else None
            if known.many and key is None:
                children.setdefault(known.name, []).append(checked)
            elif (known.name, key) in lines:
                self._repeated(child, known, key, lines[known.name, key])
            else:
                lines[known.name, key] = child.line
                children.setdefault(known.name, []).append(checked)
        if not self.partial:
            self._required(node, row, children)

    def _repeated(self, node: Node, row: Element, key: object, line: int) -> None:
        shown = f"<{row.name}> with {row.key}={key!r}" if key is not None else f"<{row.name}>"
        remedy = "keep one of them" if key is None or row.key in node.attributes else f"give one another {row.key}"
        self.add(node, "repeated", f"{shown} stands twice, first on line {line}", remedy)

    def _required(self, node: Node, row: Element, children: dict[str, list[Item]]) -> None:
        for known in row.children:
            if known.required and known.name not in children:
                self.add(node, "missing-element", f"<{row.name}> lacks <{known.name}>", f"write one <{known.name}>")
        if row.one_of and (count := sum(name in children for name in row.one_of)) != 1:
            message = f"<{row.name}> holds {'none' if not count else str(count)} of {', '.join(row.one_of)}"
            self.add(node, "one-of", message, "write exactly one of them")


def _listed(known: Iterable[str], none: str, some: str) -> str:
    names = ", ".join(known)
    return f"{some}{names}" if names else none


def _named(name: str, text: str) -> str:
    if _PRIVATE.search(text):
        text = "a private key, which is not repeated here"
    return f'{name}="{cut(text)}"' if name else f"the text “{cut(text)}”"


def _sentence(row: Element, known: Attribute, text: str) -> str:
    return f'{row.name} {known.name}="{cut(text)}"' if known.effective else f"{row.name} {known.name}"


def cut(text: str, most: int = SHOWN_MAX) -> str:
    """Short and printable: a hostile file must not fill the terminal, or drive it."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode("ascii")
