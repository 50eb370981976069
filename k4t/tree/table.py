"""What a row of the schema is. The rows stand in schema_*.py; `schema` puts them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k4t.tree.values import Type


@dataclass(frozen=True, slots=True)
class Attribute:
    """`default` is written as in a file; None: there is none, and the meaning says what holds then.

    `effect` False: it has none yet. `effective` lists the values that have one all the same.
    `refers`: the value is the name of one of these (see `references`).
    """

    name: str
    type: Type
    meaning: str
    default: str | None = None
    required: bool = False
    effect: bool = True
    effective: tuple[str, ...] = ()
    refers: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """`text` is the type of its text, None when it holds none. `many`: it may be repeated; `key`: the attribute
    (or "#text") that tells the repeated ones apart. `one_of`: exactly one of these children must stand."""

    name: str
    meaning: str
    attributes: tuple[Attribute, ...] = ()
    children: tuple[Element, ...] = ()
    text: Type | None = None
    text_required: bool = False
    many: bool = False
    required: bool = False
    key: str = ""
    effect: bool = True
    one_of: tuple[str, ...] = ()
    by_attribute: Mapping[str, Attribute] = field(init=False, repr=False, compare=False)
    by_child: Mapping[str, Element] = field(init=False, repr=False, compare=False)
    defaults: Mapping[str, object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look-ups made once: the checker asks them for every element of every file."""
        object.__setattr__(self, "by_attribute", {a.name: a for a in self.attributes})
        object.__setattr__(self, "by_child", {c.name: c for c in self.children})
        values = {a.name: None if a.default is None else a.type.parse(a.default) for a in self.attributes}
        object.__setattr__(self, "defaults", values)


attribute = Attribute


def element(
    name: str,
    meaning: str,
    *parts: Attribute | Element,
    text: Type | None = None,
    text_required: bool = False,
    many: bool = False,
    required: bool = False,
    key: str = "",
    effect: bool = True,
    one_of: tuple[str, ...] = (),
) -> Element:
    """A row, its attributes and children in the order in which the reference page tells them."""
    return Element(
        name,
        meaning,
        tuple(part for part in parts if isinstance(part, Attribute)),
        tuple(part for part in parts if isinstance(part, Element)),
        text,
        text_required,
        many,
        required,
        key,
        effect,
        one_of,
    )
