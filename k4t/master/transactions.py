"""What an operator does with the redo log: look at a transaction, finish it, take it back while it is undecided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from k4t.errors import K4tError, ParticipantAway, Usage
from k4t.master.observe import observe

if TYPE_CHECKING:
    from k4t.master.publication.redolog import Contents, Transaction
    from k4t.master.run import Run
    from k4t.model.state import ParticipantState


def chosen(contents: Contents, id: str) -> Transaction:
    """The one whose id begins so. Raises Usage when there is none, or several."""
    found = [one for one in contents.transactions if one.id == id or one.id.startswith(id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Usage(f"{len(found)} transactions begin with {id}", "give more of it; k4t txn list has them")
    raise Usage(f"the redo log has no transaction {id}", "k4t txn list has them")


def resume(run: Run, id: str = "") -> list[str]:
    """Finish what this copy's log has open, or one of it: decided is rolled forward, undecided aborted. A sentence
    about each. Raises LogRefused, Locked, ParticipantAway when something stays open."""
    run.copy.prepare()
    observe(run.fleet)  # the lock is taken on hosts that are connected
    with run.lock():
        told = run.publisher.recover(degraded=True, only=id)
        if left := [one.id for one in run.publisher.unfinished() if id in ("", one.id)]:
            raise ParticipantAway("; ".join(told) or f"{', '.join(left)} stays open", "try again once they answer")
    return told


def abort(run: Run, one: Transaction) -> list[str]:
    """Take back what was never decided. Raises K4tError for what was."""
    if one.state == "decided":
        raise K4tError(
            f"transaction {one.id} was decided at {one.ended}: it may be live on {', '.join(one.members)} already, and "
            f"can't be taken back",
            f"k4t txn resume {one.id} finishes it; then publish what you want instead",
        )
    if one.finished:
        raise K4tError(f"transaction {one.id} is {one.state} already: there is nothing to abort")
    return resume(run, one.id)


def debts(contents: Contents, members: Iterable[ParticipantState]) -> list[tuple[Transaction, tuple[str, ...]]]:
    """Of each group's last publication: who was to get it later, and isn't known to have what the group has now."""
    last = {one.on: one for one in contents.transactions if one.state == "done"}
    listed = tuple(members)
    found = [(one, tuple(name for name in one.owed if not _paid(name, one.on, listed))) for one in last.values()]
    return [(one, owed) for one, owed in found if owed]


def _paid(name: str, on: str, members: Sequence[ParticipantState]) -> bool:
    """Whether it answers, and holds the newest of its group. One that left the tree is owed nothing."""
    group = [one for one in members if f"{one.kind}/{one.group}" == on]
    mine = next((one for one in group if one.name == name), None)
    newest = max((one.document.version for one in group if one.document), default=None)
    return mine is None or (mine.reachable and mine.document is not None and mine.document.version == newest)
