"""Nodes that lag behind the others: when work may begin without them, and how they are taken in.

docs/life-of-an-apply.md, “A node that lags behind”, has the whole of it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, wait
from typing import TYPE_CHECKING

from k4t.errors import K4tError, Unsafe
from k4t.master.decide import Decision, Request, plan
from k4t.master.execute import Executed, interrupts
from k4t.master.observe import TICK_S, open_questions
from k4t.master.planning.plan import Create, Plan, Target
from k4t.master.rollback import RolledBack
from k4t.model.events import Note

if TYPE_CHECKING:
    from k4t.master.fleet import Fleet
    from k4t.master.locking import Locks
    from k4t.master.run import Run


PASSES = (False, False, False, True)
"""After the first one: whether it waits for all that are late by then, or for the next one that answers."""


def look(run: Run, request: Request, first: Decision | None = None, locks: Locks | None = None) -> Decision:
    """Observe and decide; without nodes that lag behind, where the others have work that doesn't depend on them.
    `first`: the look before, and `locks`, of a run that has them."""
    resolved = first.images if first else None  # a tag stands for one digest in a revision
    found = plan(run, request, resolved)
    if not found.late or not request.may_hurry:
        return found
    if _may_begin(found.plan):
        if locks is None:
            run.emit(Note(f"no answer yet from {_named(found)}: the others go ahead"))
        return found
    if locks is not None:
        _settle(run.fleet, threading.Event(), found.late)
        locks.take_late()
    return plan(run, dataclasses.replace(request, hurried=False), resolved)


def take_in(
    run: Run, request: Request, decision: Decision, executed: Executed, locks: Locks, *, last: bool
) -> Decision | None:
    """Wait until one of the late nodes has answered, or (`last`) all, or their own time-outs are over, and decide what
    is left. None: interrupted.

    Apps of which something failed are left to the next run. What would be unsafe now is not done, and named.
    """
    names = _named(decision)
    stopping = threading.Event()
    with interrupts(stopping):
        open_ones = decision.late.intersection(open_questions(run.fleet))
        if open_ones and (last or open_ones == decision.late):
            run.emit(Note(f"waiting for {', '.join(sorted(open_ones))}"))
        _settle(run.fleet, stopping, decision.late, all_of_them=last)
    if stopping.is_set():
        return None
    locks.take_late()
    failed = {failure.step.app for failure in executed.failed} | {step.app for step, _ in executed.skipped}
    try:
        found = plan(run, dataclasses.replace(request, hurried=False), decision.images, without=failed)
        if found.late and found.plan.steps and not _may_begin(found.plan):
            _settle(run.fleet, stopping, found.late)
            locks.take_late()
            found = plan(run, dataclasses.replace(request, hurried=False), decision.images, without=failed)
        if found.plan.unsafe:
            raise Unsafe("; ".join(f"{change.detail} (--allow {change.allow})" for change in found.plan.unsafe))
        run.vault.fetch_for(found.plan.steps, found.observed)
    except K4tError as error:
        nothing = dataclasses.replace(decision.plan, steps=())
        return _left(decision, nothing, f"what waited for {names} is not done: {error}", error.exit_status)
    if failed:
        said = f"{', '.join(sorted(failed))}: what waited for {names} is left to the next run, since something failed"
        return _left(found, found.plan, said, 3)
    return found


def both(first: RolledBack | None, second: RolledBack | None) -> RolledBack | None:
    """One account of what two passes have put back."""
    if first is None or second is None:
        return first or second
    return RolledBack({**first.failed, **second.failed}, second.plan, together(first.executed, second.executed))


def together(first: Executed, second: Executed) -> Executed:
    """One account of two passes."""
    return Executed(
        first.done + second.done, first.failed + second.failed, first.skipped + second.skipped,
        interrupted=first.interrupted or second.interrupted,
    )  # fmt: skip


def _may_begin(planned: Plan) -> bool:
    """There is work, all of it safe, and none that takes away without bringing the like: how much may go is judged
    by all that is there."""
    works = [(step, step.work) for step in planned.steps]
    gone = {(step.app, step.replica) for step, work in works if isinstance(work, Target) and step.action != "start"}
    come = {(step.app, step.replica) for step, work in works if isinstance(work, Create) or step.action == "start"}
    for publication in planned.publications():
        gone |= {(slot.app, slot.replica) for slot in publication.remove if slot.generation}
        come |= {(slot.app, slot.replica) for slot in publication.add}
    return bool(works) and not planned.unsafe and gone <= come


def _settle(fleet: Fleet, stopping: threading.Event, late: Collection[str], *, all_of_them: bool = True) -> None:
    """Until the question to one of these nodes, or to each, is open no more; every question has its own bounds."""
    while not stopping.is_set():
        waiting = [fleet.asking[name] for name in open_questions(fleet) if name in late]
        if not waiting or (len(waiting) < len(late) and not all_of_them):
            return
        wait(waiting, TICK_S, FIRST_COMPLETED)


def _left(decision: Decision, planned: Plan, sentence: str, status: int) -> Decision:
    planned = dataclasses.replace(planned, not_done=tuple(dict.fromkeys((*planned.not_done, sentence))))
    return dataclasses.replace(decision, plan=planned, statuses=(*decision.statuses, status))


def _named(decision: Decision) -> str:
    return ", ".join(sorted(decision.late))
