"""Nodes that leave the cluster and come back: cordon, drain, dead, uncordon, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree, applied, run_change, undone_unless_begun
from k4t.commands.hosts import node_app
from k4t.errors import K4tError
from k4t.options import Globals, NoApply, NodeName

__all__ = ["node_app"]

if TYPE_CHECKING:
    from k4t.master.decide import Request
    from k4t.model.hosts import Availability, Node
    from k4t.tree.changes import Edit


@node_app.command("cordon", epilog="Example: k4t node cordon node1")
def node_cordon(ctx: typer.Context, name: NodeName, no_apply: NoApply = False) -> None:
    """Give a node nothing new; what it runs stays."""
    _set(ctx.obj, _node(ctx.obj, name), "cordoned", no_apply=no_apply)


@node_app.command("drain", epilog="Example: k4t node drain node1")
def node_drain(ctx: typer.Context, name: NodeName, no_apply: NoApply = False) -> None:
    """Move everything off a node: the new replica serves before the old one goes."""
    drain(ctx.obj, name, no_apply=no_apply)


def drain(given: Globals, name: str, *, no_apply: bool = False) -> None:
    """`k4t node drain`, whoever asks for it; leaves with the exit status. So do `uncordon` and `give_up`."""
    _set(given, _node(given, name), "drained", no_apply=no_apply)


@node_app.command("uncordon", epilog="Example: k4t node uncordon node1")
def node_uncordon(ctx: typer.Context, name: NodeName, no_apply: NoApply = False) -> None:
    """Let a node take replicas again. What a dead one still runs is stopped first."""
    uncordon(ctx.obj, name, no_apply=no_apply)


def uncordon(given: Globals, name: str, *, no_apply: bool = False) -> None:
    node = _node(given, name)
    if node.availability == "dead" and not no_apply:
        _clean_return(given, node)
    _set(given, node, "active", no_apply=no_apply)


def back(given: Globals, name: str) -> None:
    """A node that was given up and answers again: what it still runs goes first, since it was replaced; then it takes
    replicas. One that a person has drained or cordoned since stays as it is. Leaves with the exit status."""
    node = _node(given, name)
    if node.availability == "active":
        given.console.note(f"{name} is active already")
        return
    if node.availability != "dead":
        raise K4tError(f"{name} is {node.availability}, and stays so", f"k4t node uncordon {name}, if it is well")
    uncordon(given, name)


@node_app.command("dead", epilog="Example: k4t node dead node1 --fence")
def node_dead(
    ctx: typer.Context,
    name: NodeName,
    fence: Annotated[bool, typer.Option("--fence", help="Switch it off first, with its <power off>.")] = False,
) -> None:
    """Give a node up: withdraw its endpoints, run its replicas elsewhere."""
    give_up(ctx.obj, name, fence=fence)


def give_up(given: Globals, name: str, *, fence: bool) -> None:
    from k4t.master import leave

    node = _node(given, name)
    if not fence:
        leave.refuse_unfenced(node, given.allow)
        _set(given, node, "dead")
        return
    power_off = leave.fence_command(node)
    edit, request = edited(given, node, "dead", fenced=True)
    with undone_unless_begun(given, edit, lambda: False):
        _refuse_before_fence(given, node, request)
        agree(given, f"Switch node {name} off with `{power_off}`, and give it up?")
        given.console.note(leave.fence(node))
    run_change(given, edit, request)


@node_app.command("remove", epilog="Example: k4t node remove node1")
def node_remove(ctx: typer.Context, name: NodeName) -> None:
    """Take a drained, empty node out of the tree, and what k4t keeps off its disk."""
    from k4t.master import leave
    from k4t.wiring import opened

    given: Globals = ctx.obj
    node = _node(given, name)
    with opened(given.db, wait=given.wait) as run:
        leave.refuse_if_needed(run, node, given.allow)
        agree(given, f"Remove node {name} from the tree?")
        given.console.result(leave.remove(run, node, given.allow, message=given.message))


def _node(given: Globals, name: str) -> Node:
    from k4t.wiring import read, thing

    return thing(read(given.db).nodes, "node", name)


def _refuse_before_fence(given: Globals, node: Node, request: Request) -> None:
    """What an apply would refuse is said while the node is still on."""
    from k4t.wiring import opened

    with opened(given.db, ahead=True) as run:
        from k4t.master import decide, leave

        leave.refuse_plan(node, decide.plan(run, request).plan)


def _set(given: Globals, node: Node, availability: Availability, *, no_apply: bool = False) -> None:
    """Edit the node, then plan and apply the apps that have, or could get, something there."""
    edit, request = edited(given, node, availability)
    run_change(given, edit, request, no_apply=no_apply)


def edited(given: Globals, node: Node, availability: Availability, *, fenced: bool = False) -> tuple[Edit, Request]:
    """The tree with another availability of one node, and what is then to be applied."""
    from k4t.master.decide import Request
    from k4t.tree import changes

    edit = changes.Edit(given.db)
    changes.availability(edit, node, availability)
    off = frozenset([node.name] if fenced else [])
    return edit, Request(allow=given.allow, message=given.message, node=node.name, fenced=off)


def _clean_return(given: Globals, node: Node) -> None:
    """What a node still runs from before it was given up has been replaced: it is stopped while the node counts as
    dead. Raises Unreachable when it can't be asked; leaves with the exit status when something is left."""
    from k4t.master import leave
    from k4t.master.decide import Request
    from k4t.wiring import opened

    with opened(given.db) as run:
        running = leave.containers(run, node)
    if running:
        given.console.note(f"{node.name} still has {', '.join(running)}: that goes first")
        outcome = applied(given, Request(allow=given.allow, message=given.message, node=node.name), goes_on=True)
        if outcome.exit_status:
            raise typer.Exit(outcome.exit_status)
