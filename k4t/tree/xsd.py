"""The table as an XSD 1.0, for editors: they complete names and show meanings. k4t's own checker says more."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.tree.edit import attribute_escaped, text_escaped
from k4t.tree.schema import DEFAULTS_APP, FILES
from k4t.tree.table import Attribute, Element
from k4t.tree.values import Type

_VARIABLE = r".*\$\{.*"


def xsd() -> str:
    """One schema for all files of a tree; the root element tells which file it is."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">']
    for path, row in FILES.items():
        lines.append(f"  <!-- {path} -->")
        lines += _element(row, 1, variables=row.name == "app", root=True)
    return "\n".join([*lines, "</xs:schema>", ""])


def _element(row: Element, depth: int, *, variables: bool, root: bool = False, partial: bool = False) -> Iterator[str]:
    pad = "  " * depth
    variables |= row is DEFAULTS_APP
    occurs = "" if root else f' minOccurs="{int(row.required and not partial)}"'
    occurs += ' maxOccurs="unbounded"' if row.many else ""
    yield f'{pad}<xs:element name="{row.name}"{occurs}>'
    yield f"{pad}  {_documentation(row.meaning)}"
    if row.text is not None and not row.attributes:
        yield from _simple(row.text, depth + 1, variables, empty=not row.text_required)
    else:
        yield f"{pad}  <xs:complexType>"
        if row.text is not None:
            yield from _text(row, depth + 2, variables, partial)
        else:
            yield from _children(row, depth + 2, variables=variables, partial=partial or row.name == "defaults")
            for attribute in row.attributes:
                yield from _attribute(attribute, depth + 2, variables, partial and not row.many)
        yield f"{pad}  </xs:complexType>"
    yield f"{pad}</xs:element>"


def _children(row: Element, depth: int, *, variables: bool, partial: bool) -> Iterator[str]:
    """XSD 1.0 has no free order of children that may be repeated: then any number of each is let through."""
    if not row.children:
        return
    pad = "  " * depth
    repeated = any(child.many for child in row.children)
    yield f"{pad}" + ('<xs:choice minOccurs="0" maxOccurs="unbounded">' if repeated else "<xs:all>")
    for child in row.children:
        yield from _element(child, depth + 1, variables=variables, partial=partial)
    yield f"{pad}" + ("</xs:choice>" if repeated else "</xs:all>")


def _text(row: Element, depth: int, variables: bool, partial: bool) -> Iterator[str]:
    """XSD 1.0 can't add attributes to an unnamed simple type: the text's own type is left to k4t's checker."""
    pad = "  " * depth
    yield f"{pad}<xs:simpleContent>"
    yield f'{pad}  <xs:extension base="xs:string">'
    for attribute in row.attributes:
        yield from _attribute(attribute, depth + 2, variables, partial and not row.many)
    yield f"{pad}  </xs:extension>"
    yield f"{pad}</xs:simpleContent>"


def _attribute(row: Attribute, depth: int, variables: bool, partial: bool) -> Iterator[str]:
    pad = "  " * depth
    use = ' use="required"' if row.required and not partial else ""
    default = f' default="{attribute_escaped(row.default)}"' if row.default is not None and not use else ""
    yield f'{pad}<xs:attribute name="{row.name}"{use}{default}>'
    yield f"{pad}  {_documentation(row.meaning)}"
    yield from _simple(row.type, depth + 1, variables)
    yield f"{pad}</xs:attribute>"


def _simple(kind: Type, depth: int, variables: bool, empty: bool = False) -> Iterator[str]:
    pad = "  " * depth
    facets = [f'<xs:enumeration value="{word}"/>' for word in kind.choices]
    if kind.pattern and not kind.choices:
        facets = [f'<xs:pattern value="{attribute_escaped(kind.pattern)}"/>']
    yield f"{pad}<xs:simpleType>"
    if facets and (variables or empty):
        other = [f'<xs:pattern value="{_VARIABLE}"/>'] if variables else []
        other += ['<xs:pattern value=""/>'] if empty else []
        yield f"{pad}  <xs:union>"
        for some in (facets, other):
            restriction = f'<xs:restriction base="xs:string">{"".join(some)}</xs:restriction>'
            yield f"{pad}    <xs:simpleType>{restriction}</xs:simpleType>"
        yield f"{pad}  </xs:union>"
    else:
        yield f'{pad}  <xs:restriction base="xs:string">{"".join(facets)}</xs:restriction>'
    yield f"{pad}</xs:simpleType>"


def _documentation(meaning: str) -> str:
    return f"<xs:annotation><xs:documentation>{text_escaped(meaning)}</xs:documentation></xs:annotation>"
