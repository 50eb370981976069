"""How an apply ended: one calm summary, or the JSON of design.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k4t.errors import Interrupted
from k4t.master.backup.report import Report
from k4t.master.deploy import Outcome
from k4t.master.planning.plan import Step
from k4t.render.console import Console, plural
from k4t.render.plan import placed

MAX_WAITING = 6
STYLE = {"done": "green", "nothing": "green", "partial": "yellow", "failed": "red"}


def lines(outcome: Outcome, console: Console, name: str, duration_s: float, steps: Mapping[str, Step]) -> Iterator[str]:
    """`steps`: of the plans that were shown, by id; of what was put back the id alone is known."""
    for step, host, error in outcome.failed:
        what, where = _words(step, steps), f"{host}: " if host else ""
        said = error.removeprefix(where)
        yield console.style(f"✗ {what}: {said if what.startswith(where) else where + said}", "red")
    for because, ids in _waiting(outcome).items():
        shown = ", ".join(_words(id, steps) for id in ids[:MAX_WAITING])
        more = f" and {len(ids) - MAX_WAITING} more" if len(ids) > MAX_WAITING else ""
        why = because if because == "interrupted" else f"since this did not succeed: {_words(because, steps)}"
        yield console.style(f"! not done: {shown}{more} ({why})", "yellow")
    for sentence in outcome.not_done[len(outcome.waiting) :]:
        yield console.style(f"! not done: {sentence}", "yellow")
    for warning in outcome.warnings:
        yield console.style(f"! {warning}", "yellow")
    words = {
        "done": f"Done: {plural(outcome.done, 'step')} in {duration_s:.1f} s. {name} is at serial {outcome.serial}.",
        "nothing": f"Nothing to do. {name} is at serial {outcome.serial}.",
        "partial": f"Done in part: {plural(outcome.done, 'step')} in {duration_s:.1f} s; the next apply goes on.",
        "failed": "Failed: what served before still serves.",
    }
    if not outcome.done:
        words["partial"] = f"Nothing done: what is not is named above. {name} is at serial {outcome.serial}."
    if outcome.exit_status == Interrupted.exit_status:
        words["partial"] = f"Interrupted: {plural(outcome.done, 'step')} done; the next apply goes on."
    yield console.style(words[outcome.result], STYLE[outcome.result])


def _waiting(outcome: Outcome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for id, because in outcome.waiting:
        found.setdefault(because, []).append(id)
    return found


def _words(id: str, steps: Mapping[str, Step]) -> str:
    return placed(steps[id]) if id in steps else id


def copies(report: Report | None, console: Console) -> Iterator[str]:
    """Of the tree, after the apply: what is wrong with which targets, then one line for what went well."""
    results = report.results if report else ()
    failed: dict[str, list[str]] = {}
    for one in results:
        for remark in one.remarks:
            yield console.style(f"! {one.target}: {remark}", "yellow")
        if one.result == "failed":
            failed.setdefault(one.error, []).append(one.target)
    for error, names in failed.items():
        yield console.style(f"! no copy of the tree on {', '.join(names)}: {error}", "yellow")
    if done := [one.target for one in results if one.result in ("copied", "confirmed")]:
        yield f"Copies of the tree: {', '.join(done)}."


def as_json(outcome: Outcome, report: Report | None = None) -> dict[str, Any]:
    """`report`: of the copies that followed."""
    return {
        "version": 1,
        "serial": outcome.serial,
        "result": outcome.result,
        "done": outcome.done,
        "failed": [{"step": step, "host": host, "error": error} for step, host, error in outcome.failed],
        "not_done": list(outcome.not_done),
        "warnings": list(outcome.warnings),
        "backups": [
            {"target": one.target, "result": one.result, "error": one.error}
            for one in (report.results if report else ())
        ],
    }
