"""Every command, a few lines each. What a command does stands in `master`; what it prints in `render`."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k4t import __version__, plainwords
from k4t.errors import Interrupted, InvalidTree, K4tError, Usage
from k4t.options import (
    Address,
    AppName,
    Apps,
    DnsNames,
    GatewayNames,
    Globals,
    HostNames,
    NewName,
    NodeNames,
    SshHost,
    SshPort,
    SshUser,
    Sudo,
    hoisted,
)
from k4t.render.console import Console, Output

if TYPE_CHECKING:
    from k4t.model.spec import Ssh

EPILOG = "Global options may stand anywhere on the line. Exit status: docs/commands.md."


def _app(help: str) -> typer.Typer:
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False)


app = _app("k4t: a deploy box for containers. A tree of small XML files becomes running, published containers.")
node_app = _app("Docker hosts of the tree.")
gateway_app = _app("Gateways of the tree.")
dns_app = _app("DNS servers of the tree.")
app_app = _app("Apps of the tree.")
app.add_typer(node_app, name="node")
app.add_typer(gateway_app, name="gateway")
app.add_typer(dns_app, name="dns")
app.add_typer(app_app, name="app")


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
        db, Console(kind, color=not no_color), yes=yes, allow=allow or [], message=message, wait=wait
    )  # fmt: skip


# --- the tree ----------------------------------------------------------------------------------------------


@app.command(epilog="Example: k4t init db --name prod")
def init(
    ctx: typer.Context,
    directory: Annotated[Path | None, typer.Argument(help="Where (default: --db).", metavar="[DIR]")] = None,
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "prod",
) -> None:
    """Write a new, empty tree."""
    from k4t.render import tree as show
    from k4t.tree.create import create

    where = directory or ctx.obj.db
    create(where, name)
    ctx.obj.console.result(show.created(where, name))


@app.command(epilog="Example: k4t validate -o json | jq '.errors[]'")
def validate(ctx: typer.Context) -> None:
    """Read the whole tree and name every error in it, with file and line."""
    from k4t.render import tree as show
    from k4t.tree.read import read_tree

    try:
        tree = read_tree(ctx.obj.db)
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
) -> None:
    """Show what an apply would do, and why. Changes nothing."""
    from k4t.wiring import opened

    with opened(ctx.obj.db, ahead=True) as run:
        from k4t.master import deploy
        from k4t.render import decision as show

        decision = deploy.plan(run, deploy.Request(tuple(apps or ()), ctx.obj.allow, pull=pull))
        show.decision(decision, run.tree, ctx.obj.console)
    raise typer.Exit(show.exit_status(decision, detailed=detailed_exitcode))


@app.command(epilog="Example: k4t apply --yes -m 'web 1.4'")
def apply(
    ctx: typer.Context,
    apps: Apps = None,
    degraded: Annotated[bool, typer.Option("--degraded", help="Publish without members that are away.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Ask registries what tags stand for now.")] = False,
) -> None:
    """Make it so: run what the tree says where it says, and publish what is healthy."""
    from k4t.master.deploy import Request

    _apply(ctx.obj, Request(tuple(apps or ()), ctx.obj.allow, degraded=degraded, pull=pull, message=ctx.obj.message))


def _apply(given: Globals, request: Any) -> None:
    from k4t.render.progress import progress
    from k4t.wiring import opened

    with progress(given.console) as live, opened(given.db, live, wait=given.wait, ahead=True) as run:
        from k4t.master import deploy
        from k4t.render import outcome as show
        from k4t.render.decision import confirmation

        started_s = time.monotonic()
        confirm = confirmation(run.tree, given.console, live, yes=given.yes)
        outcome = deploy.apply(run, request, confirm)
    if given.console.output == "table":
        given.console.result(
            show.lines(outcome, given.console, run.tree.cluster.name, time.monotonic() - started_s)
        )  # fmt: skip
    else:
        given.console.data(show.as_json(outcome))
    raise typer.Exit(outcome.exit_status)


@app.command(epilog="Example: k4t status -o json")
def status(ctx: typer.Context) -> None:
    """The whole cluster on one screen."""
    from k4t.render import status as show
    from k4t.wiring import look

    seen = look(ctx.obj.db)
    if ctx.obj.console.output == "table":
        ctx.obj.console.result(show.lines(seen, ctx.obj.console))
    else:
        ctx.obj.console.data(seen)


@app.command(epilog="Example: k4t ps web")
def ps(ctx: typer.Context, apps: Apps = None) -> None:
    """The cluster's containers, node by node."""
    from k4t.wiring import opened

    with opened(ctx.obj.db, ahead=True) as run:
        from k4t.master.listing import containers
        from k4t.render import lists

        rows = containers(run.fleet, frozenset(apps or ()))
    lists.containers(rows, ctx.obj.console, now_s=time.time())


@app.command(epilog="Example: k4t doctor")
def doctor(ctx: typer.Context) -> None:
    """Check everything k4t needs, here and on every host, and say what to do about it."""
    _check(ctx.obj, "all", None)


def _check(given: Globals, kind: str, names: list[str] | None) -> None:
    from k4t.master.check import check
    from k4t.render import lists
    from k4t.wiring import chosen, opened

    with opened(given.db) as run:
        things = chosen(run.tree, kind, names or [])
        results = check(run.fleet, things, here=kind == "all")
    raise typer.Exit(lists.checks(results, given.console))


@app.command(epilog="Example: k4t trust node1 node2")
def trust(ctx: typer.Context, names: HostNames = None) -> None:
    """Enrol host keys: show each host's fingerprints, ask, and write them to known_hosts of the tree."""
    from k4t.wiring import enrol

    given: Globals = ctx.obj
    enrol(given.db, names or [], given.console.note, lambda question: _agree(given, question))


def _agree(given: Globals, question: str) -> None:
    if not given.yes:
        given.console.ask(question, option="--yes")


# --- hosts -------------------------------------------------------------------------------------------------


def _list(given: Globals, kind: str) -> None:
    from k4t.render import lists
    from k4t.wiring import read

    lists.things(read(given.db), kind, given.console)


@node_app.command("list", epilog="Example: k4t node list -o json")
def node_list(ctx: typer.Context) -> None:
    """Nodes as the tree has them."""
    _list(ctx.obj, "nodes")


@node_app.command("add", epilog="Example: k4t node add node3 10.0.0.13 --ssh-user deploy --sudo")
def node_add(
    ctx: typer.Context,
    name: NewName,
    address: Address,
    ssh_host: SshHost = "",
    ssh_port: SshPort = None,
    ssh_user: SshUser = "",
    sudo: Sudo = False,
) -> None:
    """Write nodes/NAME.xml, enrol the host's key, and check the host."""
    from k4t.tree.create import add_node

    ssh = _ssh(ssh_host, ssh_port, ssh_user, sudo=sudo)
    _added(ctx.obj, "nodes", name, add_node(ctx.obj.db, name, address, ssh=ssh))


def _ssh(host: str, port: int | None, user: str, *, sudo: bool) -> Ssh:
    from k4t.model.spec import Ssh

    return Ssh(host=host, port=port, user=user, sudo=sudo or None)


def _added(given: Globals, kind: str, name: str, path: Path) -> None:
    """Say which file was written, enrol the host's key, and check what can be checked."""
    from k4t.wiring import enrol

    given.console.note(f"wrote {path}")
    enrol(given.db, [name], given.console.note, lambda question: _agree(given, question))
    if kind == "nodes":
        _check(given, kind, [name])
    command = "dns" if kind == "dns" else "gateway"
    given.console.note(f"next: k4t {command} install {name}")


@node_app.command("check", epilog="Example: k4t node check node1")
def node_check(ctx: typer.Context, names: NodeNames = None) -> None:
    """Connect to nodes and check everything k4t needs there."""
    _check(ctx.obj, "nodes", names)


@gateway_app.command("list", epilog="Example: k4t gateway list")
def gateway_list(ctx: typer.Context) -> None:
    """Gateways as the tree has them."""
    _list(ctx.obj, "gateways")


@gateway_app.command("add", epilog="Example: k4t gateway add edge 10.0.0.21")
def gateway_add(
    ctx: typer.Context,
    name: NewName,
    address: Address,
    driver: Annotated[str, typer.Option(help="Its vendor.")] = "envoy",
    ssh_host: SshHost = "",
    ssh_port: SshPort = None,
    ssh_user: SshUser = "",
    sudo: Sudo = False,
) -> None:
    """Write gateways/NAME.xml and enrol the host's key."""
    from k4t.tree.create import add_gateway

    ssh = _ssh(ssh_host, ssh_port, ssh_user, sudo=sudo)
    _added(ctx.obj, "gateways", name, add_gateway(ctx.obj.db, name, address, driver=driver, ssh=ssh))


@gateway_app.command("check", epilog="Example: k4t gateway check gw1")
def gateway_check(ctx: typer.Context, names: GatewayNames = None) -> None:
    """Connect to gateways, check what k4t needs there, and compare what they serve with what they were told."""
    _check(ctx.obj, "gateways", names)


@gateway_app.command("install", epilog="Example: k4t gateway install gw1")
def gateway_install(ctx: typer.Context, names: GatewayNames = None) -> None:
    """Make hosts ready to be gateways: the registrar, the vendor's configuration, its service."""
    _install(ctx.obj, "gateways", names)


@dns_app.command("list", epilog="Example: k4t dns list")
def dns_list(ctx: typer.Context) -> None:
    """DNS servers as the tree has them."""
    _list(ctx.obj, "dns")


@dns_app.command("add", epilog="Example: k4t dns add names 10.0.0.21 --zone example.internal")
def dns_add(
    ctx: typer.Context,
    name: NewName,
    address: Address,
    zone: Annotated[str, typer.Option(help="The zone that records go to.")],
    driver: Annotated[str, typer.Option(help="Its vendor.")] = "dnsmasq",
    ssh_host: SshHost = "",
    ssh_port: SshPort = None,
    ssh_user: SshUser = "",
    sudo: Sudo = False,
) -> None:
    """Write dns/NAME.xml and enrol the host's key."""
    from k4t.tree.create import add_dns

    ssh = _ssh(ssh_host, ssh_port, ssh_user, sudo=sudo)
    _added(ctx.obj, "dns", name, add_dns(ctx.obj.db, name, address, zone=zone, driver=driver, ssh=ssh))


@dns_app.command("check", epilog="Example: k4t dns check dns1")
def dns_check(ctx: typer.Context, names: DnsNames = None) -> None:
    """Connect to DNS servers, check what k4t needs there, and compare answers with what they were told."""
    _check(ctx.obj, "dns", names)


@dns_app.command("install", epilog="Example: k4t dns install dns1")
def dns_install(ctx: typer.Context, names: DnsNames = None) -> None:
    """Make hosts ready to be DNS servers: the registrar, the vendor's configuration, its service."""
    _install(ctx.obj, "dns", names)


def _install(given: Globals, kind: str, names: list[str] | None) -> None:
    from k4t.wiring import chosen, install, opened

    with opened(given.db) as run:
        for thing in chosen(run.tree, kind, names or []):
            for line in install(run, thing):
                given.console.result(f"{thing.name}: {line}")


# --- apps --------------------------------------------------------------------------------------------------


@app_app.command("list", epilog="Example: k4t app list")
def app_list(ctx: typer.Context) -> None:
    """Apps as the tree has them."""
    _list(ctx.obj, "apps")


@app_app.command("remove", epilog="Example: k4t app remove web")
def app_remove(
    ctx: typer.Context,
    name: AppName,
    no_apply: Annotated[bool, typer.Option("--no-apply", help="Only edit the tree.")] = False,
) -> None:
    """Take an app out of the tree, then stop and unpublish it everywhere."""
    from k4t.master.deploy import Request
    from k4t.wiring import remove_app

    given: Globals = ctx.obj
    _agree(given, f"Remove app {name} from the tree{'' if no_apply else ' and from every host'}?")
    given.console.note(remove_app(given.db, name))
    if not no_apply:
        _apply(given, Request((name,), given.allow, frozenset({f"remove-app:{name}"}), message=given.message))


# --- the way in --------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Run one command and leave with its exit status. Every error is one clear line on standard error."""
    words = sys.argv[1:] if argv is None else argv
    plainwords.install()
    status = _run(words or ["--help"])
    gc.freeze()  # or the interpreter's last collections walk through all that was imported: 40 ms
    sys.exit(status)


def _run(words: list[str]) -> int:
    console = Console(color="--no-color" not in words)
    try:
        return int(app(hoisted(words), prog_name="k4t", standalone_mode=False) or 0)
    except InvalidTree as error:
        for finding in error.findings:
            console.note(str(finding))
        console.error(f"the tree is invalid: {len(error.findings)} to mend")
        return error.exit_status
    except K4tError as error:
        console.error(str(error))
        return error.exit_status
    except typer.TyperException as error:
        console.error(f"{error.format_message().rstrip('.')}; see k4t --help")
        return Usage.exit_status
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        return Interrupted.exit_status
    except BrokenPipeError:  # `k4t ps | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "K4T_DEBUG" in os.environ:
            raise
        console.error(f"internal error: {type(error).__name__}: {error}; K4T_DEBUG=1 shows where; please report it")
        return 1


if __name__ == "__main__":
    main()
