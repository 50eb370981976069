"""What commands take: the global options, wherever they stand on the line, and the arguments that several share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from k4t.errors import Usage
from k4t.model.unsafe import KINDS
from k4t.render.console import Console

WITH_VALUE = frozenset({"--db", "-o", "--output", "--allow", "-m", "--message"})
FLAGS = frozenset({"--yes", "-y", "--no-color", "--wait"})


def hoisted(argv: Sequence[str]) -> list[str]:
    """The same words with the global options first. What stands behind `--` is left alone."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word in FLAGS or (equals and name in WITH_VALUE):
            front.append(word)
        elif word in WITH_VALUE:
            front += [word, *_next(words)]
        elif word[:2] in ("-o", "-m") and len(word) > 2:
            front += [word[:2], word[2:]]
        else:
            rest.append(word)
    return front + rest


def command_of(words: Sequence[str]) -> str:
    """The first of hoisted words that is no global option; "" for none, or where another option comes first."""
    rest = iter(words)
    for word in rest:
        if word in WITH_VALUE:
            next(rest, None)
        elif word not in FLAGS and word.partition("=")[0] not in WITH_VALUE:
            return "" if word.startswith("-") else word
    return ""


def narrowed(app: typer.Typer, command: str) -> typer.Typer:
    """The same with this one command or group; with all when it has no such. typer looks at every option of every
    command that it is given, twice, and that takes 30 ms."""
    merged = (group.typer_instance for group in app.registered_groups if not isinstance(group.name, str))
    commands = [*app.registered_commands, *(one for other in merged if other for one in other.registered_commands)]
    found = copy(app)
    found.registered_commands = [one for one in commands if _name_of(one) == command]
    found.registered_groups = [group for group in app.registered_groups if group.name == command]
    return found if found.registered_commands or found.registered_groups else app


def _name_of(info: CommandInfo) -> str:
    return info.name or (get_command_name(info.callback.__name__) if info.callback else "")


def _next(words: Iterator[str]) -> list[str]:
    found = next(words, None)
    return [] if found is None else [found]


def permits(words: Sequence[str]) -> frozenset[str]:
    """What `--allow` was given. Raises Usage for one that permits nothing: a kind that there is not would be found out
    only when the plan is refused."""
    for word in words:
        kind, colon, name = word.partition(":")
        if kind not in KINDS:
            raise Usage(f"--allow {word}: nothing is called {kind!r}", _nearest(kind))
        if colon and not name:
            raise Usage(f"--allow {word}: no name after the colon", f"--allow {kind} alone permits every one")
        if colon and not KINDS[kind].name:
            raise Usage(f"--allow {word}: {kind} takes no name", f"--allow {kind}")
    return frozenset(words)


def _nearest(kind: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(kind, KINDS, 1)
    return f"{f'did you mean {near[0]}? ' if near else ''}there are {', '.join(sorted(KINDS))}"


class Globals:
    """The global options of this run, as the callback below read them."""

    def __init__(
        self, db: Path, console: Console, *, yes: bool, allow: frozenset[str], message: str, wait: bool
    ) -> None:
        self.db = db
        self.console = console
        self.yes = yes
        self.allow = allow
        self.message = message
        self.wait = wait


def _names(kind: str) -> Any:
    """Shell completion with the names that the tree has now."""

    def complete(incomplete: str) -> list[str]:
        from k4t.tree.names import names

        return [name for name in names(Path(os.environ.get("K4T_DB", "db")), kind) if name.startswith(incomplete)]

    return complete


Apps = Annotated[list[str] | None, typer.Argument(autocompletion=_names("apps"), help="Only these apps.")]
AppName = Annotated[str, typer.Argument(autocompletion=_names("apps"))]
ReplicaName = Annotated[
    str, typer.Argument(metavar="REPLICA", help="Its number, or its node's name where the app runs once on each.")
]
NodeName = Annotated[str, typer.Argument(autocompletion=_names("nodes"))]
NodeNames = Annotated[list[str] | None, typer.Argument(autocompletion=_names("nodes"))]
GatewayName = Annotated[str, typer.Argument(autocompletion=_names("gateways"))]
DnsName = Annotated[str, typer.Argument(autocompletion=_names("dns"))]
GatewayNames = Annotated[list[str] | None, typer.Argument(autocompletion=_names("gateways"))]
DnsNames = Annotated[list[str] | None, typer.Argument(autocompletion=_names("dns"))]
OptionalApp = Annotated[
    str | None, typer.Argument(metavar="[APP]", autocompletion=_names("apps"), help="Only this app.")
]
NoApply = Annotated[bool, typer.Option("--no-apply", help="Only edit the tree.")]
NewName = Annotated[str, typer.Argument(help="Its name in the tree.")]
Address = Annotated[str, typer.Argument(help="Where traffic goes.")]
ClusterName = Annotated[str, typer.Argument(metavar="CLUSTER", help="Its name or id, as list shows it.")]
Driver = Annotated[str, typer.Option("--driver", help="Its vendor.")]
SshHost = Annotated[str, typer.Option("--ssh-host", help="Where SSH goes, if elsewhere.")]
SshPort = Annotated[int | None, typer.Option("--ssh-port", help="Its port, if not 22.")]
SshUser = Annotated[str, typer.Option("--ssh-user", help="The login.")]
Sudo = Annotated[bool, typer.Option("--sudo", help="The login needs sudo.")]
HostNames = Annotated[list[str] | None, typer.Argument(autocompletion=_names("hosts"))]
