"""Apps of the tree: list, remove, and the changes that operators make all day."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from k4t.commands.common import agree, applied, group, run_change, run_list
from k4t.errors import Usage
from k4t.options import AppName, Globals, NoApply

if TYPE_CHECKING:
    from k4t.model.app import App
    from k4t.tree.changes import Edit

app_app = group("Apps of the tree.")
change_app = group("Changes of one app.")


@app_app.command("list", epilog="Example: k4t app list")
def app_list(ctx: typer.Context) -> None:
    """Apps as the tree has them."""
    run_list(ctx.obj, "apps")


@app_app.command("remove", epilog="Example: k4t app remove web")
def app_remove(ctx: typer.Context, name: AppName, no_apply: NoApply = False) -> None:
    """Take an app out of the tree, then stop and unpublish it everywhere."""
    if no_apply:
        agree(ctx.obj, f"Remove app {name} from the tree?")
    _change(
        ctx.obj, name, lambda edit, app: edit.without(f"apps/{app.name}"), [f"remove-app:{name}"], no_apply=no_apply
    )


@change_app.command("scale", epilog="Example: k4t scale web 4")
def scale(
    ctx: typer.Context,
    name: AppName,
    replicas: Annotated[int, typer.Argument(min=0, help="How many.")],
    no_apply: NoApply = False,
) -> None:
    """Set an app's number of replicas. Of one with <scale> this number is asked for once, and the tree stays as it is:
    the monitor may ask for another one."""
    scale_to(ctx.obj, name, replicas, no_apply=no_apply)


def scale_to(given: Globals, name: str, replicas: int, *, no_apply: bool = False) -> None:
    """`k4t scale`, whoever asks for it; leaves with the exit status."""
    from k4t.tree import changes
    from k4t.wiring import read, thing

    app = thing(read(given.db).apps, "app", name)
    if app.scale is not None:
        _ask_for(given, app, replicas, no_apply=no_apply)
    named = [f"empty-app:{name}"] if replicas == 0 else []
    _change(given, name, lambda edit, app: changes.scale(edit, app, replicas), named, no_apply=no_apply)


def _ask_for(given: Globals, app: App, replicas: int, *, no_apply: bool) -> NoReturn:
    """Of an app with `<scale>`: its size is in no file. Leaves with the exit status."""
    from k4t.master.decide import Request
    from k4t.tree import changes

    changes.check_count(app, replicas)
    if no_apply:
        raise Usage(f"{app.name} has its size from what is asked for, not from the tree", "leave out --no-apply")
    allowed = frozenset(_withdrawals(app)) | ({f"empty-app:{app.name}"} if replicas == 0 else set())
    message = given.message or f"scale {app.name} {replicas}"
    request = Request((app.name,), given.allow, allowed, message=message, sizes={app.name: replicas})
    given.console.note(f"{app.name} has <scale>: it is asked for {replicas} replicas now; the monitor may change that")
    raise typer.Exit(applied(given, request).exit_status)


@change_app.command("image", epilog="Example: k4t image web :1.5")
def image(
    ctx: typer.Context,
    name: AppName,
    reference: Annotated[str, typer.Argument(metavar="REF", help="The image; :TAG keeps the repository.")],
    no_apply: NoApply = False,
) -> None:
    """Run another image."""
    from k4t.tree import changes

    _change(ctx.obj, name, lambda edit, app: changes.image(edit, app, reference), no_apply=no_apply)


@change_app.command("restart", epilog="Example: k4t restart web")
def restart(
    ctx: typer.Context,
    name: AppName,
    replica: Annotated[str, typer.Option("--replica", help="This one alone; nothing is edited.", metavar="N")] = "",
    no_apply: NoApply = False,
) -> None:
    """Replace all containers of an app by new ones, within its update limits; or one."""
    from k4t.tree import changes

    if replica:
        if no_apply:
            raise Usage("one replica is restarted at once: the tree has nothing to do with it", "leave out --no-apply")
        restart_one(ctx.obj, name, replica)
    _change(ctx.obj, name, changes.restart, no_apply=no_apply)


def restart_one(given: Globals, name: str, replica: str) -> NoReturn:
    """A new container in the place of one. That its endpoint goes for that is what the command is about. Leaves with
    the exit status."""
    from k4t.master.decide import Request
    from k4t.wiring import read, thing

    app = thing(read(given.db).apps, "app", name)
    message = given.message or f"restart {name} --replica {replica}"
    request = Request(
        (name,), given.allow, frozenset(_withdrawals(app)), message=message, restart=frozenset({(name, replica)})
    )  # fmt: skip
    raise typer.Exit(applied(given, request).exit_status)


@change_app.command("stop", epilog="Example: k4t stop web")
def stop(ctx: typer.Context, name: AppName, no_apply: NoApply = False) -> None:
    """Unpublish and stop an app everywhere; its containers stay."""
    from k4t.tree import changes

    _change(ctx.obj, name, changes.stop, [f"empty-app:{name}"], no_apply=no_apply)


@change_app.command("start", epilog="Example: k4t start web")
def start(ctx: typer.Context, name: AppName, no_apply: NoApply = False) -> None:
    """Start and publish an app that was stopped."""
    from k4t.tree import changes

    _change(ctx.obj, name, changes.start, no_apply=no_apply)


def _change(
    given: Globals,
    name: str,
    change: Callable[[Edit, App], None],
    named: list[str] | None = None,
    *,
    no_apply: bool,
) -> None:
    """Edit one app, then plan and apply just that. That its endpoints go is what the command is about."""
    from k4t.master.decide import Request
    from k4t.tree.changes import Edit
    from k4t.wiring import read, thing

    tree = read(given.db)
    app = thing(tree.apps, "app", name)
    edit = Edit(given.db)
    change(edit, app)
    allowed = frozenset(named or ()) | _withdrawals(app)
    before = {name: tree.app_sha256[name]}
    request = Request((name,), given.allow, allowed, message=given.message, before=before)
    run_change(given, edit, request, no_apply=no_apply)


def _withdrawals(app: App) -> set[str]:
    """In the groups that one app is published in."""
    groups = {route.group for route in app.routes} | {record.group for record in app.records}
    return {f"withdraw:{name}" for name in groups}
