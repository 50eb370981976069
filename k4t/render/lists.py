"""Lists: what the tree has, what runs, what was checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from k4t.errors import gravest
from k4t.master.inspection.check import Checked
from k4t.model.app import App
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.spec import Tree
from k4t.model.state import Container
from k4t.render.console import Console, age, table


def things(tree: Tree, kind: str, console: Console) -> None:
    """Nodes, gateways, DNS servers or apps as the tree has them."""
    found = described(tree, kind)
    if console.output != "table":
        console.data({"version": 1, kind: found}, rows=kind)
    elif not found:
        console.note(f"the tree has no {kind}")
    else:
        keys = list(found[0])
        console.result(
            table([key.upper().replace("_", " ") for key in keys], [_cells(row, keys) for row in found], console)
        )  # fmt: skip


def described(tree: Tree, kind: str) -> list[dict[str, Any]]:
    """One a thing."""
    found: Mapping[str, Any] = getattr(tree, kind)
    return [_row(thing) for thing in found.values()]


def _row(thing: Node | Gateway | Dns | App) -> dict[str, Any]:
    if isinstance(thing, Node):
        return {
            "name": thing.name, "address": thing.address, "availability": thing.availability,
            "ssh": thing.ssh.host or thing.address, "labels": dict(thing.labels),
        }  # fmt: skip
    if isinstance(thing, App):
        replicas = "per-node" if thing.replicas is None else thing.replicas
        if thing.scale is not None:
            replicas = f"{thing.scale.min}-{thing.scale.max}"
        return {
            "name": thing.name, "image": thing.image.reference, "replicas": replicas, "stopped": thing.stopped,
            "domains": sorted({domain for route in thing.routes for domain in route.domains}),
        }  # fmt: skip
    common = {"name": thing.name, "driver": thing.driver, "address": thing.address, "group": thing.group}
    if isinstance(thing, Dns):
        return {**common, "zone": thing.zone}
    return {**common, "http": thing.http or None, "https": thing.https or None}


def _cells(row: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [_cell(row[key]) for key in keys]


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={text}" for key, text in value.items()) or "-"
    if isinstance(value, list):
        return " ".join(value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def containers(rows: Sequence[Container | str], console: Console, *, now_s: float) -> None:
    """Running and stopped containers; a sentence for each node that can't be asked."""
    found = [row for row in rows if isinstance(row, Container)]
    if console.output != "table":
        listed = [
            {
                **dataclasses.asdict(one),
                "replica": int(one.replica) if one.replica.isdigit() else one.replica,
                "created": datetime.fromtimestamp(one.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for one in found
        ]
        away = [row for row in rows if isinstance(row, str)]
        console.data({"version": 1, "containers": listed, "unreachable": away}, rows="containers")
        return
    cells = [
        (
            one.node, one.name, one.status or one.state,
            " ".join(f"{port.name}={one.address}:{port.number}" for port in one.ports) or "-",
            age(now_s - one.created_s), str(one.revision),
        )
        for one in found
    ]  # fmt: skip
    console.result(table(("NODE", "CONTAINER", "STATE", "PORTS", "AGE", "SERIAL"), cells, console))
    for row in rows:
        if isinstance(row, str):
            console.note(f"! {row}", "yellow")


def checks(results: Sequence[Checked], console: Console) -> int:
    """Each check with its verdict, bad ones with what to do. Returns the exit status they add up to."""
    if console.output != "table":
        console.data({"version": 1, "checks": [dataclasses.asdict(one) for one in results]}, rows="checks")
    else:
        subject = ""
        for one in results:
            if one.subject != subject:
                subject = one.subject
                console.result(console.style(subject, "bold"))
            mark = console.style("ok  ", "green") if one.ok else console.style("bad ", "red")
            console.result(
                f"  {mark} {one.what}: {one.said}" + (f"; {one.remedy}" if one.remedy and not one.ok else "")
            )
    return gravest(one.exit_status for one in results if not one.ok)
