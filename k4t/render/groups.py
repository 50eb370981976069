"""Gateways and DNS servers with what they hold; what `sync` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k4t.master.groups import Comparison
from k4t.model.spec import Tree
from k4t.render import lists
from k4t.render.console import Console, table


def members(tree: Tree, kind: str, held: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """The tree's members, and under each every endpoint with its owner."""
    rows = [{**row, **held.get(row["name"], {})} for row in lists.described(tree, kind)]
    if console.output != "table":
        console.data({"version": 1, kind: rows}, rows=kind)
        return
    lists.things(tree, kind, console)
    for row in rows:
        if row.get("endpoints") is None:
            console.note(f"! what {row['name']} holds is unknown: {row.get('problem') or 'it was not asked'}", "yellow")
        elif row["endpoints"]:
            console.result("")
            console.result(console.style(str(row["name"]), "bold"))
            head = ("OWNER", "APP", "ENDPOINT", "NODE", "REPLICA", "")
            console.result(table(head, [_cells(one) for one in row["endpoints"]], console))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    host = f"[{row['ip']}]" if ":" in row["ip"] else row["ip"]
    address = f"{host}:{row['port']}" if row["port"] else row["ip"]
    withdrawn = f"withdrawn by {row['withdrawn']}" if row["withdrawn"] else ""
    return (row["owner"], row["app"], address, row["node"] or "-", row["replica"] or "-", withdrawn)


def compared(found: Sequence[Comparison], console: Console) -> None:
    """What each group holds against what runs."""
    if console.output != "table":
        return
    for one in found:
        state = "differs from what runs" if one.differs else "holds what runs"
        console.result(console.style(f"{one.kind} group {one.group}: {state}", "bold"))
        for words in one.add:
            console.result(console.style(f"  + {words}", "green"))
        for words in one.remove:
            console.result(console.style(f"  - {words}", "red"))
        for name, wrong in one.members:
            console.result(f"  {name}: {wrong or 'in step'}")
