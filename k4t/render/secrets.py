"""Secrets and who can open them, as lists. No value ever comes here."""

from __future__ import annotations

from collections.abc import Sequence

from k4t.model.spec import Tree
from k4t.render.console import Console, table
from k4t.tree.secret_files import Recipient
from k4t.tree.secret_uses import uses

SHOWN = 44


def secrets(tree: Tree, console: Console) -> None:
    rows = [
        {"name": name, "kept": tree.secrets[name].kind, "file": tree.secrets[name].where.file, "used_by": users}
        for name, users in uses(tree).items()
    ]
    if console.output != "table":
        console.data({"version": 1, "secrets": rows}, rows="secrets")
    elif not rows:
        console.note("the tree has no secrets")
    else:
        cells = [[str(row["name"]), str(row["kept"]), "; ".join(row["used_by"]) or "-"] for row in rows]
        console.result(table(("NAME", "KEPT", "USED BY"), cells, console))


def recipients(found: Sequence[Recipient], console: Console) -> None:
    if console.output != "table":
        rows = [{"name": one.name, "key": one.key} for one in found]
        console.data({"version": 1, "recipients": rows}, rows="recipients")
    elif not found:
        console.note("nobody yet: the first k4t secret set begins with you")
    else:
        cells = [[one.name or "-", one.key if len(one.key) <= 70 else f"{one.key[:SHOWN]}…"] for one in found]
        console.result(table(("NAME", "KEY"), cells, console))
