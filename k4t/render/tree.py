"""What the commands that only read or write the tree say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from k4t.errors import Finding
from k4t.model.spec import Tree
from k4t.render.console import Console, plural


def created(where: Path, name: str) -> str:
    return (
        f"Wrote a new tree for cluster {name} in {where}.\n"
        f"Next: k4t node add NODE ADDRESS; write {where}/apps/NAME/app.xml; k4t plan"
    )


def findings(found: Sequence[Finding], console: Console) -> None:
    """Every error, in order of file and line."""
    if console.output != "table":
        errors = [
            {"file": one.file, "line": one.line, "code": one.code, "message": one.message, "remedy": one.remedy}
            for one in found
        ]
        console.data({"version": 1, "errors": errors}, rows="errors")
        return
    for one in found:
        console.result(str(one))
    console.result(console.style(f"{plural(len(found), 'error')}.", "red"))


def valid(tree: Tree, console: Console) -> None:
    if console.output != "table":
        console.data({"version": 1, "errors": []}, rows="errors")
        return
    counts = [(len(tree.nodes), "node"), (len(tree.apps), "app"), (len(tree.gateways), "gateway")]
    said = ", ".join(plural(count, word) for count, word in counts)
    for sentence in tree.no_effect:
        console.note(f"note: {sentence}")
    console.result(f"{tree.cluster.name} is valid: {said}, {plural(len(tree.dns), 'DNS server')}.")
