"""Nodes that leave and come back: which apps it is about, which of them are off for sure, what a returned one runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from k4t.master.planning.endpoints import by_app
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Dead, Head, Observed


def concerned(tree: Tree, observed: Observed, node: str) -> tuple[str, ...]:
    """Apps of the tree that have something on a node (running, or published from there), or could get something: one
    on each node, or fewer replicas than they should have."""
    here = {one.app for one in observed.nodes[node].containers} if node in observed.nodes else set()
    for member in (*observed.gateways.values(), *observed.dns.values()):
        endpoints = by_app(member.document).values() if member.document else ()
        here |= {endpoint.app for found in endpoints for endpoint in found if endpoint.node == node}
    return tuple(sorted(name for name, app in tree.apps.items() if name in here or _could_get(app, observed)))


def _could_get(app: App, observed: Observed) -> bool:
    if app.stopped:
        return False
    seen = {one.replica for state in observed.nodes.values() for one in state.containers if one.app == app.name}
    return app.replicas is None or len(seen) < app.replicas


def off(tree: Tree, observed: Observed, head: Head | None) -> frozenset[str]:
    """Dead nodes that were switched off when they were given up, and have not been heard of since."""
    known = head.dead if head else {}
    return frozenset(
        name
        for name, dead in known.items()
        if dead.fenced and _is_dead(tree, name) and not (name in observed.nodes and observed.nodes[name].reachable)
    )


def asleep(tree: Tree, observed: Observed, head: Head | None) -> frozenset[str]:
    """Drained nodes that were switched off when they were empty, and have not been heard of since: nothing is there,
    as surely as if they were asked. The head has them with the dead ones that are off."""
    return frozenset(
        name
        for name, dead in (head.dead if head else {}).items()
        if dead.fenced
        and name in tree.nodes
        and tree.nodes[name].availability == "drained"
        and not (name in observed.nodes and observed.nodes[name].reachable)
    )


def not_yet_back(tree: Tree, observed: Observed, head: Head | None) -> tuple[Tree, tuple[str, ...]]:
    """A node that was dead and still runs what it ran then stays dead for one more plan, which stops that: so nothing
    is published from it before. Answers the tree to plan with, and sentences about it."""
    back = {
        name: old
        for name, dead in (head.dead if head else {}).items()
        if name in tree.nodes and not _is_dead(tree, name) and (old := _left_over(observed, name, dead))
    }
    if not back:
        return tree, ()
    nodes = {
        name: dataclasses.replace(node, availability="dead") if name in back else node
        for name, node in tree.nodes.items()
    }
    sentences = tuple(
        f"{name} was dead and still has {', '.join(old[:5])}: that goes first, the next apply uses the node"
        for name, old in sorted(back.items())
    )
    return dataclasses.replace(tree, nodes=nodes), sentences


def dead_nodes(tree: Tree, observed: Observed, head: Head | None, *, fenced: Collection[str]) -> Mapping[str, Dead]:
    """What the next head knows of dead nodes. One that is alive again is forgotten once it is seen to be clean."""
    before, serial = (head.dead, head.serial + 1) if head else ({}, 1)
    now: dict[str, Dead] = {}
    for name in tree.nodes:
        old = before.get(name)
        if _is_dead(tree, name):
            now[name] = Dead(serial, fenced=True) if name in fenced else old or Dead(serial)
        elif old is not None and (not observed.nodes[name].reachable or _left_over(observed, name, old)):
            now[name] = old
    return now


def _is_dead(tree: Tree, name: str) -> bool:
    return name in tree.nodes and tree.nodes[name].availability == "dead"


def _left_over(observed: Observed, name: str, dead: Dead) -> list[str]:
    """Containers of before, as they are called."""
    state = observed.nodes.get(name)
    return sorted(one.name for one in state.containers if one.revision <= dead.serial) if state else []
