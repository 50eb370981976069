"""Every error of the tree, as text: files, and the whole of what k4t says about them (see cases/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from k4t.errors import InvalidTree
from k4t.tree.read import read_tree
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit
CASES = Path(__file__).parent / "cases"


@dataclass(slots=True)
class Case:
    title: str
    files: dict[str, str] = field(default_factory=dict)
    expected: list[str] = field(default_factory=list)


def cases() -> Iterator[Case]:
    for path in sorted(CASES.glob("*.txt")):
        case, file = Case(""), ""
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.startswith("# "):
                case = Case(f"{path.stem}: {line[2:].strip()}")
                yield case
            elif line.startswith("@ "):
                file = line[2:].strip()
                case.files[file] = ""
            elif line.startswith(">"):
                case.expected.append(line[1:].strip())
            elif line.strip():
                case.files[file] += line


ALL = list(cases())


@pytest.mark.parametrize("case", ALL, ids=[case.title for case in ALL])
def test_a_tree_is_told_exactly_what_is_wrong_with_it(case: Case, tmp_path: Path) -> None:
    """All findings, in order, and nothing else; no finding means that it is valid."""
    write_tree(tmp_path, case.files)
    said: list[str] = []
    try:
        tree = read_tree(tmp_path)
    except InvalidTree as error:
        said = [f"{finding.code} | {finding}" for finding in error.findings]
    else:
        said = [f"no effect | {sentence}" for sentence in tree.no_effect]
    assert "\n".join(said) == "\n".join(case.expected)
