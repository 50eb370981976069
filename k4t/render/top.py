"""What containers use: a table, JSON, or both columns and rows anew every second on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from k4t.master.inspection.top import Use
from k4t.render.console import Console, table
from k4t.render.logs import label

HEAD = ("REPLICA", "NODE", "CPU", "MEMORY", "OF", "RECEIVED", "SENT", "PIDS")
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def once(uses: Sequence[Use], console: Console) -> None:
    if console.output == "table":
        console.result(table(HEAD, [_row(use) for use in uses], console))
    else:
        console.data({"version": 1, "containers": [as_json(use) for use in uses]}, rows="containers")


def live(readings: Iterable[Sequence[Use]]) -> None:
    """Until Ctrl-C."""
    from rich.console import Console as Terminal
    from rich.live import Live
    from rich.table import Table

    with Live(console=Terminal(), auto_refresh=False, screen=True) as screen:
        for uses in readings:
            shown = Table(*HEAD, box=None, header_style="bold", pad_edge=False)
            for use in uses:
                shown.add_row(*_row(use))
            screen.update(shown, refresh=True)


def as_json(use: Use) -> dict[str, Any]:
    one, read = use.sample.container, use.sample
    return {
        "app": one.app, "replica": int(one.replica) if one.replica.isdigit() else one.replica, "node": one.node,
        "container": one.name, "cpus": round(use.cpus, 4), "memory_bytes": read.memory_bytes,
        "memory_limit_bytes": read.memory_limit_bytes, "received_bytes": read.received_bytes,
        "sent_bytes": read.sent_bytes, "received_bytes_s": use.received_bytes_s, "sent_bytes_s": use.sent_bytes_s,
        "pids": read.pids,
    }  # fmt: skip


def _row(use: Use) -> tuple[str, ...]:
    read = use.sample
    share = f"{100 * read.memory_bytes / read.memory_limit_bytes:.0f} %" if read.memory_limit_bytes else "-"
    return (
        label(read.container), read.container.node, f"{100 * use.cpus:.1f} %", amount(read.memory_bytes), share,
        _rate(use.received_bytes_s), _rate(use.sent_bytes_s), str(read.pids),
    )  # fmt: skip


def amount(size_bytes: float) -> str:
    for size, unit in UNITS:
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{amount(rate)}/s"
