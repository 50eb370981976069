"""Every command, a few lines each. What a command does stands in `master`; what it prints in `render`."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from k4t import __version__
from k4t.commands import (
    apps,
    backups,
    copies,
    export_prometheus,  # noqa: F401 - its command stands in the group of monitor_run
    export_zabbix,  # noqa: F401 - its command stands in the group of monitor_run
    hosts,
    intents,
    jobs,
    kit,
    look,
    monitor_alerts,  # noqa: F401 - its commands stand in the group of monitor_run
    monitor_keys,  # noqa: F401 - its commands stand in the group of monitor_run
    monitor_run,
    nodes,
    past,
    plans,
    power,
    recover,
    restore,
    secrets,
    txn,
    updates,
    wake,
)
from k4t.commands.common import agree, applied, group, run_check
from k4t.errors import Interrupted, InvalidTree, K4tError, Usage
from k4t.options import AppName, Apps, Globals, HostNames, command_of, hoisted, narrowed, permits
from k4t.render.console import Console, Output

EPILOG = "Global options may stand anywhere on the line. Exit status: docs/commands.md."


app = group("k4t: a deploy box for containers. A tree of small XML files becomes running, published containers.")
app.add_typer(nodes.node_app, name="node")
app.add_typer(hosts.gateway_app, name="gateway")
app.add_typer(hosts.dns_app, name="dns")
app.add_typer(apps.app_app, name="app")
app.add_typer(apps.change_app)
app.add_typer(past.past_app)
app.add_typer(secrets.secret_app, name="secret")
app.add_typer(jobs.job_app, name="job")
app.add_typer(look.look_app)
app.add_typer(monitor_run.run_app, name="monitor")
app.add_typer(updates.update_app)
app.add_typer(txn.txn_app, name="txn")
app.add_typer(power.power_app, name="power")
app.add_typer(intents.intent_app, name="intent")
app.add_typer(wake.wake_app)
app.add_typer(kit.kit_app, name="kit")
app.add_typer(restore.restore_app)
app.add_typer(recover.recover_app)
backups.backup_app.add_typer(copies.copies_app)
app.add_typer(backups.backup_app, name="backup")


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"k4t {__version__}\n")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def options(
    ctx: typer.Context,
    db: Annotated[Path, typer.Option(envvar="K4T_DB", help="The tree.", metavar="DIR", readable=False)] = Path("db"),
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or jsonl.")] = "table",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer the question with yes.")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="Permit what is unsafe.", metavar="KIND[:NAME]")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="For the audit log.")] = "",
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour (as NO_COLOR=1).")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run's lock.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    if output not in ("table", "json", "jsonl"):
        raise Usage(f"no output format {output!r}", "-o table, json or jsonl")
    kind: Output = output  # type: ignore[assignment]
    ctx.obj = Globals(
        db, Console(kind, color=not no_color), yes=yes, allow=permits(allow or ()), message=message, wait=wait
    )  # fmt: skip


# --- the tree ----------------------------------------------------------------------------------------------


@app.command(epilog="Example: k4t init db --name prod")
def init(
    ctx: typer.Context,
    directory: Annotated[Path | None, typer.Argument(help="Where (default: --db).", metavar="[DIR]")] = None,
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "prod",
    no_kit: Annotated[bool, typer.Option("--no-kit", help="No keys and no recovery kit yet.")] = False,
) -> None:
    """Write a new, empty tree, and its recovery kit beside it."""
    from k4t.render import tree as show
    from k4t.tree.create import create

    where = directory or ctx.obj.db
    create(where, name)
    ctx.obj.console.result(show.created(where, name))
    if not no_kit:
        ctx.obj.console.note(kit.kit_after_init(ctx.obj, where, name))


@app.command(epilog="Example: k4t validate -o json | jq '.errors[]'")
def validate(ctx: typer.Context) -> None:
    """Read the whole tree and name every error in it, with file and line."""
    from k4t.render import tree as show
    from k4t.tree.read import read_tree

    try:
        tree = read_tree(ctx.obj.db)
        if tree.gateways or tree.dns:
            from k4t.wiring import check_drivers

            check_drivers(tree, ctx.obj.db)
    except InvalidTree as error:
        show.findings(error.findings, ctx.obj.console)
        raise typer.Exit(error.exit_status) from None
    show.valid(tree, ctx.obj.console)


@app.command(epilog="Example: k4t schema > k4t.xsd")
def schema(ctx: typer.Context) -> None:
    """Print the XSD of the tree's files, for editors."""
    from k4t.tree.xsd import xsd

    ctx.obj.console.result(xsd().rstrip("\n"))


@app.command(epilog="Example: k4t show web")
def show(ctx: typer.Context, name: AppName) -> None:
    """Print an app with variables and defaults resolved."""
    from k4t.tree.show import resolved
    from k4t.wiring import read, thing

    tree = read(ctx.obj.db)
    ctx.obj.console.result(resolved(thing(tree.apps, "app", name), tree).rstrip("\n"))


# --- the main job ------------------------------------------------------------------------------------------


@app.command(epilog="Example: k4t plan web --detailed-exitcode")
def plan(
    ctx: typer.Context,
    apps: Apps = None,
    detailed_exitcode: Annotated[bool, typer.Option("--detailed-exitcode", help="2 when changes are pending.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Ask registries what tags stand for now.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="As apply --retry: also what is held.")] = False,
    rebalance: Annotated[bool, typer.Option("--rebalance", help="As apply --rebalance: with the moves.")] = False,
    save: Annotated[Path | None, typer.Option("--save", help="Keep it, for `apply FILE`.", metavar="FILE")] = None,
    commands: Annotated[bool, typer.Option("--commands", help="As ssh and docker lines to run by hand.")] = False,
) -> None:
    """Show what an apply would do, and why. Changes nothing."""
    from k4t.wiring import opened

    with opened(ctx.obj.db, ahead=True) as run:
        from k4t.master import decide
        from k4t.render import decision as show

        request = decide.Request(tuple(apps or ()), ctx.obj.allow, pull=pull, retry=retry, rebalance=rebalance)
        decision = decide.plan(run, request)
        plans.say_unfinished(ctx.obj, run)
        if commands:
            plans.print_commands(ctx.obj, run, decision)
        else:
            show.decision(decision, run.tree, ctx.obj.console)
        if save is not None:
            plans.save(ctx.obj, save, run, decision, request)
    raise typer.Exit(show.exit_status(decision, detailed=detailed_exitcode))


@app.command(epilog="Example: k4t apply --yes -m 'web 1.4'")
def apply(
    ctx: typer.Context,
    apps: Apps = None,
    degraded: Annotated[bool, typer.Option("--degraded", help="Publish without members that are away.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Ask registries what tags stand for now.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what did not get healthy and is held.")] = False,
    rebalance: Annotated[bool, typer.Option("--rebalance", help="Move replicas to where there is room.")] = False,
    power_off: power.Power = None,
) -> None:
    """Make it so: run what the tree says where it says, and publish what is healthy. Or carry out a saved plan."""
    if power_off:
        power.refuse_elsewhere(ctx.obj)
    if file := plans.file_of(apps or ()):
        raise typer.Exit(power.off_after(ctx.obj, plans.apply_file(ctx.obj, file).exit_status, power_off))
    from k4t.master.decide import Request

    request = Request(
        tuple(apps or ()), ctx.obj.allow, degraded=degraded, pull=pull, message=ctx.obj.message, retry=retry,
        rebalance=rebalance,
    )  # fmt: skip
    raise typer.Exit(power.off_after(ctx.obj, applied(ctx.obj, request).exit_status, power_off))


@app.command(epilog="Example: k4t status -o json")
def status(
    ctx: typer.Context,
    seconds: Annotated[str, typer.Argument(help="With --watch: how often (5, 30s, 1m).", metavar="[SECONDS]")] = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every 3 s, or so often; Ctrl-C ends.")
    ] = False,
) -> None:
    """The whole cluster on one screen; with --watch live on a terminal, or with -o jsonl a line each time."""
    from k4t.render import status as show
    from k4t.wiring import look

    if seconds and not watch:
        raise Usage(f"status {seconds}: a time is for --watch", f"k4t status --watch {seconds}")
    if watch:
        from k4t.render.watch import interval_s
        from k4t.render.watch import watch as live

        live(lambda: look(ctx.obj.db), ctx.obj.console, interval_s(seconds or "3"))
        return
    seen = look(ctx.obj.db)
    if ctx.obj.console.output == "table":
        ctx.obj.console.result(show.lines(seen, ctx.obj.console, ctx.obj.console.columns()))
    else:
        ctx.obj.console.data(seen)


@app.command(epilog="Example: k4t ps web")
def ps(ctx: typer.Context, apps: Apps = None) -> None:
    """The cluster's containers, node by node."""
    from k4t.master.inspection.listing import containers
    from k4t.render import lists
    from k4t.wiring import opened

    with opened(ctx.obj.db) as run:
        rows = containers(run.fleet, frozenset(apps or ()))
    lists.containers(rows, ctx.obj.console, now_s=time.time())


@app.command(epilog="Example: k4t doctor")
def doctor(ctx: typer.Context) -> None:
    """Check everything k4t needs, here and on every host, and say what to do about it."""
    run_check(ctx.obj, "all", None)


@app.command(epilog="Example: k4t trust node1 node2")
def trust(ctx: typer.Context, names: HostNames = None) -> None:
    """Enrol host keys: show each host's fingerprints, ask, and write them to known_hosts of the tree."""
    from k4t.wiring import enrol

    given: Globals = ctx.obj
    enrol(given.db, names or [], given.console.note, lambda question: agree(given, question))


# --- the way in --------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Run one command and leave with its exit status. Every error is one clear line on standard error."""
    words = sys.argv[1:] if argv is None else argv
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, but where they are ignored (nohup)
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    status = _run(words or ["--help"])
    if status == Interrupted.exit_status or any(thread.daemon for thread in threading.enumerate()):
        _leave_at_once(status)  # the interpreter may crash beneath a thread that is in a key exchange
    gc.freeze()  # or the interpreter's last collections walk through all that was imported: 40 ms
    sys.exit(status)


def _run(words: list[str]) -> int:
    console = Console(color="--no-color" not in words)
    try:
        line = hoisted(words)
        return int(narrowed(app, command_of(line))(line, prog_name="k4t", standalone_mode=False) or 0)
    except InvalidTree as error:
        for finding in error.findings:
            console.note(str(finding))
        console.error(f"the tree is invalid: {len(error.findings)} to mend")
        return error.exit_status
    except K4tError as error:
        console.error(str(error))
        return error.exit_status
    except typer.TyperException as error:
        said = error.format_message().rstrip(".")
        console.error(said if said.endswith("?") else f"{said}; see k4t --help")
        return Usage.exit_status
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        _leave_at_once(Interrupted.exit_status)
    except BrokenPipeError:  # `k4t ps | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "K4T_DEBUG" in os.environ:
            raise
        console.error(f"internal error: {type(error).__name__}: {error}; K4T_DEBUG=1 shows where; please report it")
        return 1


def _leave_at_once(status: int) -> NoReturn:
    """Without waiting for what is still under way in other threads."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the terminal may be gone
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
