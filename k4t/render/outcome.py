"""How an apply ended: one calm summary, or the JSON of design.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k4t.errors import Interrupted
from k4t.master.deploy import Outcome
from k4t.render.console import Console, plural

STYLE = {"done": "green", "nothing": "green", "partial": "yellow", "failed": "red"}


def lines(outcome: Outcome, console: Console, name: str, duration_s: float) -> Iterator[str]:
    for step, host, error in outcome.failed:
        place = f"{host}: " if host and not error.startswith(host) else ""
        yield console.style(f"✗ {step}: {place}{error}", "red")
    for sentence in outcome.not_done:
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


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "version": 1,
        "serial": outcome.serial,
        "result": outcome.result,
        "done": outcome.done,
        "failed": [{"step": step, "host": host, "error": error} for step, host, error in outcome.failed],
        "not_done": list(outcome.not_done),
        "warnings": list(outcome.warnings),
    }
