"""What was queued is taken up: checked, remembered what of it was done already, and taken away when it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from k4t.errors import Unsafe
from k4t.master.power import queue
from k4t.master.power.intents import Intent
from k4t.master.power.memory import Entry, Memory, to_do
from k4t.master.power.places import places
from k4t.master.power.queue import Bad, Queue
from k4t.master.power.signed import Trust

if TYPE_CHECKING:
    from k4t.master.run import Run

Say = Callable[[str], None]


def trust(run: Run) -> Trust:
    """Whose word counts for this tree, and since when: one that took over doesn't know what was done before."""
    tree, lineage = run.tree, run.copy.lineage()
    since = lineage.at if lineage is not None and lineage.generation > 1 else ""
    return Trust(tree.cluster.id, tree.recovery.key if tree.recovery else "", since)


def queued(run: Run, now: datetime) -> Queue:
    """What is queued anywhere, without what this working copy has done already."""
    found = queue.look(run.fleet, places(run.fleet), run.directory, trust(run), now)
    known = Memory(run.directory).entries()
    return replace(found, found=tuple(one for one in found.found if to_do(known.get(one.intent.id))))


def take_up(run: Run, now: datetime, say: Say) -> tuple[Queue, list[Intent]]:
    """What lies there, and of it what is to be done, oldest first. What is no intent of this cluster's is named and
    put aside; what was done already is taken away. Raises Unsafe where this tree is not the newest: the one that is
    shall do it."""
    hosts = places(run.fleet)
    found = queue.look(run.fleet, hosts, run.directory, trust(run), now)
    if found.found or found.bad:
        _refuse_old_tree(run)
    known = Memory(run.directory).entries()
    todo = [one.intent for one in found.found if to_do(known.get(one.intent.id))]
    again = [one for one in found.found if one.intent not in todo]
    for one in again:
        say(_not_again(known[one.intent.id], one.places))
    failed = queue.remove(run.fleet, hosts, run.directory, [one.intent.id for one in again])
    failed += queue.set_aside(run.fleet, hosts, run.directory, found.bad)
    for bad in found.bad:
        _refused(run, bad, say)
    for failure in (*found.away, *failed):
        say(f"{failure.name}: its intents can't be got at: {failure.error.message}")
    return found, todo


def forget(run: Run, done: Iterable[Intent], say: Say) -> None:
    """Take them away from where they lay."""
    for failure in queue.remove(run.fleet, places(run.fleet), run.directory, [one.id for one in done]):
        say(f"{failure.name} may still have an intent that is done: {failure.error.message}")


def _not_again(entry: Entry, where: Iterable[str]) -> str:
    return (
        f"intent {entry.id} ({entry.action}) on {', '.join(where)} is not done again: it was {entry.result} at "
        f"{entry.done_at or entry.at}"
    )


def _refuse_old_tree(run: Run) -> None:
    from k4t.master import decide

    for change in decide.plan(run, decide.Request()).plan.unsafe:
        if change.kind == "rewind":
            raise Unsafe(f"what is queued is left to the newest working copy: {change.detail}")


def _refused(run: Run, bad: Bad, say: Say) -> None:
    say(f"{bad.name}.json on {bad.place} is refused and put aside: {bad.why}")
    run.copy.prepare()
    run.copy.audit({
        "at": run.at, "who": run.who, "message": bad.why, "result": f"intent {bad.name} on {bad.place} refused",
    })  # fmt: skip
