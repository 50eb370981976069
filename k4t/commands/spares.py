"""Spare nodes (`<power spare="true">`): on when they are needed, drained and off when they are not. No other node is
switched by this, so that nobody's repair is disturbed, and whoever may queue for the master can switch no more than
these."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from k4t.commands import nodes
from k4t.commands import power as power_commands
from k4t.commands.common import applied, undone_unless_begun
from k4t.errors import K4tError, Unreachable, Unsafe

if TYPE_CHECKING:
    from k4t.master.planning.plan import Plan
    from k4t.model.hosts import Node
    from k4t.model.spec import Tree
    from k4t.options import Globals

BOOT_S = 300.0
PAUSE_S = 1.0


def switch_on(given: Globals, name: str) -> None:
    """Run its <power on>, wait until SSH and Docker answer, and let it take replicas. Leaves with the exit status."""
    from k4t.wiring import read

    node = _spare(read(given.db), name)
    deadline = time.monotonic() + BOOT_S
    power_commands.switch_on_node(given, name, wait_s=BOOT_S)
    _wait_for_docker(given, node, deadline)
    if node.availability == "active":
        from k4t.master.decide import Request

        raise typer.Exit(applied(given, Request(message=given.message, node=name)).exit_status)
    nodes.uncordon(given, name)


def switch_off(given: Globals, name: str) -> None:
    """Drain it and run its <power off>; it stays drained. Where what it runs has no other place, it stays as it is.
    Leaves with the exit status where that is not 0."""
    from k4t.master.power import spare
    from k4t.wiring import read

    tree = read(given.db)
    node = _spare(tree, name)
    if why := spare.needed(tree, name):
        raise Unsafe(f"unsafe: {name} is not switched off: {why}", f"k4t power off {name}, if that is meant")
    if node.availability in ("active", "cordoned"):
        _drain(given, node)
    power_commands.switch_off_node(given, name)


def _drain(given: Globals, node: Node) -> None:
    edit, request = nodes.edited(given, node, "drained")
    begun: list[Plan] = []

    def check(plan: Plan) -> None:
        _refuse_what_stays(node, plan)
        begun.append(plan)

    with undone_unless_begun(given, edit, lambda: bool(begun)):
        outcome = applied(given, request, check=check, goes_on=True)
    edit.close()
    if outcome.exit_status:
        raise typer.Exit(outcome.exit_status)


def _refuse_what_stays(node: Node, plan: Plan) -> None:
    """Raises Unsafe when it would not become empty: then it is better active."""
    left = [f"{one.app}.{one.replica} fits nowhere: {'; '.join(one.reasons)}" for one in plan.unschedulable]
    left += [change.detail for change in plan.unsafe] + [*plan.refused, *plan.not_done]
    if left:
        raise Unsafe(f"unsafe: {node.name} would not become empty: {left[0]}", "it stays as it is")


def _spare(tree: Tree, name: str) -> Node:
    from k4t.wiring import thing

    node = thing(tree.nodes, "node", name)
    if node.power is None or not node.power.spare:
        raise K4tError(
            f"{node.where}: {name} is no spare node, and is not switched on or off by itself",
            f'write <power spare="true"/>; or k4t power on {name}, k4t power off {name}',
        )
    return node


def _wait_for_docker(given: Globals, node: Node, deadline: float) -> None:
    """Raises Unreachable. sshd is often there before Docker is."""
    from k4t.master.observe import observe_node
    from k4t.wiring import opened

    while True:
        with opened(given.db) as run:
            state = observe_node(run.fleet, node)
        if state.reachable:
            return
        if time.monotonic() >= deadline:
            raise Unreachable(
                f"{node.name} is on, and can't be asked what it runs after {BOOT_S:g} s: {state.problem}",
                f"it takes no replicas; k4t node check {node.name}",
            )
        time.sleep(PAUSE_S)
