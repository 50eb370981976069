"""Copies of the tree: listed, verified, compared, looked into."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from k4t.commands.common import group
from k4t.commands.sources import LATEST, TREE, IdentityFile, KitFile, asked, named, paths, side
from k4t.errors import Usage
from k4t.options import Globals

copies_app = group("Copies of the tree: listed, verified, compared, looked into.")
OWN = ".k4t/"


@copies_app.command("list", epilog="Example: k4t backup list -o json")
def list_(ctx: typer.Context) -> None:
    """All copies on all targets on one time axis, newest first; what each target confirmed; who can't be asked."""
    from k4t.master.backup import reading
    from k4t.render import copies as show

    given: Globals = ctx.obj
    with asked(given) as found:
        found.need_targets()
        faults = reading.held_back(found.shelves, reading.written(given.db, found.trust))
        status = show.listing(found.shelves, faults, given.console, time.time())
    raise typer.Exit(status)


@copies_app.command("verify", epilog="Example: k4t backup verify --read-data --kit kit.txt")
def verify(
    ctx: typer.Context,
    read_data: Annotated[bool, typer.Option("--read-data", help="Bring every copy here, and open it.")] = False,
    kit: KitFile = None,
    identity: IdentityFile = None,
) -> None:
    """Every copy on every target: its signature, its bytes there, the chain; and whether a target was rolled back."""
    from k4t.master.backup import reading
    from k4t.render import copies as show

    given: Globals = ctx.obj
    with asked(given, kit, identity) as found:
        found.need_targets()
        written = reading.written(given.db, found.trust)
        done = reading.verify(
            found.shelves, found.trust, written, read_data=read_data, identities=found.opening
        )  # fmt: skip
        status = show.verified(done, found.shelves, given.console, read_data=read_data)
    raise typer.Exit(status)


@copies_app.command("diff", epilog="Example: k4t backup diff 41 tree")
def diff(
    ctx: typer.Context,
    old: Annotated[
        str, typer.Argument(metavar="A", help="SERIAL, a time, a target, latest, tree, a FILE or DIR.")
    ] = LATEST,
    new: Annotated[str, typer.Argument(metavar="B", help="The same.")] = TREE,
    kit: KitFile = None,
    identity: IdentityFile = None,
) -> None:
    """What differs between two copies, or a copy and the tree: XML by element and attribute, other text by line."""
    from k4t.master.backup.compare import compare
    from k4t.render import copies as show

    given: Globals = ctx.obj
    with asked(given, kit, identity, also=paths(old, new)) as found:
        first, before = side(given, found, old)
        second, after = side(given, found, new)
    show.differences(compare(before, after), (first, second), given.console)


@copies_app.command("show", epilog="Example: k4t backup show 41 apps/web")
def show(
    ctx: typer.Context,
    copy: Annotated[str, typer.Argument(help="SERIAL, a time, a target, latest, a FILE or DIR.")] = LATEST,
    path: Annotated[str, typer.Argument(help="A file or directory in it.")] = "",
    kit: KitFile = None,
    identity: IdentityFile = None,
) -> None:
    """List what is in a copy, or print a file of it; of an app's directory, the files and its app.xml."""
    from k4t.render import copies as render

    given: Globals = ctx.obj
    with asked(given, kit, identity, also=paths(copy)) as found:
        if not path and not named(copy, [shelf.name for shelf in found.shelves]):
            copy, path = LATEST, copy
        name, files = side(given, found, copy)
    wanted = path.strip("/")
    if wanted in files:
        _print(given, wanted, files[wanted].data)
        return
    inside = {one: len(files[one].data) for one in sorted(files) if one.startswith(f"{wanted}/" if wanted else "")}
    if not inside:
        raise Usage(f"{name} has no {wanted}", "k4t backup show lists what it has")
    plain = inside if wanted else {one: size for one, size in inside.items() if not one.startswith(OWN)}
    render.files(plain, given.console, memory=len(inside) - len(plain), of=name)
    app = f"{wanted}/app.xml"
    if wanted.count("/") == 1 and app in files and given.console.output == "table":
        given.console.result("")
        _print(given, app, files[app].data)


def _print(given: Globals, path: str, data: bytes) -> None:
    """As it is; to a terminal only what is text, and nothing that could drive it."""
    from k4t.master.backup.compare import readable, shown

    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    text = readable(data)
    if text is None:
        raise Usage(f"{path} is no text ({len(data)} bytes)", "send it into a file: k4t backup show … > FILE")
    given.console.result([shown(line) for line in text.splitlines()])
