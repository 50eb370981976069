"""HTML by construction: what is text is escaped when it becomes part of an element, once, whoever wrote it.

Names, messages and words of hosts come from anywhere. Beside `&<>"'`, what no HTML may hold (control characters, halves
of surrogate pairs) or what turns the reading direction of all that follows is replaced; and what is too long is cut.
"""

from __future__ import annotations

import html
import re

MAX_TEXT = 2000
_FOREIGN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
_VOID = frozenset({"meta", "link", "rect", "circle", "line", "br"})
"""Written without an end; those of SVG close themselves."""
_SVG = frozenset({"rect", "circle", "line"})


class Html(str):
    """Markup: what `element` and `join` make. A plain str is text."""

    __slots__ = ()


def text(words: str) -> Html:
    shown = words if len(words) <= MAX_TEXT else words[: MAX_TEXT - 1] + "…"
    return Html(html.escape(_FOREIGN.sub("\ufffd", shown)))


def join(*parts: str) -> Html:
    return Html("".join(part if isinstance(part, Html) else text(part) for part in parts))


def element(tag: str, /, *parts: str, **attributes: str) -> Html:
    """`class_` is class, `aria_label` aria-label; an attribute whose value is "" is left out."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(said)}"' for key, said in attributes.items() if said)
    if tag in _VOID:
        return Html(f"<{tag}{given}{'/' if tag in _SVG else ''}>")
    return Html(f"<{tag}{given}>{join(*parts)}</{tag}>")


def hidden(words: str) -> Html:
    """For those who hear the page."""
    return element("span", words, class_="hear")
