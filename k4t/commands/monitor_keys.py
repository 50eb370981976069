"""The monitor's own key: made on its machine, let in by the master, for withdrawals and to rouse the master alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree
from k4t.commands.monitor import monitor_app
from k4t.errors import K4tError, Partial, StepError, Usage, gravest
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.fleet import Host
    from k4t.master.power.places import Failure
    from k4t.master.run import Run
    from k4t.model.hosts import Dns, Gateway
    from k4t.monitor.acting.allowed import Tried

MAX_BYTES = 16 * 1024
KeyFile = Annotated[
    str, typer.Argument(help="What `k4t monitor key` printed; - for standard input.", metavar="[KEY.pub]")
]


@monitor_app.command(epilog="Example: k4t monitor key > monitor.pub")
def key(
    ctx: typer.Context,
    cluster: Annotated[str, typer.Option("--cluster", help="Without a tree: of this one.", metavar="ID")] = "",
    check: Annotated[bool, typer.Option("--check", help="Try what it may do, everywhere; changes nothing.")] = False,
) -> None:
    """Print the public key of this machine's monitor, which `k4t monitor authorize` takes on the master. It is made the
    first time."""
    from k4t.monitor.acting import keys
    from k4t.wiring import read

    given: Globals = ctx.obj
    if check:
        _check(given)
        return
    cluster_id = cluster or read(given.db).cluster.id
    line, made = keys.ensure(cluster_id)
    if made:
        given.console.note(f"made {keys.directory(cluster_id) / keys.NAME}")
    if given.console.output == "table":
        given.console.result(line)
    else:
        given.console.data({"version": 1, "cluster": cluster_id, "key": line, "made": made})


def _check(given: Globals) -> None:
    """The exit status says the gravest of what was wrong: 77 where it is not let in, 69 where nobody answered."""
    from k4t.monitor.acting.allowed import tried
    from k4t.wiring import read, watched

    with watched(read(given.db), given.db) as fleet:
        found = tried(fleet)
    if given.console.output == "table":
        given.console.result([f"{'no ' if one.problem else 'yes'}  {one.what}{_why(one)}" for one in found])
    else:
        rows = [{"what": one.what, "may": not one.problem, "problem": one.problem} for one in found]
        given.console.data({"version": 1, "tried": rows})
    raise typer.Exit(gravest(one.status for one in found))


def _why(one: Tried) -> str:
    return f": {one.problem}" if one.problem else ""


@monitor_app.command(epilog="Example: k4t monitor authorize monitor.pub")
def authorize(
    ctx: typer.Context,
    key: KeyFile = "",
    remove: Annotated[bool, typer.Option("--remove", help="No key any more, whichever it is.")] = False,
) -> None:
    """Let a monitor's key withdraw endpoints at every gateway and DNS server, give them back, and, where this is the
    machine that <power host=> names, see how it is and run `k4t wake` here. It can do nothing else. A key before it is
    let in no more."""
    from k4t.remote import restricted
    from k4t.wiring import opened

    given: Globals = ctx.obj
    if remove == bool(key):
        raise Usage("give a key, or --remove", "k4t monitor key, on the monitoring machine, prints it")
    public = restricted.public_key(_text(key)) if key else ""
    with opened(given.db) as run:
        hosts = _hosts(run)
        if not hosts and not _is_master(run):
            raise Usage("there is no gateway and no DNS server with a shell in the tree, and this is not the master")
        _agreed(given, run, hosts, public)
        run.copy.prepare()
        done, failed = _members(run, hosts, public)
        done += _here(given, run, public, failed)
        result = f"{len(done)} done" + (f", not {', '.join(failure.name for failure in failed)}" if failed else "")
        what = restricted.fingerprint(public) if public else "none"
        run.copy.audit({"at": run.at, "who": run.who, "message": f"monitor authorize: {what}", "result": result})
    _told(given, done, failed)


def _text(path: str) -> str:
    """Raises Usage."""
    try:
        if path == "-":
            return sys.stdin.read(MAX_BYTES)
        with Path(path).open(encoding="utf-8") as file:
            return file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        raise Usage(f"can't read {path}: {getattr(error, 'strerror', None) or 'it is no text'}") from None


def _hosts(run: Run) -> list[Host]:
    """Every machine with a registrar, once."""
    from k4t.master.fleet import WITHOUT_SHELL

    tree = run.tree
    members: list[Gateway | Dns] = [*tree.gateways.values()]
    members += [one for one in tree.dns.values() if one.driver not in WITHOUT_SHELL]
    found = [run.fleet.host_of(one) for one in members]
    return list({host.key: host for host in found}.values())


def _is_master(run: Run) -> bool:
    """This machine may be roused: it is the one that the tree names."""
    from k4t.master.power import here

    power = run.tree.cluster.power
    return power is not None and bool(power.host) and here.is_here(power.host)


def _agreed(given: Globals, run: Run, hosts: list[Host], public: str) -> None:
    from k4t.remote import restricted

    names = ", ".join([*(host.name for host in hosts), *(["this machine"] if _is_master(run) else [])])
    if public:
        agree(given, f"Let {restricted.fingerprint(public)} withdraw endpoints, or wake the master, on {names}?")
    else:
        agree(given, f"Let no monitor's key in any more on {names}?")


def _members(run: Run, hosts: list[Host], public: str) -> tuple[list[tuple[str, str]], list[Failure]]:
    from k4t.master.power.places import everywhere
    from k4t.remote import restricted
    from k4t.remote.setup import COMMAND
    from k4t.remote.transport import Transport

    cluster_id, sudo = run.tree.cluster.id, {host.name: bool(host.ssh.sudo) for host in hosts}

    def write(transport: Transport) -> str:
        line = public and restricted.forced_line(
            public, cluster_id, restricted.registrar_argv(cluster_id), sudo=sudo[transport.host]
        )
        return restricted.authorize(transport, cluster_id, line, needed=COMMAND)

    done, failed = everywhere(run.fleet, hosts, write)
    return list(done.items()), failed


def _here(given: Globals, run: Run, public: str, failed: list[Failure]) -> list[tuple[str, str]]:
    """The line that lets the key rouse this machine."""
    from k4t import command
    from k4t.master.power import detached
    from k4t.master.power.places import Failure
    from k4t.remote import restricted

    tree = run.tree
    power = tree.cluster.power
    if not _is_master(run):
        name = power.host if power and power.host else ""
        given.console.note(
            f"{name} can't be roused by it yet: run this there, too" if name else "cluster.xml names no <power host=>"
        )
        return []
    try:
        line = public and restricted.forced_line(
            public, tree.cluster.id, detached.argv(given.db.absolute(), tree.cluster.id)
        )
        argv = restricted.editing(tree.cluster.id, line, user=_login(run, line))
        environ = {name: text for name, text in os.environ.items() if name != "SUDO_USER"}
        said = restricted.told(command.run([sys.executable, *argv[1:]], env=environ), "")
    except K4tError as error:
        failed.append(Failure("this machine", error))
        return []
    return [("this machine", said)]


def _login(run: Run, line: str) -> str:
    """Who the monitor logs in as here: as everywhere, who <ssh user=> names. Raises StepError with the line where that
    is somebody else than who runs this, and so whose tree and keys these are."""
    import pwd

    mine = pwd.getpwuid(os.geteuid()).pw_name
    login = run.tree.cluster.ssh.user or mine
    if login != mine and line:
        raise StepError(
            f"the monitor logs in here as {login}, by <ssh user=>, and k4t runs here as {mine}",
            f"run k4t here as {login}, or have ~{login}/.ssh/authorized_keys hold a line by hand: {line}",
        )
    return login


def _told(given: Globals, done: list[tuple[str, str]], failed: list[Failure]) -> None:
    for failure in failed:
        given.console.note(f"! {failure.name}: {failure.error.words}", "yellow")
    if given.console.output == "table":
        given.console.result([f"{name}: {words}" for name, words in done])
    else:
        rows = [{"host": name, "result": words} for name, words in done]
        given.console.data({"version": 1, "done": rows, "failed": [failure.name for failure in failed]})
    if failed and done:
        names = ", ".join(failure.name for failure in failed)
        raise Partial(f"not done on {names}", "when it can be reached, run this again")
    if failed:
        raise failed[0].error
