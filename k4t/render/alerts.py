"""Who is told, for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from k4t.monitor.alerts.deliver import label
from k4t.monitor.alerts.message import tries
from k4t.render.console import Console, table

if TYPE_CHECKING:
    from k4t.model.monitor import Alert
    from k4t.monitor.alerts.memory import Desk
    from k4t.monitor.alerts.trial import Tried


def tried(found: Sequence[Tried], console: Console) -> int:
    """The exit status: 0 all were taken, 3 some, 1 none."""
    if console.output == "table":
        rows = [(label(one.alert), f"{one.took_s:.1f} s", one.error or "taken", str(one.alert.where)) for one in found]
        console.result(table(("ALERT", "TOOK", "RESULT", "WRITTEN"), rows, console))
    else:
        alerts = [
            {
                "alert": label(one.alert), "where": str(one.alert.where), "sent": not one.error,
                "took_s": round(one.took_s, 3), "error": one.error,
            }
            for one in found
        ]  # fmt: skip
        console.data({"version": 1, "alerts": alerts}, rows="alerts" if console.output == "jsonl" else "")
    taken = sum(not one.error for one in found)
    return 0 if taken == len(found) else 3 if taken else 1


def waiting(found: Sequence[tuple[Alert, Desk]], console: Console) -> None:
    if console.output == "table":
        rows = [
            (
                label(alert), alert.level, str(len(desk.state.open)), _time(desk.state.sent) or "-",
                _waits(desk) or "-", desk.box.error or "-",
            )
            for alert, desk in found
        ]  # fmt: skip
        console.result(table(("ALERT", "FROM", "OPEN", "LAST", "WAITS", "BECAUSE"), rows, console))
        return
    alerts = [
        {
            "alert": label(alert), "where": str(alert.where), "level": alert.level, "open": len(desk.state.open),
            "last": _time(desk.state.sent), "waiting": desk.box.first is not None,
            "tries": desk.box.first.tries if desk.box.first else 0, "error": desk.box.error,
        }
        for alert, desk in found
    ]  # fmt: skip
    console.data({"version": 1, "alerts": alerts}, rows="alerts" if console.output == "jsonl" else "")


def _waits(desk: Desk) -> str:
    first = desk.box.first
    return "" if first is None else f"since {_time((first.first_s,))}, {tries(first)}"


def _time(sent: tuple[float, ...]) -> str | None:
    return datetime.fromtimestamp(sent[-1], UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if sent else None
