"""How a backup went, target by target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k4t.errors import Unsafe
from k4t.master.backup.due import left_s
from k4t.master.backup.memory import Memory
from k4t.master.backup.report import Report, Result
from k4t.master.backup.target import sized
from k4t.model.value import value
from k4t.render.console import Console, age, plural, table

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
        again = "" if all(one.status == Unsafe.exit_status for one in failed) else "; the next backup tries again"
        yield console.style(f"Not backed up: {names}{again}.", "yellow")


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


@value
class Shown:
    """A schedule: what is `installed` (kind, files), its (last, next) run, the targets and their periods, and what is
    remembered of them."""

    installed: tuple[str, dict[str, str]] | None
    times: tuple[str, str]
    targets: list[tuple[str, float]]
    known: Memory
    now_s: float

    def confirmed_s(self, name: str) -> float | None:
        return self.known.of(name).confirmed_s

    def due_s(self, name: str, every_s: float) -> float:
        return left_s(self.confirmed_s(name), every_s, self.now_s)


def scheduled(kind: str, files: dict[str, str], *, changed: bool, user: bool) -> Iterator[str]:
    places = ", ".join(path for path in files if path) or USERS
    yield f"{'installed' if changed else 'as it was'}: {KINDS[kind]}, in {places}"
    yield "`k4t backup --due` is called every minute; `k4t backup schedule show` says what it does"
    if user and kind == "systemd":
        yield "it runs while you are logged in; `loginctl enable-linger` lets it run always"


def schedule(seen: Shown, console: Console) -> Iterator[str]:
    if seen.installed is None:
        yield console.style("nothing calls `k4t backup --due` here: k4t backup schedule install", "yellow")
    else:
        kind, files = seen.installed
        yield f"{KINDS[kind]}, in {', '.join(path for path in files if path) or USERS}"
        yield f"  {_command(files)}"
        if seen.times != ("", ""):
            yield f"  last run {seen.times[0] or 'never'}; next {seen.times[1] or 'unknown'}"
    if seen.targets:
        yield ""
        rows = [(name, age(every_s), _ago(seen, name), _in(seen, name, every_s)) for name, every_s in seen.targets]
        yield from table(("TARGET", "EVERY", "CURRENT", "DUE"), rows, console)
        for name, _ in seen.targets:
            if problem := seen.known.of(name).problem:
                yield console.style(f"! {name}: {problem}", "yellow")


def schedule_json(seen: Shown) -> dict[str, Any]:
    kind, files = seen.installed or ("", {})
    return {
        "version": 1, "installed": kind or None, "files": [path for path in files if path], "command": _command(files),
        "last_run": seen.times[0], "next_run": seen.times[1],
        "targets": [
            {
                "target": name, "every_s": every_s, "confirmed_s": seen.confirmed_s(name),
                "due_in_s": int(seen.due_s(name, every_s)), "problem": seen.known.of(name).problem,
            }
            for name, every_s in seen.targets
        ],
    }  # fmt: skip


USERS = "this user's crontab"
KINDS = {"systemd": "a systemd timer", "cron.d": "a line for cron", "crontab": "a line for cron"}


def _command(files: dict[str, str]) -> str:
    lines = [line for text in files.values() for line in text.splitlines()]
    exact = next((line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")), "")
    return exact or next((line for line in lines if line.startswith("*")), "")


def _ago(seen: Shown, name: str) -> str:
    confirmed_s = seen.confirmed_s(name)
    return "never" if confirmed_s is None else f"{age(seen.now_s - confirmed_s)} ago"


def _in(seen: Shown, name: str, every_s: float) -> str:
    due_s = seen.due_s(name, every_s)
    return f"in {age(due_s)}" if due_s else "now"
