"""monitor export zabbix: a template, the values of one check sent to a server, or those values for an agent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from k4t.commands.export import export_app
from k4t.commands.eyes import duration_s, eyes, look
from k4t.errors import Usage
from k4t.options import Globals


@export_app.command(epilog="Example: k4t monitor export zabbix --server zabbix.example.com:10051 --host k4t-prod")
def zabbix(
    ctx: typer.Context,
    template: Annotated[
        Path | None,
        typer.Option(
            "--template", help="Write the template that Zabbix imports; nothing is looked at.", metavar="FILE"
        ),
    ] = None,
    agent: Annotated[bool, typer.Option("--agent", help="--template only: an agent is asked, nobody sends.")] = False,
    server: Annotated[
        str, typer.Option("--server", help="Send one check to this server or proxy.", metavar="HOST:PORT")
    ] = "",
    host: Annotated[
        str, typer.Option("--host", help="--server only: the cluster's host in Zabbix.", metavar="NAME")
    ] = "",
    timeout: Annotated[
        str, typer.Option("--timeout", help="--server only: how long sending may take.", metavar="DURATION")
    ] = "10s",
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="Without a tree: look at this host; may be repeated.", metavar="USER@HOST:PORT"),
    ] = None,
    cluster: Annotated[str, typer.Option("--cluster", help="--at only: of this cluster.", metavar="ID")] = "",
    known_hosts: Annotated[
        Path | None, typer.Option("--known-hosts", help="--at only: trust the keys in this file alone.", metavar="FILE")
    ] = None,
) -> None:
    """For Zabbix 6.0 and newer. With --template, write the file that it imports; with --server and --host, look at
    everything once and send that; else print it, for an agent's UserParameter. Exit status 0 when that is done,
    whatever is found; 69 when Zabbix is away."""
    given: Globals = ctx.obj
    timeout_s = duration_s("--timeout", timeout, 1.0, "5m", "10s")
    if template is not None:
        if server or host or at or cluster or known_hosts:
            raise Usage("--template looks at nothing and sends nothing", "give it alone, or with --agent")
        return _write(given, template, agent=agent)
    if agent or bool(server) != bool(host):
        told = "--agent goes with --template" if agent else "--server and --host go together"
        raise Usage(told, "k4t monitor export zabbix --help")
    if (cluster or known_hosts) and not at:
        raise Usage("--cluster and --known-hosts are for hosts named by --at", "with a tree, it says both")
    _check(given, server, host, timeout_s, at or [], cluster, known_hosts)
    return None


def _write(given: Globals, file: Path, *, agent: bool) -> None:
    from k4t.monitor.zabbix.template import template
    from k4t.tree.edit import write_file

    write_file(file, template(agent=agent).encode())
    given.console.note(f"{file}: import it in Zabbix at Configuration → Templates → Import")


def _check(
    given: Globals, server: str, host: str, timeout_s: float, at: list[str], cluster: str, known_hosts: Path | None
) -> None:
    from k4t.monitor.zabbix import sender
    from k4t.monitor.zabbix.values import encode, values

    if server:
        sender.place(server)  # what is wrong with it is said before anything is looked at
    with eyes(given, at, cluster, known_hosts) as (fleet, log):
        looked, notes = look(fleet, log, now=False, has_tree=not at)
    for note in notes:
        given.console.note(f"! {note}", "yellow")
    document = values(looked)
    if not server:
        given.console.result(encode(document))
        return
    began_s = time.monotonic()
    sender.deliver(encode(document), server, host, timeout_s)
    given.console.note(f"{server} was told of {host} in {time.monotonic() - began_s:.1f} s: {looked.judgement.level}")
