"""A page of docs/ that is typed on the hosts of a lab: its blocks, each under a line such as “On **node1**:”."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from k4t.model.value import value

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^On (?P<where>\*\*.*\*\*):\n\n(?P<text>(?:    .*\n|\n(?=    ))+)", re.MULTILINE)


@value
class Block:
    """`where`: the machines, as they are called there."""

    where: tuple[str, ...]
    text: str

    @property
    def last(self) -> str:
        return self.text.rstrip().rpartition("\n")[2]


def sections(page: str) -> dict[str, list[Block]]:
    """By heading, the blocks below it."""
    parts = re.split(r"(?m)^## (.*)\n", (DOCS / page).read_text())
    return {title: blocks(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def blocks(text: str) -> list[Block]:
    return [
        Block(tuple(re.findall(r"\*\*(.*?)\*\*", one["where"])), textwrap.dedent(one["text"]))
        for one in _BLOCK.finditer(text)
    ]
