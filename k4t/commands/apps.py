"""Apps of the tree."""

from __future__ import annotations

from typing import Annotated

import typer

from k4t.commands.common import agree, group, run_apply, run_list
from k4t.options import AppName, Globals

app_app = group("Apps of the tree.")


@app_app.command("list", epilog="Example: k4t app list")
def app_list(ctx: typer.Context) -> None:
    """Apps as the tree has them."""
    run_list(ctx.obj, "apps")


@app_app.command("remove", epilog="Example: k4t app remove web")
def app_remove(
    ctx: typer.Context,
    name: AppName,
    no_apply: Annotated[bool, typer.Option("--no-apply", help="Only edit the tree.")] = False,
) -> None:
    """Take an app out of the tree, then stop and unpublish it everywhere."""
    from k4t.master.deploy import Request
    from k4t.wiring import remove_app

    given: Globals = ctx.obj
    agree(given, f"Remove app {name} from the tree{'' if no_apply else ' and from every host'}?")
    given.console.note(remove_app(given.db, name))
    if not no_apply:
        run_apply(given, Request((name,), given.allow, frozenset({f"remove-app:{name}"}), message=given.message))
