"""Looking at what runs: logs, exec, top, explain, events, audit; and prune, which clears away what nobody needs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from k4t.commands.common import agree, group
from k4t.errors import Usage
from k4t.options import AppName, Apps, Globals, NodeNames

if TYPE_CHECKING:
    from k4t.master.choose import Chosen
    from k4t.model.state import Container
    from k4t.node.docker import Engine

look_app = group("Looking at what runs.")
OnNode = Annotated[str, typer.Option("--node", help="Only on this node.")]
OfReplica = Annotated[str, typer.Option("--replica", help="Only this replica.")]
Since = Annotated[str, typer.Option("--since", help="10m, 2h …, or a time (RFC 3339).", metavar="AGE|TIME")]
DEFAULT_TAIL = 100
KEEP = 3
"""Images of each repository on a node."""


@look_app.command(epilog="Example: k4t logs web -f --since 10m")
def logs(
    ctx: typer.Context,
    apps: Apps = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C (exit status 0 then).")] = False,
    since: Since = "",
    tail: Annotated[int | None, typer.Option("--tail", help="The last N lines of each replica.", min=0)] = None,
    grep: Annotated[str, typer.Option("--grep", help="Only lines that match.", metavar="REGEX")] = "",
    node: OnNode = "",
    replica: OfReplica = "",
    times: Annotated[bool, typer.Option("--timestamps", "-t", help="With the time of each line.")] = False,
) -> None:
    """The logs of all replicas as one, in order of time; the last 100 lines of each unless --since, --tail or --grep
    says otherwise."""
    from k4t.master.choose import Wanted, choose
    from k4t.master.inspection import logs as source
    from k4t.render import logs as show
    from k4t.wiring import opened

    given: Globals = ctx.obj
    if follow and given.console.output == "json":
        raise Usage("-o json has an end, logs -f has none", "use -o jsonl")
    pattern = _pattern(grep)
    if tail is None and not since and not grep:
        tail = DEFAULT_TAIL
    query = source.Query(_moment(since), tail)
    with opened(given.db) as run:
        wanted = Wanted(tuple(apps or ()), node, replica)
        chosen = choose(run.fleet, wanted)
        _name_away(given, chosen)
        say, problems = _noting(given)
        if follow:
            lines = source.followed(run.fleet, wanted, chosen, query, say)
        else:
            lines = source.merged(run.fleet, chosen, query, say)
        try:
            show.show(lines, given.console, chosen.containers, grep=pattern, times=times)
        except KeyboardInterrupt:
            if not follow:
                raise
    raise typer.Exit(3 if problems else chosen.exit_status)


@look_app.command(
    "exec",
    epilog="Example: k4t exec web -it -- sh",
    context_settings={"allow_interspersed_args": True},
)
def exec_(
    ctx: typer.Context,
    name: AppName,
    command: Annotated[list[str], typer.Argument(help="What to run; put -- before it.", metavar="COMMAND…")],
    replica: OfReplica = "",
    node: OnNode = "",
    everywhere: Annotated[bool, typer.Option("--all", help="In every replica, its output marked.")] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="It reads our standard input.")] = False,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="It gets a terminal: ours.")] = False,
) -> None:
    """Run a command in a replica (the first one that runs), with its exit status; or in all of them."""
    from k4t.master.choose import Wanted, choose
    from k4t.wiring import opened

    given: Globals = ctx.obj
    if everywhere and (interactive or terminal):
        raise Usage("--all takes no input", "leave -i and -t out, or name one --replica")
    with opened(given.db) as run:
        chosen = choose(run.fleet, Wanted((name,), node, replica))
        running = [one for one in chosen.containers if one.running]
        _name_away(given, chosen)
        if not running:
            raise Usage(
                f"no replica of {name} runs" + (" where it could be asked" if chosen.away else ""), "see k4t ps"
            )
        if everywhere:
            from k4t.master.inspection.exec import everywhere as in_all
            from k4t.render import logs as show

            status = show.ended(in_all(run.fleet, running, command, show.printer(given.console)), given.console)
            raise typer.Exit(status or chosen.exit_status)
        one = [one for one in running if one.replica == running[0].replica][-1]  # its newest generation
        if len(running) > 1 and sys.stderr.isatty():
            given.console.note(f"in {one.name} on {one.node}")
        raise typer.Exit(_attach(run.fleet.engine(one.node), one, command, interactive, terminal))


def _attach(engine: Engine, container: Container, command: list[str], interactive: bool, terminal: bool) -> int:
    from k4t.node.exec import Command, Session
    from k4t.render import terminal as ours

    if terminal and not ours.is_terminal():
        raise Usage("-t wants a terminal on our side too", "leave it out")
    wanted = Command(tuple(command), interactive, ours.size() if terminal else None)
    session = Session(engine, container, wanted)
    try:
        return ours.attached(session, interactive=interactive, terminal=terminal)
    finally:
        session.close()


@look_app.command(epilog="Example: k4t top web")
def top(ctx: typer.Context, apps: Apps = None, node: OnNode = "") -> None:
    """CPU, memory and network of each container: live on a terminal (Ctrl-C ends it), else one reading."""
    from k4t.master.choose import Wanted, choose
    from k4t.master.inspection.top import watch
    from k4t.render import top as show
    from k4t.wiring import opened

    given: Globals = ctx.obj
    with opened(given.db) as run:
        chosen = choose(run.fleet, Wanted(tuple(apps or ()), node))
        _name_away(given, chosen)
        say, problems = _noting(given)
        readings = watch(run.fleet, chosen, say)
        if given.console.output == "table" and sys.stdout.isatty():
            try:
                show.live(readings)
            except KeyboardInterrupt:
                raise typer.Exit(chosen.exit_status) from None
        show.once(next(readings), given.console)
    raise typer.Exit(3 if problems else chosen.exit_status)


@look_app.command(epilog="Example: k4t explain gateway/gw1")
def explain(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="An app, node, gateway or DNS server.", metavar="NAME|KIND/NAME")],
) -> None:
    """Why an app is where it is and why it is not healthy; why a node, gateway or DNS server can't be reached, what it
    holds and how that differs; and what would help."""
    from k4t.master.inspection import explain_member, explain_node
    from k4t.master.inspection.explain import explain as explained
    from k4t.master.inspection.explain_host import meant
    from k4t.render import explain as show
    from k4t.render import explain_host as host
    from k4t.wiring import opened

    given: Globals = ctx.obj
    with opened(given.db, ahead=True) as run:
        kind, name = meant(run.tree, name)
        if kind == "app":
            of_app = explained(run, name)
            shown, data = show.lines(of_app, given.console), show.as_json(of_app)
        elif kind == "node":
            of_node = explain_node.explain(run, name)
            shown, data = host.node(of_node, given.console), host.as_json(of_node)
        else:
            of_member = explain_member.explain(run, kind, name)
            shown, data = host.member(of_member, given.console), host.as_json(of_member)
    if given.console.output == "table":
        given.console.result(shown)
    else:
        given.console.data(data)


@look_app.command(epilog="Example: k4t events web --since 1h")
def events(
    ctx: typer.Context,
    apps: Apps = None,
    last: Annotated[int, typer.Option("-n", help="The last N.", min=1)] = 50,
    since: Since = "",
) -> None:
    """What happened: applies of this and other working copies, what Docker tells of our containers, and what this
    machine's monitor saw and did."""
    from k4t.master.inspection.events import events as happened
    from k4t.monitor import eventlog
    from k4t.monitor.events import happenings
    from k4t.render import events as show
    from k4t.wiring import opened

    given: Globals = ctx.obj
    with opened(given.db) as run:
        seen = happenings(eventlog.read(eventlog.path(run.tree.cluster.id)))
        told = happened(run.fleet, given.db, tuple(apps or ()), since=_moment(since), more=seen)
        show.events(told, given.console, last=last)
    raise typer.Exit(3 if told.problems else 0)


class AuditVerb(StrEnum):
    """What to do with the audit log."""

    verify = "verify"


@look_app.command(epilog="Example: k4t audit verify")
def audit(
    ctx: typer.Context,
    verb: Annotated[AuditVerb | None, typer.Argument(help="Check that no line was changed.")] = None,
) -> None:
    """This working copy's audit log: who applied what, when, why, and what was allowed."""
    from k4t.master.inspection import audit as log
    from k4t.render import events as show
    from k4t.wiring import read

    given: Globals = ctx.obj
    read(given.db)
    if verb is None:
        show.audit(log.entries(given.db), given.console)
        return
    broken = log.breaks(given.db)
    show.verified(len(log.entries(given.db)), broken, given.console)
    raise typer.Exit(1 if broken else 0)


@look_app.command(epilog="Example: k4t prune --yes")
def prune(
    ctx: typer.Context,
    nodes: NodeNames = None,
    keep: Annotated[int, typer.Option("--keep", help="Images to keep of each repository on a node.", min=1)] = KEEP,
) -> None:
    """Remove old images of our apps and stopped containers of older generations; shows first what would go."""
    prune_nodes(ctx.obj, nodes or [], keep=keep)


def prune_nodes(given: Globals, nodes: Sequence[str], *, keep: int = KEEP) -> NoReturn:
    """`k4t prune`, whoever asks for it; leaves with the exit status."""
    from k4t.master import prune as work
    from k4t.render import prune as show
    from k4t.wiring import chosen, opened

    with opened(given.db, wait=given.wait) as run:
        chosen(run.tree, "nodes", nodes)
        found = work.surplus(run.fleet, nodes, keep=keep)
        if given.console.output == "table":
            given.console.result(show.lines(found, given.console))
        for problem in found.problems:
            given.console.note(f"! {problem}", "yellow")
        gone = work.Surplus(problems=found.problems)
        if not found.empty:
            agree(given, "Remove them?")
            with run.lock():
                gone = work.prune(run.fleet, found, nodes, keep=keep)
        if given.console.output != "table":
            given.console.data(show.as_json(gone))
        elif not gone.empty:
            given.console.result(f"Removed {show.counts(gone)}.")
    for problem in set(gone.problems) - set(found.problems):
        given.console.note(f"! {problem}", "yellow")
    raise typer.Exit(3 if gone.problems else 0)


def _noting(given: Globals) -> tuple[Callable[[str], None], list[str]]:
    """What tells people of a problem while others go on, and the list of what it told."""
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        given.console.note(f"! {text}", "yellow")

    return say, told


def _name_away(given: Globals, chosen: Chosen) -> None:
    for state in chosen.away:
        given.console.note(f"! {state.name}: {state.problem}", "yellow")


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise Usage(f"--grep {text!r} is no regular expression: {error}") from error


def _moment(text: str) -> str:
    """An age or a time as RFC 3339 UTC; "" stays."""
    from datetime import UTC, datetime

    from k4t.tree.values import DURATION

    if not text:
        return ""
    try:
        ago_s = DURATION.parse(text)
    except ValueError:
        pass
    else:
        return datetime.fromtimestamp(time.time() - float(str(ago_s)), UTC).isoformat().replace("+00:00", "Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat().replace("+00:00", "Z")
    except ValueError as error:
        raise Usage(f"--since {text!r} is neither an age (10m, 2h, 3d) nor a time (RFC 3339)") from error
