"""How updates go on: beyond a canary, and for no other reason than age."""

from __future__ import annotations

import typer

from k4t.commands.common import group, run_apply
from k4t.options import AppName, Apps, Globals

update_app = group("Updates.")


@update_app.command("continue", epilog="Example: k4t continue web")
def go_on(ctx: typer.Context, apps: Apps = None) -> None:
    """Let an update that waits after its canary go on to the other replicas; without APP, every one that waits."""
    from k4t.master.decide import Request

    given: Globals = ctx.obj
    run_apply(given, Request(tuple(apps or ()), given.allow, message=given.message, proceed=True))


@update_app.command("recycle", epilog="Example: k4t recycle web")
def recycle(ctx: typer.Context, name: AppName) -> None:
    """Replace the oldest replica of an app, gracefully: the new one serves before the old one goes."""
    from k4t.master.decide import Request

    given: Globals = ctx.obj
    run_apply(given, Request((name,), given.allow, message=given.message, recycle=frozenset({name})))
