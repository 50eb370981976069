"""`k4t recover`: a bare machine becomes the master. What it does stands in master/backup/recover.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import group
from k4t.commands.kit import KitFile
from k4t.errors import Usage
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.backup.recover import Asked, Recovered
    from k4t.model.events import Event

recover_app = group("A bare machine becomes the master.")
Identity = Annotated[
    Path | None, typer.Option("--identity", help="Opens the copies, where the kit doesn't.", metavar="FILE")
]


@recover_app.command("recover", epilog="Example: k4t recover --kit kit.txt --db db")
def recover(
    ctx: typer.Context,
    kit: KitFile,
    source: Annotated[
        list[str] | None, typer.Option("--from", help="Ask this host too.", metavar="USER@HOST:PORT")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--from-directory", help="Copies on this machine.", metavar="DIR")
    ] = None,
    jump: Annotated[str, typer.Option("--jump", help="The way to the hosts.", metavar="USER@HOST:PORT")] = "",
    key: Annotated[str, typer.Option("--key", help="The SSH key to log in with.", metavar="FILE")] = "",
    identity: Identity = None,
    trust: Annotated[
        list[str] | None, typer.Option("--trust", help="A host key that is not in the kit.", metavar="SHA256:…")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Also when something newer is live.")] = False,
) -> None:
    """Bring the cluster's tree back onto this machine from the newest good copy, and make it the master."""
    from k4t.master.backup import recover as story
    from k4t.master.backup.kit import read as read_kit
    from k4t.render import recover as show

    given: Globals = ctx.obj
    if key and not Path(key).expanduser().is_file():
        raise Usage(f"--key {key}: no such file", "name the private key's file")
    if identity is not None and not identity.is_file():
        raise Usage(f"--identity {identity}: no such file", "name the one that opens the copies")
    found = read_kit(kit)
    for sentence in found.damaged:
        given.console.note(sentence, "yellow")
    asked = story.Asked(
        found, given.db, tuple(source or ()), folder, jump=jump, key=key, identity=identity, rollback=rollback
    )
    done = _recovered(given, asked, _prints(trust or []))
    if given.console.output == "table":
        given.console.result(show.lines(done, asked, kit))
    else:
        given.console.data(show.as_json(done, asked))


def _prints(trust: list[str]) -> list[str]:
    for text in trust:
        if not text.startswith("SHA256:") or len(text) != 50:
            raise Usage(
                f"--trust {text}: that is no fingerprint", "as in SHA256:… of 43 characters: ssh-keygen -lf FILE"
            )
    return trust


def _recovered(given: Globals, asked: Asked, more: list[str]) -> Recovered:
    from k4t.master.backup import recover as story
    from k4t.model.events import Note
    from k4t.remote.known_hosts import Fingerprints, lookup_name
    from k4t.remote.ssh import Connector
    from k4t.wiring import known_hosts_of, now, opened, who

    kit = asked.kit
    hosts = (*kit.hosts, *kit.jumps)
    prints = [(lookup_name(one.host, one.port), one.key_type, one.key) for one in hosts if one.key]
    prints += [("", "", one) for one in more]

    def emit(event: Event) -> None:
        if isinstance(event, Note):
            given.console.note(event.text, *(["yellow"] if event.warning else []))

    connector = Connector((), run_id="recover", trusted=Fingerprints(prints))
    try:
        return story.recover(
            asked, connector.connect,
            lambda db, silent: opened(
                db, emit, wait=given.wait, ahead=True,
                changed=lambda tree: story.from_here(tree, asked.key, asked.jump, silent),
                trusted=Fingerprints(prints, known_hosts_of(db)),
            ),
            who=who(), at=now(), say=given.console.note,
        )  # fmt: skip
    finally:
        connector.close()
