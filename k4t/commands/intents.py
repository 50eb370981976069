"""What the master is to do when it is awake: queued here or elsewhere, listed, taken back."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import group
from k4t.errors import NotCertified, Unreachable, Usage
from k4t.options import AppName, NodeName, ReplicaName

if TYPE_CHECKING:
    from k4t.master.backup.keys import Keys
    from k4t.master.fleet import Host
    from k4t.master.power.intents import Intent
    from k4t.master.run import Run
    from k4t.model.spec import Tree
    from k4t.options import Globals

intent_app = group("What the master is to do when it is awake: `k4t wake` does each once.")

To = Annotated[list[str] | None, typer.Option("--to", help="Only on this host (repeatable).", metavar="HOST")]
Here = Annotated[bool, typer.Option("--here", help="In this working copy, for `k4t wake` on this machine.")]
Note = Annotated[str, typer.Option("--note", help="Why, for the audit log.", metavar="TEXT")]


@intent_app.command("apply", epilog="Example: k4t intent apply --note 'git push'")
def intent_apply(ctx: typer.Context, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue an apply of the tree."""
    _queue(ctx.obj, "apply", "", 0, to=to, here=here, note=note)


@intent_app.command("scale", epilog="Example: k4t intent scale web 4")
def intent_scale(
    ctx: typer.Context,
    name: AppName,
    replicas: Annotated[int, typer.Argument(min=0, help="How many.")],
    to: To = None,
    here: Here = False,
    note: Note = "",
) -> None:
    """Queue another number of replicas for an app."""
    _queue(ctx.obj, "scale", name, replicas, to=to, here=here, note=note)


@intent_app.command("drain", epilog="Example: k4t intent drain node1")
def intent_drain(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue the drain of a node."""
    _queue(ctx.obj, "drain", name, 0, to=to, here=here, note=note)


@intent_app.command("uncordon", epilog="Example: k4t intent uncordon node1")
def intent_uncordon(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that a node takes replicas again."""
    _queue(ctx.obj, "uncordon", name, 0, to=to, here=here, note=note)


@intent_app.command("dead", epilog="Example: k4t intent dead node1")
def intent_dead(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that a node is given up: it is switched off by its <power off> first, or it stays."""
    _queue(ctx.obj, "dead", name, 0, to=to, here=here, note=note)


@intent_app.command("restart", epilog="Example: k4t intent restart web 1")
def intent_restart(
    ctx: typer.Context, name: AppName, replica: ReplicaName, to: To = None, here: Here = False, note: Note = ""
) -> None:
    """Queue that one replica of an app is replaced by a new one."""
    _queue(ctx.obj, "restart", name, 0, to=to, here=here, note=note, replica=replica)


@intent_app.command("back", epilog="Example: k4t intent back node1")
def intent_back(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that a node that was given up is cleaned of what it still runs, and takes replicas again."""
    _queue(ctx.obj, "back", name, 0, to=to, here=here, note=note)


@intent_app.command("prune", epilog="Example: k4t intent prune node1")
def intent_prune(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that old images and containers are removed from a node."""
    _queue(ctx.obj, "prune", name, 0, to=to, here=here, note=note)


@intent_app.command("node-on", epilog="Example: k4t intent node-on node3")
def intent_node_on(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that a spare node is switched on, and takes replicas."""
    _queue(ctx.obj, "node-on", name, 0, to=to, here=here, note=note)


@intent_app.command("node-off", epilog="Example: k4t intent node-off node3")
def intent_node_off(ctx: typer.Context, name: NodeName, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that a spare node is drained and switched off."""
    _queue(ctx.obj, "node-off", name, 0, to=to, here=here, note=note)


@intent_app.command("stay", epilog="Example: k4t intent stay && k4t power on")
def intent_stay(ctx: typer.Context, to: To = None, here: Here = False, note: Note = "") -> None:
    """Queue that the master stays on after the next wake, for a person who wants to work there."""
    _queue(ctx.obj, "stay", "", 0, to=to, here=here, note=note)


@intent_app.command("list", epilog="Example: k4t intent list -o json")
def intent_list(ctx: typer.Context) -> None:
    """What is queued, on hosts and here, and what became of what was."""
    from k4t.master.power.intake import queued
    from k4t.master.power.memory import Memory
    from k4t.render import power as show
    from k4t.wiring import opened

    given: Globals = ctx.obj
    with opened(given.db) as run:
        found = queued(run, _now(run))
    show.queue(found, Memory(given.db).entries(), given.console)


@intent_app.command("remove", epilog="Example: k4t intent remove 3f9c51d07be2a604")
def intent_remove(ctx: typer.Context, id: Annotated[str, typer.Argument(help="Its id.", metavar="ID")]) -> None:
    """Take back what is queued, from wherever it lies."""
    from k4t.master.power import intents, queue
    from k4t.master.power.intake import trust
    from k4t.master.power.places import places
    from k4t.wiring import opened

    given: Globals = ctx.obj
    if not intents.ID.fullmatch(id):
        raise Usage(f"{id} is no id of an intent", "k4t intent list shows them")
    with opened(given.db) as run:
        found = queue.look(run.fleet, places(run.fleet), given.db, trust(run), _now(run))
        if id not in {name for files in found.raw.values() for name in files}:
            raise Usage(f"no intent {id} is queued where k4t can look", "k4t intent list shows what is")
        failed = queue.remove(run.fleet, places(run.fleet), given.db, [id])
    for failure in (*found.away, *failed):
        given.console.note(f"! {failure.name} may still have it: {failure.error.message}", "yellow")
    given.console.result(f"removed intent {id}")


# --- queueing --------------------------------------------------------------------------------------------------


def _queue(
    given: Globals,
    action: str,
    name: str,
    replicas: int,
    *,
    to: list[str] | None,
    here: bool,
    note: str,
    replica: str = "",
) -> None:
    from k4t.master.power import intents, queue
    from k4t.tree import changes
    from k4t.wiring import opened, thing

    with opened(given.db) as run:
        of_app = "app" in intents.ACTIONS[action]
        if name:
            thing(run.tree.apps if of_app else run.tree.nodes, "app" if of_app else "node", name)
        if action == "scale":
            changes.check_count(run.tree.apps[name], replicas)
        intent = intents.made(
            action, id=new_id(), cluster=run.tree.cluster.id, who=run.who, at=_now(run), name=name,
            replicas=replicas, replica=replica, note=note or given.message,
        )  # fmt: skip
        if here:
            queue.put_here(given.db, intent, intents.encode(intent, None))
            _told(given, intent, "in this working copy", [queue.HERE])
            return
        hosts = _chosen(run, to or [])
        done, failed = queue.put(run.fleet, hosts, intent, intents.encode(intent, _keys(run.tree)))
        for failure in failed:
            given.console.note(f"! not on {failure.name}: {failure.error.message}", "yellow")
        if not done:
            raise Unreachable("no host took it: nothing is queued", "try again, or --here on the master")
        _told(given, intent, f"on {', '.join(done)}", done)


def _told(given: Globals, intent: Intent, where: str, places: list[str]) -> None:
    if given.console.output == "table":
        given.console.result(f"queued intent {intent.id} ({intent.words}) {where}")
    else:
        given.console.data({"version": 1, "id": intent.id, "on": places, "expires": intent.expires})


def new_id() -> str:
    """Sorted by when it was made, to the millisecond: what one machine queues is done in that order."""
    import secrets  # late: every command would wait for it

    return f"{time.time_ns() // 1_000_000:011x}{secrets.randbelow(16**5):05x}"


def _chosen(run: Run, names: list[str]) -> list[Host]:
    from k4t.master.power.places import places

    found = {host.name: host for host in places(run.fleet)}
    if unknown := [name for name in names if name not in found]:
        raise Usage(
            f"intents don't lie on {', '.join(unknown)}",
            f"the master looks on gateways, DNS servers and backup targets: {', '.join(found) or 'there are none'}",
        )
    hosts = [found[name] for name in names] if names else list(found.values())
    if not hosts:
        raise Usage(
            "the tree has no gateway, DNS server or backup target that could hold an intent", "--here, on the master"
        )
    return hosts


def _keys(tree: Tree) -> Keys:
    from k4t.master.backup import keys

    found = keys.load(tree, "intents")
    if found is None:
        raise NotCertified(
            "this machine may queue nothing for the master: its key is not certified for intents",
            "k4t kit certify --kit FILE --uses intents, with the cluster's recovery kit; on the master: --here",
        )
    return found


def _now(run: Run) -> datetime:
    return datetime.fromisoformat(run.at).astimezone(UTC)
