"""Secrets of the tree: encrypted values and who can open them. What they do stands in k4t/tree/secret_files.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k4t.commands.common import agree, group
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.tree.secret_files import SecretFiles


def _names(incomplete: str) -> list[str]:
    import os

    from k4t.tree.names import names

    return [name for name in names(Path(os.environ.get("K4T_DB", "db")), "secrets") if name.startswith(incomplete)]


SecretName = Annotated[str, typer.Argument(autocompletion=_names, help="Its name in the tree.")]

secret_app = group("Secrets of the tree: values encrypted with age, and who can open them.")
recipients_app = group("Who can open the tree's secrets.")
secret_app.add_typer(recipients_app, name="recipients")


@secret_app.command("list", epilog="Example: k4t secret list -o json")
def secret_list(ctx: typer.Context) -> None:
    """Secrets, where their values are kept, and what uses them. Never a value."""
    from k4t.render import secrets as show
    from k4t.wiring import read

    show.secrets(read(ctx.obj.db), ctx.obj.console)


@secret_app.command("set", epilog="Example: k4t secret set db-password < password.txt")
def secret_set(ctx: typer.Context, name: SecretName) -> None:
    """Encrypt a value, from standard input or asked for without echo. Never give it as an argument."""
    given: Globals = ctx.obj
    files = _ready(given, name)
    _written(given, files, name, _value(given, name))


@secret_app.command("edit", epilog="Example: EDITOR=vi k4t secret edit db-password")
def secret_edit(ctx: typer.Context, name: SecretName) -> None:
    """Open a value in an editor, on a file in memory, and encrypt what it leaves."""
    from k4t.tree import age
    from k4t.tree.secret_edit import edited

    given: Globals = ctx.obj
    files = _ready(given, name)
    there = (files.directory / f"{name}.age").exists()
    before = files.value(name, age.read_identities(age.identity_path())) if there else ""
    after = edited(name, before)
    if after.removesuffix("\n") == before.removesuffix("\n") and there:
        given.console.note(f"secret {name} is unchanged")
        return
    _written(given, files, name, after)


@secret_app.command("remove", epilog="Example: k4t secret remove db-password")
def secret_remove(ctx: typer.Context, name: SecretName) -> None:
    """Take a secret out of the tree. One that is used stays."""
    from k4t.tree.secret_uses import refuse_to_remove, remove
    from k4t.wiring import read

    given: Globals = ctx.obj
    tree = read(given.db)
    refuse_to_remove(tree, name)
    agree(given, f"Remove secret {name} from the tree?")
    given.console.note(f"removed {remove(given.db, tree, name)}")


@recipients_app.command("list", epilog="Example: k4t secret recipients list")
def recipients_list(ctx: typer.Context) -> None:
    """Who can open the secrets."""
    from k4t.render import secrets as show
    from k4t.tree.secret_files import SecretFiles

    show.recipients(SecretFiles(ctx.obj.db).recipients(), ctx.obj.console)


@recipients_app.command("add", epilog="Example: k4t secret recipients add ~/.ssh/id_ed25519.pub --name alice")
def recipients_add(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="age1…, an ssh public key in quotes, or a file that holds one.")],
    name: Annotated[str, typer.Option("--name", help="Whose it is.")] = "",
) -> None:
    """Encrypt all secrets to one more key."""
    from k4t.tree.age import public_key
    from k4t.tree.secret_files import SecretFiles

    files = SecretFiles(ctx.obj.db)
    count = files.add_recipient(public_key(key), name, _identities())
    _say_encrypted(ctx.obj, files, count)


@recipients_app.command("remove", epilog="Example: k4t secret recipients remove alice")
def recipients_remove(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="The key, or its name.")],
) -> None:
    """Encrypt all secrets anew, without a key. What it could open it has seen: change those values."""
    from k4t.tree.secret_files import SecretFiles

    given: Globals = ctx.obj
    agree(given, f"Shut {key} out of all secrets of the tree?")
    files = SecretFiles(given.db)
    count = files.remove_recipient(key, _identities())
    _say_encrypted(given, files, count)
    given.console.note("old copies of the tree can still be opened with that key: change the values that matter")


def _ready(given: Globals, name: str) -> SecretFiles:
    """The secrets of the tree, with somebody to encrypt to: the first one is whoever begins."""
    from k4t.tree import age
    from k4t.tree.read import read_recovery
    from k4t.tree.secret_files import SecretFiles
    from k4t.wiring import who

    files = SecretFiles(given.db)
    files.check_name(name)
    if files.recipients():
        return files
    path = age.identity_path()
    if not path.exists():
        made = age.make_identity(path, f"{who()}, made by k4t")
        given.console.note(f"made an identity at {path} ({made}): keep a copy of it in a safe place")
    files.add_recipient(age.recipient_of(path), who(), age.read_identities(path))
    recovery = read_recovery(given.db)
    for one in recovery.recipients if recovery else ():
        files.add_recipient(one.key, one.name or "recovery", age.read_identities(path))
    kit = " and the recovery kit" if recovery and recovery.recipients else ""
    given.console.note(f"secrets can be opened with {path}{kit}; k4t secret recipients add lets others in")
    return files


def _identities() -> list[Any]:
    """Those of this machine; none is fine where nothing has to be opened."""
    from k4t.tree import age

    try:
        return age.read_identities(age.identity_path())
    except age.NoIdentity:
        return []


def _value(given: Globals, name: str) -> str:
    from k4t.errors import Usage
    from k4t.tree.secret_files import MAX_BYTES

    if sys.stdin is None:
        raise Usage("no standard input to read the value from", f"k4t secret set {name} < FILE")
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read(MAX_BYTES + 2).decode("utf-8", "surrogateescape")
    import getpass

    value = getpass.getpass(f"Value of {name}: ")
    if getpass.getpass("Again: ") != value:
        raise Usage("the two differ: nothing was written", "try again")
    return value


def _written(given: Globals, files: SecretFiles, name: str, value: str) -> None:
    from k4t.tree.secret_files import one_line

    changed = files.set(name, one_line(value), _identities())
    given.console.note(f"wrote {files.directory / name}.age" if changed else f"secret {name} is unchanged")


def _say_encrypted(given: Globals, files: SecretFiles, count: int) -> None:
    from k4t.errors import K4tError
    from k4t.render.console import plural

    to = plural(len(files.recipients()), "recipient")
    given.console.note(f"encrypted {plural(count, 'file')} to {to}")
    try:
        files.digest_key(_identities())
    except K4tError:
        given.console.note("the identity here can't open them: k4t secret recipients add KEY, by one who can", "yellow")
