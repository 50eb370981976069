"""`${name}` in the text and attributes of apps; `$${` stands for a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from k4t.errors import Finding
from k4t.tree.check import Node
from k4t.tree.nearest import did_you_mean

_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")


class UnknownVariable(Exception):
    """`name` is None where a `${` is not closed."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.name = name


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Raises UnknownVariable."""
    if "${" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        if found[1] is None or found[1] not in variables:
            raise UnknownVariable(found[1])
        return variables[found[1]]

    return _PLACE.sub(value, text)


def escape(text: str) -> str:
    """The text that `expand` turns into this one."""
    return text.replace("${", "$${")


def expand_node(node: Node, variables: Mapping[str, str], findings: list[Finding]) -> None:
    """In place, with all that it holds; what can't be expanded is a finding."""
    for name, text in node.attributes.items():
        if "${" in text:
            node.attributes[name] = _expanded(text, node, variables, findings)
    if "${" in node.text:
        node.text = _expanded(node.text, node, variables, findings)
    for child in node.children:
        expand_node(child, variables, findings)


def _expanded(text: str, node: Node, variables: Mapping[str, str], findings: list[Finding]) -> str:
    try:
        return expand(text, variables)
    except UnknownVariable as error:
        findings.append(unknown(error, node.file, node.line, variables))
        return text


def unknown(error: UnknownVariable, file: str, line: int, variables: Mapping[str, str]) -> Finding:
    if error.name is None:
        return Finding(file, line, "variable", "${ is not closed", "write ${name}, or $${ for a literal ${")
    otherwise = "define it in cluster.xml, or write $${ for a literal ${"
    name = error.name[:60]
    return Finding(file, line, "unknown-variable", f"no variable {name!r}", did_you_mean(name, variables, otherwise))
