"""What was applied, and the way back to it: history, rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import group, run_change, undo
from k4t.errors import InvalidTree, K4tError
from k4t.options import Globals, NoApply, OptionalApp

if TYPE_CHECKING:
    from k4t.master.revisions import Entry

past_app = group("What was applied, and the way back.")


@past_app.command("history", epilog="Example: k4t history -o json")
def history(ctx: typer.Context) -> None:
    """The last revisions: serial, when, who, what changed, why."""
    from k4t.render import past as show

    known, _ = _known(ctx.obj)
    show.history(known, ctx.obj.console)


@past_app.command("rollback", epilog="Example: k4t rollback web --to 41")
def rollback(
    ctx: typer.Context,
    name: OptionalApp = None,
    to: Annotated[int | None, typer.Option("--to", help="The serial; else what was before.", metavar="SERIAL")] = None,
    no_apply: NoApply = False,
) -> None:
    """Put an app, or the whole tree, back to what it was, and apply that."""
    from k4t.master.decide import Request
    from k4t.master.history import WorkingCopy
    from k4t.master.revisions import way_back
    from k4t.render import past as show
    from k4t.tree.changes import Edit

    given: Globals = ctx.obj
    known, held = _known(given)
    store = WorkingCopy(given.db).store
    way = way_back(given.db, store, known, app=name or "", to=to, reference=_reference(given, name), held=held)
    show.way(way, given.console)
    edit = Edit(given.db)
    try:
        way.take(edit)
    except K4tError:
        undo(given, edit)
        raise
    named = {"rewind", *(f"remove-app:{gone}" for gone in way.vanishing)}
    why = given.message or f"rollback{f' of {name}' if name else ''} to serial {way.entry.serial}"
    request = Request(way.apps, given.allow, frozenset(named), message=why, digests=way.entry.digests)
    run_change(given, edit, request, no_apply=no_apply)


def _known(given: Globals) -> tuple[list[Entry], frozenset[str]]:
    """From the newest head that a host has, and this copy; and which apps are held. A tree that can't be read is no
    reason not to go back."""
    from k4t.master.history import WorkingCopy
    from k4t.master.observe import observe
    from k4t.master.planning.serials import newest
    from k4t.master.revisions import entries
    from k4t.wiring import opened

    head = None
    try:
        with opened(given.db, ahead=True) as run:
            head = newest(observe(run.fleet).heads)
        if head is None:
            given.console.note("no host has a head: this is what this working copy remembers", "yellow")
    except InvalidTree as error:
        given.console.note(f"the tree is invalid ({error.findings[0]}): this is what this working copy remembers")
    return entries(head, WorkingCopy(given.db).store), frozenset(head.held if head else ())


def _reference(given: Globals, name: str | None) -> str:
    """The image that an app has now, where the tree can be read."""
    from k4t.wiring import read

    try:
        app = read(given.db).apps.get(name or "")
    except InvalidTree:
        return ""
    return app.image.reference if app else ""
