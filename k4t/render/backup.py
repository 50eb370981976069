"""How a backup went, target by target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k4t.master.backup.report import Report, Result
from k4t.master.backup.target import sized
from k4t.render.console import Console, plural, table

STYLE = {"copied": "green", "confirmed": "green", "failed": "red", "skipped": "yellow"}


def lines(report: Report, console: Console) -> Iterator[str]:
    """One a target, then what should be known besides."""
    yield from table(
        ("TARGET", "RESULT", ""), [(one.target, one.result, _detail(one)) for one in report.results], console
    )
    for one in report.results:
        for remark in one.remarks:
            yield console.style(f"! {one.target}: {remark}", "yellow")
    if failed := report.failed:
        names = ", ".join(one.target for one in failed)
        yield console.style(f"Not backed up: {names}; the next backup tries again.", "yellow")


def _detail(one: Result) -> str:
    if one.error:
        return one.error
    if one.result == "confirmed":
        return "unchanged"
    return f"{sized(one.size_bytes)}, {plural(one.count, 'copy', 'copies')} there"


def as_json(report: Report) -> dict[str, Any]:
    failed, results = len(report.failed), len(report.results)
    word = "nothing" if not results else "done" if not failed else "failed" if failed == results else "partial"
    return {"version": 1, "serial": report.serial, "result": word, "backups": rows(report)}


def rows(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "target": one.target, "result": one.result, "error": one.error, "size_bytes": one.size_bytes,
            "remarks": list(one.remarks),
        }
        for one in report.results
    ]  # fmt: skip
