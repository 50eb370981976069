"""What would go, or went, and how much that frees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k4t.master.prune import Surplus
from k4t.render.console import Console, plural
from k4t.render.top import amount


def lines(found: Surplus, console: Console) -> Iterator[str]:
    for one in found.containers:
        yield console.style(f"- {one.node}: container {one.name} ({one.status or one.state})", "red")
    for old in found.images:
        tag = next((name for name in old.image.names if "@" not in name), old.image.names[0])
        yield console.style(f"- {old.node}: image {tag}, {amount(old.image.size_bytes)}", "red")
    for left in found.files:
        yield console.style(f"- {left.node}: files of {left.name}, which is no more", "red")
    yield f"{counts(found)}." if not found.empty else "Nothing to prune."


def counts(found: Surplus) -> str:
    what = f"{plural(len(found.containers), 'container')} and {plural(len(found.images), 'image')}"
    if found.files:
        what += f" and the files of {len(found.files)} more"
    return f"{what}, which frees up to {amount(found.size_bytes)}"


def as_json(found: Surplus) -> dict[str, Any]:
    return {
        "version": 1,
        "size_bytes": found.size_bytes,
        "images": [
            {
                "node": old.node, "id": old.image.id, "names": list(old.image.names),
                "size_bytes": old.image.size_bytes,
            }
            for old in found.images
        ],
        "containers": [{"node": one.node, "name": one.name, "state": one.state} for one in found.containers],
        "files": [{"node": one.node, "container": one.name} for one in found.files],
        "problems": list(found.problems),
    }  # fmt: skip
