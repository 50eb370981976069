"""What several commands do: one apply with everything around it, one check, one question, one list."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from k4t.master.deploy import Request
    from k4t.options import Globals


def group(help: str) -> typer.Typer:
    """A command that holds others."""
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False)


def run_apply(given: Globals, request: Request) -> None:
    """Plan, ask, apply, say how it went; leaves with the exit status."""
    from k4t.render.progress import progress
    from k4t.wiring import opened

    with progress(given.console) as live, opened(given.db, live, wait=given.wait, ahead=True) as run:
        from k4t.master import deploy
        from k4t.render import outcome as show
        from k4t.render.decision import confirmation

        started_s = time.monotonic()
        confirm = confirmation(run.tree, given.console, live, yes=given.yes)
        outcome = deploy.apply(run, request, confirm)
    if given.console.output == "table":
        given.console.result(
            show.lines(outcome, given.console, run.tree.cluster.name, time.monotonic() - started_s)
        )  # fmt: skip
    else:
        given.console.data(show.as_json(outcome))
    raise typer.Exit(outcome.exit_status)


def run_check(given: Globals, kind: str, names: list[str] | None) -> None:
    """Check things of one kind ("all": also this machine); leaves with the exit status."""
    from k4t.master.check import check
    from k4t.render import lists
    from k4t.wiring import chosen, opened

    with opened(given.db) as run:
        things = chosen(run.tree, kind, names or [])
        results = check(run.fleet, things, here=kind == "all")
    raise typer.Exit(lists.checks(results, given.console))


def agree(given: Globals, question: str) -> None:
    """Go on, or raise. `--yes` answers."""
    if not given.yes:
        given.console.ask(question, option="--yes")


def run_list(given: Globals, kind: str) -> None:
    """What the tree has of one kind."""
    from k4t.render import lists
    from k4t.wiring import read

    lists.things(read(given.db), kind, given.console)
