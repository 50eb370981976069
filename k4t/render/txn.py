"""The redo log for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from k4t.render.console import Console, table

if TYPE_CHECKING:
    from k4t.master.publication.redolog import Contents, Transaction

WORDS = {
    "begun": "begun, not decided: the next run aborts it",
    "decided": "decided, not ended: the next run rolls it forward",
    "done": "done",
    "aborted": "aborted: nothing of it was ever live",
    "superseded": "superseded: another run went on before all members had it",
}


def row(one: Transaction) -> dict[str, Any]:
    return {
        "id": one.id, "on": one.on, "state": one.state, "epoch": one.stamp.epoch.number, "seq": one.stamp.seq,
        "document": one.stamp.sha256, "parent": one.stamp.parent, "digest": one.digest, "members": list(one.members),
        "owed": list(one.owed), "who": one.who, "at": one.at, "ended": one.ended, "message": one.message,
        "add": list(one.add), "remove": list(one.remove),
    }  # fmt: skip


def listed(contents: Contents, console: Console, *, ours: bool) -> None:
    """Newest first."""
    newest = contents.transactions[::-1]
    if console.output != "table":
        data = {"version": 1, "ours": ours, "torn_bytes": contents.torn_bytes, "transactions": [row(t) for t in newest]}
        console.data(data, rows="transactions")
        return
    if not newest:
        console.note("the redo log is empty: nothing was published from this working copy")
        return
    head = ("ID", "ON", "STATE", "WHEN", "WHO", "CHANGES", "OWED")
    console.result(table(head, [_cells(one) for one in newest], console))
    for remark in _remarks(contents, ours=ours):
        console.note(f"! {remark}", "yellow")


def _cells(one: Transaction) -> tuple[str, ...]:
    changes = f"+{len(one.add)} -{len(one.remove)}"
    return (one.id, one.on, one.state, one.at, one.who or "-", changes, " ".join(one.owed) or "-")


def _remarks(contents: Contents, *, ours: bool) -> Iterator[str]:
    left = sum(not one.finished for one in contents.transactions)
    if not ours:
        yield "another working copy wrote this log: what it has open is not taken up here, what is live counts"
    elif left:
        yield f"{left} unfinished: k4t txn resume, or the next run that publishes, finishes them"
    if contents.torn_bytes:
        yield f"its last record is torn ({contents.torn_bytes} bytes): the next run cuts it"


def one(found: Transaction, console: Console) -> None:
    if console.output != "table":
        console.data({"version": 1, **row(found)})
        return
    console.result(_lines(found))


def _lines(found: Transaction) -> Iterator[str]:
    yield f"transaction  {found.id}"
    yield f"on           {found.on}: {', '.join(found.members)}"
    yield f"state        {WORDS.get(found.state, found.state)}"
    if found.owed:
        yield f"owed to      {', '.join(found.owed)}"
    yield f"begun        {found.at} by {found.who or '-'}{f': {found.message}' if found.message else ''}"
    if found.ended:
        yield f"{'decided' if found.state == 'decided' else 'ended':<12} {found.ended}"
    yield f"document     {found.stamp.epoch.number}.{found.stamp.seq}, sha256 {found.stamp.sha256}"
    yield f"after        {found.stamp.parent or 'nothing'}"
    yield f"digest       {found.digest}"
    yield from (f"  + {text}" for text in found.add)
    yield from (f"  - {text}" for text in found.remove)
