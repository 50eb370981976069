"""The cluster's containers, for `k4t ps`."""

from __future__ import annotations

from k4t.master.fleet import Fleet, at_once
from k4t.master.observe import observe_node
from k4t.master.planning.survey import replica_key
from k4t.model.hosts import Node
from k4t.model.state import Container, NodeState


def containers(fleet: Fleet, apps: frozenset[str]) -> list[Container | str]:
    """By node and name; a sentence in place of the containers of a node that can't be asked."""
    rows: list[Container | str] = []

    def look(node: Node) -> NodeState:
        return observe_node(fleet, node)

    for state in at_once(look, fleet.tree.nodes.values()):
        if not state.reachable:
            rows.append(f"{state.name} is unreachable: {state.problem}")
        mine: list[Container] = [one for one in state.containers if not apps or one.app in apps]
        ordered = sorted(mine, key=lambda one: (one.app, replica_key(one.replica), one.generation))
        rows.extend(ordered)
    return rows
