"""What several commands do: one apply with everything around it, one check, one question, one list."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from k4t.errors import K4tError, Unreachable

if TYPE_CHECKING:
    from k4t.master.backup.report import Report
    from k4t.master.decide import Request
    from k4t.master.deploy import Outcome
    from k4t.master.planning.plan import Plan, Step
    from k4t.master.run import Run
    from k4t.options import Globals
    from k4t.tree.changes import Edit


def group(help: str) -> typer.Typer:
    """A command that holds others."""
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False)


def run_apply(given: Globals, request: Request) -> None:
    """Plan, ask, apply, say how it went; leaves with the exit status."""
    raise typer.Exit(applied(given, request).exit_status)


def run_change(given: Globals, edit: Edit, request: Request, *, no_apply: bool = False) -> None:
    """An edit of the tree and the apply of it. What is refused, or not agreed to, leaves the tree as it was."""
    from k4t.wiring import read

    for path in edit.paths:
        given.console.note(f"edited {path}")
    if no_apply:
        with undone_unless_begun(given, edit, lambda: False):
            read(given.db)
        edit.close()
        return
    confirmed: list[Plan] = []
    with undone_unless_begun(given, edit, lambda: bool(confirmed)):
        outcome = applied(given, request, confirmed.append)
    if outcome.exit_status == Unreachable.exit_status and not outcome.done:
        undo(given, edit)
    edit.close()
    raise typer.Exit(outcome.exit_status)


def applied(
    given: Globals,
    request: Request,
    confirmed: Callable[[Plan], None] | None = None,
    *,
    check: Callable[[Plan], None] | None = None,
    goes_on: bool = False,
) -> Outcome:
    """One apply with everything around it. `check` may refuse a plan before it is shown; `confirmed` is told of one
    that was agreed to. `goes_on`: another apply follows when it ends well, so programs are told of that one alone.
    Raises K4tError when nothing was begun."""
    from k4t.render.progress import progress
    from k4t.wiring import opened

    with progress(given.console) as live, opened(given.db, live, wait=given.wait, ahead=True) as run:
        from k4t.master import deploy
        from k4t.render import outcome as show
        from k4t.render.decision import confirmation

        started_s = time.monotonic()
        ask = confirmation(run.tree, given.console, live, yes=given.yes)
        steps: dict[str, Step] = {}

        def confirm(plan: Plan) -> None:
            if check is not None:
                check(plan)
            ask(plan)
            steps.update({step.id: step for step in plan.steps})
            if confirmed is not None:
                confirmed(plan)

        hurried = given.yes and check is None  # else the plan that is shown, or compared, is of all that answers
        before = run.copy.base_serial()
        outcome = deploy.apply(run, dataclasses.replace(request, hurried=hurried), confirm)
        took_s = time.monotonic() - started_s
        copies = None if goes_on and not outcome.exit_status else _copies(run, before)
        _no_longer_off(run)
    if given.console.output == "table":
        told = show.lines(outcome, given.console, run.tree.cluster.name, took_s, steps)
        given.console.result([*told, *show.copies(copies, given.console)])
    elif outcome.exit_status or not goes_on:
        given.console.data(show.as_json(outcome, copies))
    return outcome


def _copies(run: Run, serial_before: int | None) -> Report | None:
    """Of the tree, to every <backup>, after an apply that changed something."""
    if not run.tree.cluster.backups or run.copy.base_serial() == serial_before:
        return None
    from k4t.master.backup.after import after_apply

    return after_apply(run, now_s=time.time())


def _no_longer_off(run: Run) -> None:
    """The master was woken by hand: what says that it is off on purpose is not true any more."""
    power = run.tree.cluster.power
    if power is None or not power.host:
        return
    from k4t.master.power import announce, here

    if here.is_here(power.host):
        announce.take_away(run.fleet)


@contextmanager
def undone_unless_begun(given: Globals, edit: Edit, begun: Callable[[], bool]) -> Iterator[None]:
    """A K4tError says that nothing was begun. Interrupted before the answer, nothing was either."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, K4tError) or not begun():
            undo(given, edit)
        raise


def undo(given: Globals, edit: Edit) -> None:
    """Take an edit back, and say so."""
    changed = bool(edit.paths)
    theirs = edit.undo()
    for path in theirs:
        given.console.note(f"{path} was edited by somebody else meanwhile, and stays as it is now", "yellow")
    if changed and not theirs:
        given.console.note("the tree is as it was")


def run_check(given: Globals, kind: str, names: list[str] | None) -> None:
    """Check things of one kind ("all": also this machine); leaves with the exit status."""
    from k4t.master.inspection.check import check
    from k4t.render import lists
    from k4t.wiring import chosen, opened

    with opened(given.db) as run:
        things = chosen(run.tree, kind, names or [])
        results = check(run.fleet, things, here=kind == "all")
    status = lists.checks(results, given.console)
    if kind == "all" and run.tree.recovery is not None:
        from k4t.commands.kit import say_outdated

        say_outdated(given, run.tree)
    raise typer.Exit(status)


def agree(given: Globals, question: str) -> None:
    """Go on, or raise. `--yes` answers."""
    if not given.yes:
        given.console.ask(question, option="--yes")


def run_list(given: Globals, kind: str) -> None:
    """What the tree has of one kind."""
    from k4t.render import lists
    from k4t.wiring import read

    lists.things(read(given.db), kind, given.console)
