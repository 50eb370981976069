"""Copies of the tree: made when asked for and when due, and the schedule that asks."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import group
from k4t.errors import Usage

if TYPE_CHECKING:
    from k4t.master.backup.due import Next
    from k4t.options import Globals

User = Annotated[bool, typer.Option("--user", help="For this user alone, without root's rights.")]

schedule_app = group("What calls `k4t backup --due` every minute: a systemd timer, or a line for cron.")
backup_app = group("Copies of the tree on other hosts. Without a command: copy it to every <backup> of cluster.xml.")
backup_app.add_typer(schedule_app, name="schedule")


@backup_app.callback(invoke_without_command=True, epilog="Example: k4t backup --due")
def backup(
    ctx: typer.Context,
    due: Annotated[bool, typer.Option("--due", help="Only where a copy is due; quick when none is.")] = False,
) -> None:
    """Copy the tree to every <backup> of cluster.xml; one that has this very tree confirms it.

    Exit status: 3 when some targets have no copy of it now (they are named), 69 when none can be reached, 75 when
    another backup of this tree runs, 4 when another master took over.
    """
    given: Globals = ctx.obj
    if ctx.invoked_subcommand is not None:
        if due:
            raise Usage("--due goes with no other command", "k4t backup --due")
        return
    now_s = time.time()
    if due:
        from k4t.master.backup.memory import nothing_due

        if (coming := nothing_due(given.db, now_s)) is not None:
            _say_next(given, coming)
            return
    _copy(given, now_s, due_only=due)


def _copy(given: Globals, now_s: float, *, due_only: bool) -> None:
    from k4t.master.backup.after import backup
    from k4t.render import backup as show
    from k4t.render.progress import Lines
    from k4t.wiring import WAIT_S, opened

    with opened(given.db, Lines(given.console)) as run:
        if not run.tree.cluster.backups and not due_only:
            raise Usage("the tree names no place for copies", 'write <backup node="…" every="1h"/> into cluster.xml')
        report = backup(run, now_s=now_s, due_only=due_only, wait_s=WAIT_S if given.wait else 0.0)
    if given.console.output != "table":
        given.console.data(show.as_json(report))
    elif report.results:
        given.console.result(show.lines(report, given.console))
    raise typer.Exit(report.exit_status)


def _say_next(given: Globals, coming: Next) -> None:
    """To a person and to a program; a schedule, which asks every minute, hears nothing."""
    if given.console.output != "table":
        nothing = {"version": 1, "serial": 0, "result": "nothing", "backups": []}
        given.console.data(nothing | {"next": {"target": coming.name, "in_s": int(coming.in_s)}})
    elif sys.stdout.isatty():
        from k4t.render.console import age

        given.console.result(f"Nothing is due; {coming.name} is, in {age(coming.in_s)}.")


# --- the schedule --------------------------------------------------------------------------------------------


@schedule_app.command("install", epilog="Example: k4t backup schedule install")
def schedule_install(ctx: typer.Context, user: User = False) -> None:
    """Have this machine copy the tree where it is due: systemd's timer if it has systemd, else cron's line."""
    from k4t.master.backup import timer
    from k4t.render import backup as show
    from k4t.wiring import read

    given: Globals = ctx.obj
    tree, machine = read(given.db), timer.this_machine(user=user)
    if not tree.cluster.backups:
        given.console.note("cluster.xml has no <backup> yet: nothing is copied until it has", "yellow")
    wanted = timer.schedule(tree.cluster.id, given.db, machine)
    changed = timer.install(wanted, machine)
    given.console.result(show.scheduled(wanted.kind, dict(wanted.files), changed=changed, user=machine.user))


@schedule_app.command("remove", epilog="Example: k4t backup schedule remove")
def schedule_remove(ctx: typer.Context, user: User = False) -> None:
    """Take it away again."""
    from k4t.master.backup import timer
    from k4t.wiring import read

    given: Globals = ctx.obj
    removed = timer.remove(timer.name_of(read(given.db).cluster.id), timer.this_machine(user=user))
    given.console.result("removed" if removed else "there is no schedule here")


@schedule_app.command("show", epilog="Example: k4t backup schedule show")
def schedule_show(ctx: typer.Context, user: User = False) -> None:
    """What calls it, with which command, when it did last, and what is due next."""
    from k4t.master.backup import memory, timer
    from k4t.render import backup as show
    from k4t.wiring import read

    given: Globals = ctx.obj
    tree, machine = read(given.db), timer.this_machine(user=user)
    name = timer.name_of(tree.cluster.id)
    found = timer.installed(name, machine)
    times = timer.times(found[0], name, machine) if found else ("", "")
    seen = show.Shown(
        found, times, [(one.node or one.host, one.every_s) for one in tree.cluster.backups],
        memory.load(given.db, tree.cluster.id), time.time(),
    )  # fmt: skip
    if given.console.output == "table":
        given.console.result(show.schedule(seen, given.console))
    else:
        given.console.data(show.schedule_json(seen))
