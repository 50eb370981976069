"""The monitor: check, page. What else looks or acts stands beside it, on the same findings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from k4t.commands.common import group
from k4t.commands.eyes import ClusterId, Hosts, KnownHosts, duration_s, eyes, look
from k4t.errors import K4tError, Usage
from k4t.options import Globals

monitor_app = group("The eyes of the cluster: master, nodes, gateways, DNS servers, apps.")
REFRESH_LEAST_S, REFRESH_MOST_S = 1.0, 3600.0


@monitor_app.command(epilog="Example: k4t monitor check -o json | jq '.findings[]'")
def check(
    ctx: typer.Context,
    hosts: Hosts = None,
    cluster: ClusterId = "",
    known_hosts: KnownHosts = None,
    now: Annotated[bool, typer.Option("--now", help="What is seen counts at once; nothing is remembered.")] = False,
    nagios: Annotated[bool, typer.Option("--nagios", help="One line and the exit status of a Nagios plug-in.")] = False,
    act: Annotated[bool, typer.Option("--act", help="One round of `monitor run`, for cron: policies act.")] = False,
) -> None:
    """Look at everything once: what is wrong comes first. Without --act it changes nothing and takes no lock. Exit
    status 0 when all is well, 1 when something is found; with --nagios 0, 1, 2 or 3."""
    given: Globals = ctx.obj
    if act:
        if hosts or cluster or known_hosts or now or nagios:
            raise Usage("--act acts by the tree, and by what earlier checks saw", "leave the other options out")
        _act(given)
    from k4t.render import monitor as show

    if nagios:
        _as_plugin(given, hosts or [], cluster, known_hosts, now=now)
    with eyes(given, hosts or [], cluster, known_hosts) as (fleet, log):
        looked, notes = look(fleet, log, now=now, has_tree=not hosts)
    if given.console.output == "table":
        given.console.result(show.lines(looked, given.console, notes))
    else:
        given.console.data(show.as_json(looked), rows="findings" if given.console.output == "jsonl" else "")
        for note in notes:
            given.console.note(f"! {note}", "yellow")
    raise typer.Exit(show.exit_status(looked))


def _act(given: Globals) -> None:
    """One round, to its end; leaves with the exit status of a check."""
    from k4t.commands.monitor_acting import one_round
    from k4t.render import monitor as show

    looked, outcomes, notes = one_round(given)
    if given.console.output == "table":
        given.console.result(show.lines(looked, given.console, notes))
        for one in outcomes:
            given.console.result(show.outcome(one, given.console))
    else:
        rows = [show.outcome_as_json(one) for one in outcomes]
        if given.console.output == "jsonl":
            given.console.data(show.as_json(looked), rows="findings")
            given.console.data({"actions": rows}, rows="actions")
        else:
            given.console.data(show.as_json(looked) | {"actions": rows})
        for note in notes:
            given.console.note(f"! {note}", "yellow")
    raise typer.Exit(show.exit_status(looked))


def _as_plugin(given: Globals, hosts: list[str], cluster: str, known_hosts: Path | None, *, now: bool) -> None:
    """Whatever happens is one line on standard output, and 3 is “unknown”."""
    from k4t.render import monitor as show

    try:
        with eyes(given, hosts, cluster, known_hosts) as (fleet, log):
            looked, _ = look(fleet, log, now=now, has_tree=not hosts)
        text, status = show.nagios(looked)
    except K4tError as error:
        words = str(error).replace("\n", " ")
        text, status = f"K4T UNKNOWN - {words}", 3
    given.console.result(text)
    raise typer.Exit(status)


@monitor_app.command(epilog="Example: k4t monitor page --out /var/www/html/k4t.html")
def page(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file, replaced in one step; else standard output.", metavar="FILE")
    ] = None,
    refresh: Annotated[
        str, typer.Option("--refresh", help="How often a browser looks for a newer one.", metavar="DURATION")
    ] = "30s",
    hosts: Hosts = None,
    cluster: ClusterId = "",
    known_hosts: KnownHosts = None,
) -> None:
    """Look at everything once, and write one HTML file that shows it in any browser, with no server and no request to
    anywhere. Exit status 0 when it is written, whatever it shows."""
    from k4t.monitor.page import file
    from k4t.tree.edit import write_file

    given: Globals = ctx.obj
    refresh_s = duration_s("--refresh", refresh, REFRESH_LEAST_S, "1h", "30s")
    with eyes(given, hosts or [], cluster, known_hosts) as (fleet, log):
        looked, notes = look(fleet, log, now=False, has_tree=not hosts)
    text = file.text(looked, time.time(), refresh_s=refresh_s)
    for note in notes:
        given.console.note(f"! {note}", "yellow")
    if out is None:
        given.console.result(text.rstrip("\n"))
        return
    write_file(out, text.encode())
    if given.console.output != "table":
        given.console.data({"version": 1, "file": str(out), "level": looked.judgement.level})
