"""The master's power and the nodes': off when nothing is open, on again, and going off after an apply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree, group
from k4t.errors import K4tError, Unreachable, Unsafe, Usage

if TYPE_CHECKING:
    from k4t.master.fleet import Host
    from k4t.master.power.turns import Turns
    from k4t.master.run import Run
    from k4t.model.hosts import Dns, Gateway, Node
    from k4t.model.spec import Tree
    from k4t.options import Globals

power_app = group("The master's power: off when nothing is open, on again. The nodes', too.")

BACKUP_WAIT_S = 120.0
Name = Annotated[str | None, typer.Argument(help="A node; without it, the master.", metavar="[NODE]")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Don't wait until SSH answers there.")]
Timeout = Annotated[float, typer.Option("--timeout", help="How long to wait for that, in seconds.", min=1, max=3600)]
Power = Annotated[
    bool | None,
    typer.Option("--power-off/--stay-on", help="Go off when it is done, or not, whatever <power after-apply> says."),
]


@power_app.command("off", epilog="Example: k4t power off --yes")
def power_off(ctx: typer.Context, name: Name = None) -> None:
    """Switch off the machine that <power host=> names, which must be this one, if nothing is open; or a node."""
    given: Globals = ctx.obj
    if name is not None:
        switch_off_node(given, name)
        return
    refuse_elsewhere(given)
    agree(given, "Switch this machine off?")
    from k4t.master.power.off import StaysOn

    try:
        go_off(given, given.message or "k4t power off")
    except StaysOn as stays:
        if given.console.output != "table":
            given.console.data({"version": 1, "off": False, "reasons": list(stays.reasons)})
        raise
    if given.console.output != "table":
        given.console.data({"version": 1, "off": True, "reasons": []})


@power_app.command("on", epilog="Example: k4t power on --timeout 300")
def power_on(ctx: typer.Context, name: Name = None, no_wait: NoWait = False, timeout: Timeout = 120.0) -> None:
    """Run what wakes the master, or a node, and wait until SSH answers there."""
    from k4t.wiring import read

    given: Globals = ctx.obj
    wait_s = 0.0 if no_wait else timeout
    if name is not None:
        switch_on_node(given, name, wait_s=wait_s)
    else:
        _switch_on(given, *_master(read(given.db)), wait_s=wait_s)


def switch_on_node(given: Globals, name: str, *, wait_s: float) -> None:
    """Run its <power on>, unless it is on. Raises Unreachable when SSH does not answer there after `wait_s`."""
    from k4t.wiring import read, thing

    tree = read(given.db)
    _switch_on(given, *_node(thing(tree.nodes, "node", name), tree), wait_s=wait_s)


def _node(node: Node, tree: Tree) -> tuple[Host, str]:
    from k4t.master.fleet import Host, merged

    host = Host(node.name, node.address, merged(tree.cluster.ssh, node.ssh))
    if node.power is None or not node.power.on:
        raise Usage(f"{node.where}: {node.name} has no <power on>, so nothing here can switch it on", "write one")
    return host, node.power.on


def _master(tree: Tree) -> tuple[Host, str]:
    from k4t.master.fleet import Host, merged
    from k4t.model.hosts import Ssh

    power = tree.cluster.power
    if power is None or not (power.host and power.on):
        raise Usage("cluster.xml has no <power host= on=>, so nothing here can wake the master", "write both")
    return Host(power.host, power.host, merged(tree.cluster.ssh, Ssh(host=power.host))), power.on


def _switch_on(given: Globals, host: Host, text: str, *, wait_s: float) -> None:
    import time

    from k4t.master.power import switch
    from k4t.wiring import ssh_silent

    if not ssh_silent(given.db, host):
        _told(
            given, host, f"{host.name} is on already: SSH answers there (k4t wake, there, does what is queued)", on=True
        )
        return
    given.console.note(switch.on(text, host.name))
    if not wait_s:
        _told(given, host, "", on=None)
        return
    began_s = time.monotonic()
    if why := ssh_silent(given.db, host, wait_s):
        raise Unreachable(f"{host.name} was called, and SSH does not answer there after {wait_s:g} s: {why}")
    _told(given, host, f"{host.name} is on: SSH answers there after {time.monotonic() - began_s:.0f} s", on=True)


def _told(given: Globals, host: Host, words: str, *, on: bool | None) -> None:
    """`on`: None where nobody waited for it."""
    if given.console.output != "table":
        given.console.data({"version": 1, "host": host.name, "on": on})
    elif words:
        given.console.result(words)


def switch_off_node(given: Globals, name: str) -> None:
    """Only one that nothing runs on, or that was given up."""
    from k4t.master import leave
    from k4t.wiring import opened, read, thing

    node = thing(read(given.db).nodes, "node", name)
    if node.power is None or not node.power.off:
        raise Usage(f"{node.where}: {name} has no <power off>, so nothing here can switch it off", "write one")
    text = leave.fence_command(node)
    with opened(given.db, wait=given.wait) as run:
        why = _in_use(run, node)
        if why and not {"power-off", f"power-off:{name}"} & given.allow:
            raise Unsafe(
                f"unsafe: {name} is not switched off: {why}", f"if that is meant, add --allow power-off:{name}"
            )
        agree(given, f"Switch node {name} off with `{text}`?")
        run.copy.prepare()
        with run.lock():
            if node.availability == "drained" and not why:
                leave.remember_off(run, node)
            given.console.result(leave.fence(node))


def _in_use(run: Run, node: Node) -> str:
    """Why a node is to stay on; "" for one that may go off."""
    from k4t.master import leave

    fleet = run.fleet
    members: list[Gateway | Dns] = [*run.tree.gateways.values(), *run.tree.dns.values()]
    if beside := [one.name for one in members if fleet.host_of(one).key == fleet.host_of(node).key]:
        return f"{', '.join(beside)} is on the same machine"
    if node.availability == "dead":
        return ""
    if node.availability == "active":
        return f"it is active; k4t node drain {node.name} empties it first"
    try:
        names = leave.containers(run, node, others=True)
    except K4tError as error:
        return error.message
    return f"it still has {', '.join(names[:5])}" if names else ""


# --- this machine ----------------------------------------------------------------------------------------------


def refuse_elsewhere(given: Globals) -> None:
    """Raises K4tError with both names unless this is the machine that may be switched off."""
    from k4t.master.power import here, situation
    from k4t.wiring import read

    power = read(given.db).cluster.power
    host = power.host if power else ""
    if not (host and here.is_here(host)):
        raise K4tError(situation.not_this_machine(host, here.names(host)))


def turns(given: Globals, why: str) -> Turns:
    """Who does what is queued for this working copy."""
    import os
    import socket

    from k4t.master.power.turns import Turns
    from k4t.remote.lock import Holder
    from k4t.wiring import now, who

    return Turns(given.db, Holder(who(), socket.gethostname(), os.getpid(), now(), why, ""))


def go_off(
    given: Globals,
    why: str,
    *,
    copying_wait_s: float = 0.0,
    turn: Turns | None = None,
    going: Callable[[], None] = lambda: None,
) -> None:
    """Switch this machine off if nothing is open; `going` is told just before. `turn`: of doing what is queued, where
    it is held already; who holds it is told of what is found. Raises StaysOn, with all reasons; each is a line of its
    own."""
    from k4t.master.backup import keys
    from k4t.master.power import copies, off
    from k4t.render import power as show
    from k4t.wiring import opened

    def leaves(host: str) -> None:
        given.console.note(f"{host} goes off: it is said where a monitor looks")
        going()

    with opened(given.db, wait=given.wait, ahead=True) as run:
        try:
            off.go_off(
                run, keys.load(run.tree, "intents"), copies=lambda run: copies.outdated(run.directory, run.tree),
                queued=_queued, turns=turn or turns(given, "power off"), has_turn=turn is not None, why=why,
                copying_wait_s=copying_wait_s, say=lambda text: given.console.note(f"! {text}", "yellow"), going=leaves,
            )  # fmt: skip
        except off.StaysOn as stays:
            if stays.queued and turn is not None:
                turn.ask()
            show.stays_on(stays.reasons, given.console)
            raise


def _queued(run: Run) -> tuple[str, ...]:
    from datetime import UTC, datetime

    from k4t.master.power.intake import queued

    return tuple(one.intent.words for one in queued(run, datetime.now(UTC)).found)


def off_after(
    given: Globals,
    status: int,
    wanted: bool | None,
    *,
    copied: bool = False,
    turn: Turns | None = None,
    going: Callable[[], None] = lambda: None,
) -> int:
    """After an apply that ended with `status`: go off where that is wanted and nothing is open; the exit status.
    `copied`: copies were made since. `turn`, `going`: as in `go_off`."""
    from k4t.master.power.off import StaysOn

    if wanted is False or (wanted is None and not goes_off_by_itself(given.db)):
        return status
    if status:
        given.console.note(f"! this machine stays on: the apply ended with exit status {status}", "yellow")
        return status
    if not copied:
        back_up(given, if_outdated=True)
    try:
        go_off(given, given.message or "after apply", copying_wait_s=BACKUP_WAIT_S, turn=turn, going=going)
    except StaysOn:
        return 3 if wanted else 0
    except K4tError as error:
        given.console.error(str(error))
        return 3
    return 0


def back_up(given: Globals, *, if_outdated: bool = False) -> None:
    """To all targets: also what no apply has changed, such as the audit log. What fails keeps this machine on.
    `if_outdated`: unless each of them has the tree as it is."""
    import time

    from k4t.master.backup.after import backup
    from k4t.master.power.copies import outdated
    from k4t.render import backup as show
    from k4t.wiring import opened

    try:
        with opened(given.db) as run:
            if not run.tree.cluster.backups or (if_outdated and not outdated(given.db, run.tree)):
                return
            report = backup(run, now_s=time.time(), wait_s=BACKUP_WAIT_S)
    except K4tError as error:
        given.console.note(f"! no copies were made: {error}", "yellow")
        return
    given.console.result(show.lines(report, given.console))


def goes_off_by_itself(db: Path) -> bool:
    """Whether the tree says that this very machine goes off after an apply."""
    from k4t.master.power import here
    from k4t.wiring import read

    if b"after-apply" not in (db / "cluster.xml").read_bytes():  # most trees: not read again for that
        return False
    power = read(db).cluster.power
    return power is not None and power.after_apply == "off" and here.is_here(power.host)
