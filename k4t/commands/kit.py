"""The recovery kit: printed, written, compared, and used to let a machine sign (k4t/master/backup/kit.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree, group
from k4t.errors import K4tError, Usage
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.backup.kit import Kit
    from k4t.model.spec import Tree

kit_app = group("The recovery kit: one page that brings the cluster back when its master is lost.")
KitFile = Annotated[Path, typer.Option("--kit", help="The recovery kit.", metavar="FILE")]


@kit_app.callback(invoke_without_command=True, epilog="Example: k4t kit | lpr")
def kit(
    ctx: typer.Context,
    write: Annotated[Path | None, typer.Option("--write", help="Into a file (0600).", metavar="FILE")] = None,
    check: Annotated[Path | None, typer.Option("--check", help="Does one still fit the tree?", metavar="FILE")] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="It is printed: take what opens copies off this machine.")
    ] = False,
) -> None:
    """Print the recovery kit. Lock the page away: who has it can read every copy of the tree."""
    if ctx.invoked_subcommand is not None:
        return
    if sum((write is not None, check is not None, forget)) > 1:
        raise Usage("--write, --check and --forget are three things", "one after the other")
    given: Globals = ctx.obj
    if forget:
        _forget(given)
    elif check is not None:
        _check(given, check)
    else:
        _give(given, write)


@kit_app.command("certify", epilog="Example: k4t kit certify --kit kit.txt --uses intents")
def certify(
    ctx: typer.Context,
    kit: KitFile,
    identity: Annotated[
        Path | None, typer.Option("--identity", help="Opens it, where the kit doesn't.", metavar="FILE")
    ] = None,
    uses: Annotated[str, typer.Option("--uses", help="For what: snapshots, intents, or both.")] = "snapshots,intents",
) -> None:
    """Let this machine sign copies and intents: its key is certified by the cluster's, which the kit opens."""
    from k4t.master.backup import keys
    from k4t.master.backup.kit import read as read_kit
    from k4t.tree.signing import fingerprint, public_of
    from k4t.wiring import now, read

    given: Globals = ctx.obj
    wanted = tuple(use for use in keys.USES if use in uses.split(","))
    if sorted(uses.split(",")) != sorted(wanted):
        raise Usage(f"--uses {uses}: no such use", f"there are {', '.join(keys.USES)}")
    tree, found = read(given.db), read_kit(kit)
    if tree.recovery is None or (found.id, found.key) != (tree.cluster.id, tree.recovery.key):
        mine = f"{tree.cluster.name} ({tree.cluster.id})"
        raise K4tError(f"{kit} is the kit of {found.name} ({found.id}), and not of the tree {given.db}, {mine}")
    opening = keys.recovery_identity(tree.cluster.id, found, identity)
    made = keys.certify(tree.cluster.id, tree.recovery, opening, now(), wanted)
    key = fingerprint(public_of(made.private))
    given.console.note(f"this machine's key ({key}) may sign {' and '.join(wanted)} of {tree.cluster.name}")


def kit_after_init(given: Globals, where: Path, name: str) -> str:
    """The keys of a new tree, and its kit beside it. What to say of that; what can't be done is no reason to stop."""
    from k4t.master.backup import keys, kits
    from k4t.wiring import now, read

    parent = where.absolute().parent
    path = parent / f"{name}-recovery-kit.txt"
    try:
        tree = read(where)
        path = path if not path.exists() else parent / f"{name}-{tree.cluster.id}-recovery-kit.txt"
        keys.ensure(where, tree, now())
        made = _made(given, where)
        kits.write(path, kits.text_of(made, where))
        kits.remember(made, path)
    except K4tError as error:
        return f"No recovery kit was written: {error}"
    return (
        f"The recovery kit is {path}; keep it out of git. When the tree has its hosts: k4t kit --write {path.name}\n"
        f"writes it anew, with them. Then print it, lock the page away, delete the file, and: k4t kit --forget"
    )


def say_outdated(given: Globals, tree: Tree) -> None:
    """For `k4t doctor`: the page in the safe knows other hosts than the tree."""
    from k4t.master.backup import kits
    from k4t.wiring import way

    if tree.recovery is None:
        return
    kit, _ = kits.kit_of(tree, tree.recovery, way(given.db), "")
    if why := kits.outdated(kit):
        given.console.note(f"recovery kit: {why}; print a new one: k4t kit", "yellow")


def _made(given: Globals, db: Path) -> Kit:
    """Of the tree as it is now; a tree that has no recovery.xml gets one."""
    from k4t.master.backup import keys, kits
    from k4t.wiring import now, read, way, who

    tree = read(db)
    found, notes = tree.recovery, tuple[str, ...]()
    if found is None:
        made, notes = keys.ensure(db, tree, now())
        found = made.recovery
    kit, more = kits.kit_of(tree, found, way(db), f"{now()} by {who()}")
    for note in (*notes[:1], *more):
        given.console.note(note, "yellow")
    return kit


def _give(given: Globals, path: Path | None) -> None:
    from k4t.master.backup import kits

    made = _made(given, given.db)
    text = kits.text_of(made, given.db)
    if path is None:
        given.console.result(text.rstrip("\n"))
    else:
        kits.write(path, text)
        given.console.note(f"wrote {path}: {'print it, and lock the page away' if made.identity else 'print it'}")
    kits.remember(made, path)


def _check(given: Globals, path: Path) -> None:
    from k4t.master.backup import kits
    from k4t.master.backup.kit import read as read_kit

    found = read_kit(path)
    differs = kits.differences(found, _made(given, given.db))
    for sentence in differs:
        given.console.result(f"{path}: {sentence}")
    if differs:
        given.console.note("print a new one: k4t kit")
        raise typer.Exit(1)
    given.console.result(f"{path} fits the tree" + ("" if found.identity else "; it has no identity on it"))


def _forget(given: Globals) -> None:
    from k4t.master.backup import kits
    from k4t.wiring import read

    tree = read(given.db)
    agree(given, "Is the kit printed, and the page locked away? Without it nobody can open copies, or recover.")
    gone, still = kits.forget(tree.cluster.id)
    given.console.note(f"removed {gone}: this machine still makes copies, and can't open them any more")
    if still:
        given.console.note(f"{still} still has it: delete that file too", "yellow")
