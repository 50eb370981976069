"""The redo log, readable, and what to do with what it has open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree, group

if TYPE_CHECKING:
    from k4t.master.publication.redolog import LogPlace
    from k4t.options import Globals

txn_app = group("The redo log: what was published from here, and what is unfinished.")
Id = Annotated[str, typer.Argument(help="A transaction's id, or how it begins.", metavar="ID")]


@txn_app.command("list", epilog="Example: k4t txn list -o json")
def list_(ctx: typer.Context) -> None:
    """The transactions that this working copy's log knows, newest first."""
    from k4t.render import txn as show

    place = _place(ctx.obj)
    contents = place.read()
    show.listed(contents, ctx.obj.console, ours=place.is_ours(contents) or not contents.numbered)


@txn_app.command("show", epilog="Example: k4t txn show 7:4be1")
def show(ctx: typer.Context, id: Id) -> None:
    """One transaction: on which members, how far it came, what it adds and removes, who began it and why."""
    from k4t.master.transactions import chosen
    from k4t.render import txn as shown

    shown.one(chosen(_place(ctx.obj).read(), id), ctx.obj.console)


@txn_app.command("resume", epilog="Example: k4t txn resume")
def resume(
    ctx: typer.Context, id: Annotated[str | None, typer.Argument(help="Only this one.", metavar="[ID]")] = None
) -> None:
    """Finish what is open: roll forward what was decided, abort what was not. Every run that publishes does it."""
    from k4t.master import transactions
    from k4t.wiring import opened

    given: Globals = ctx.obj
    place = _place(given)
    only = transactions.chosen(place.read(), id).id if id else ""
    if not place.unfinished():
        given.console.note("nothing is unfinished")
        return
    with opened(given.db, wait=given.wait, ahead=True) as run:
        for sentence in transactions.resume(run, only):
            given.console.note(sentence)


@txn_app.command("abort", epilog="Example: k4t txn abort 7:4be1 --yes")
def abort(ctx: typer.Context, id: Id) -> None:
    """Take back a transaction that was never decided. One that was can't be: some members may have it already."""
    from k4t.master import transactions
    from k4t.wiring import opened

    given: Globals = ctx.obj
    one = transactions.chosen(_place(given).read(), id)
    with opened(given.db, wait=given.wait, ahead=True) as run:
        if one.state == "begun":
            agree(given, f"Abort transaction {one.id} on {', '.join(one.members)}?")
        for sentence in transactions.abort(run, one):
            given.console.note(sentence)


def _place(given: Globals) -> LogPlace:
    from k4t.wiring import read, redo_log

    return redo_log(given.db, read(given.db))
