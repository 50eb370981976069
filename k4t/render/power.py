"""Power, intents and waking, for people and programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k4t.render.console import Console, table

if TYPE_CHECKING:
    from k4t.master.power.memory import Entry
    from k4t.master.power.queue import Queue


def stays_on(reasons: Iterable[str], console: Console) -> None:
    """Each reason on a line of its own."""
    console.note("this machine stays on:", "yellow")
    for reason in reasons:
        console.note(f"  - {reason}")


def queue(found: Queue, done: Mapping[str, Entry], console: Console) -> None:
    """What lies where, and what became of those before."""
    if console.output != "table":
        console.data({"version": 1, **queue_rows(found), "done": [entry_row(one) for one in done.values()]})
        return
    lines: list[str] = []
    if found.found:
        rows = [
            (one.intent.id, one.intent.words, one.intent.at, one.intent.who, ", ".join(one.places), one.intent.note)
            for one in found.found
        ]
        lines += table(("ID", "WHAT", "QUEUED", "BY", "ON", "NOTE"), rows, console)
    recent = list(done.values())[-10:]
    if recent:
        past = [(one.id, one.action, one.done_at or "-", one.who, result_of(one)) for one in recent]
        lines += [*([""] if lines else []), *table(("ID", "WAS", "DONE", "BY", "RESULT"), past, console)]
    if lines:
        console.result(lines)
    else:
        console.note("nothing is queued")
    remarks(found, console)


def remarks(found: Queue, console: Console) -> None:
    for one in found.bad:
        console.note(f"! {one.name} on {one.place} is refused: {one.why}", "yellow")
    for failure in found.away:
        console.note(f"! {failure.name} can't be asked: {failure.error.message}", "yellow")


def queue_rows(found: Queue) -> dict[str, Any]:
    return {
        "queued": [
            {
                "id": one.intent.id, "action": one.intent.action, "name": one.intent.name,
                "replicas": one.intent.replicas if one.intent.action == "scale" else None,
                "replica": one.intent.replica or None, "at": one.intent.at,
                "expires": one.intent.expires, "who": one.intent.who, "note": one.intent.note, "on": list(one.places),
            }
            for one in found.found
        ],
        "refused": [{"name": one.name, "on": one.place, "why": one.why} for one in found.bad],
        "away": [{"name": one.name, "error": one.error.message} for one in found.away],
    }  # fmt: skip


def entry_row(one: Entry) -> dict[str, Any]:
    return {
        "id": one.id, "action": one.action, "who": one.who, "at": one.at, "result": one.result,
        "exit_status": one.exit_status, "error": one.error, "done_at": one.done_at,
    }  # fmt: skip


def result_of(one: Entry) -> str:
    if one.result == "failed":
        return f"failed ({one.exit_status}): {one.error}" if one.error else f"failed ({one.exit_status})"
    return one.result


def woken(done: Sequence[Entry], found: Queue, *, status: int, console: Console) -> None:
    """What a wake did, before the machine goes off. `status`: of the apply."""
    if console.output != "table":
        rows = {key: row for key, row in queue_rows(found).items() if key != "queued"}
        console.data({"version": 1, "intents": [entry_row(one) for one in done], **rows, "apply": status})
        return
    for one in done:
        console.result(f"intent {one.id} ({one.action}, queued by {one.who}): {result_of(one)}")
