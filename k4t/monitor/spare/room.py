"""What fits on which nodes: asked of the planner's own board, with nodes added and taken away. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from k4t.master.planning.capacity import Demand, demand, host_of, pin_of
from k4t.master.planning.dependencies import in_order
from k4t.master.planning.placement import Board, Picker, closed, forbids
from k4t.master.planning.plan import ResolvedImage
from k4t.master.planning.survey import Survey, survey
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Facts, NodeState, Observed
from k4t.model.value import value

ANY = ResolvedImage("", "")
"""For which architecture an image is, the monitor does not know; an app that needs one says so (`<require>`)."""


@value
class Short:
    """A replica that has no place, and why."""

    app: str
    replica: str
    reasons: tuple[str, ...]


@value
class Room:
    """`short`: replicas without a place. `share`: of CPU or memory, whichever is scarcer, reserved on the nodes that
    take replicas, once all are placed; 0 where no node says what it has."""

    short: tuple[Short, ...]
    share: float


def room(tree: Tree, observed: Observed, desired: Mapping[str, tuple[str, ...]]) -> Room:
    """`desired`: by app the replicas it should have. One counts as placed where it has a container on a node that may
    keep it."""
    seen = survey(tree, observed)
    board = Board(tree, observed, seen)
    totals = _totals(tree, observed, seen)
    short = [one for name in in_order(tree, desired) for one in _unplaced(board, seen, tree.apps[name], desired[name])]
    return Room(tuple(short), _share(board, totals))


def with_node(tree: Tree, observed: Observed, name: str, facts: Facts) -> tuple[Tree, Observed]:
    """As if it took replicas, and were empty. Of what is not known (it never was on), there is enough."""
    state = observed.nodes.get(name)
    if state is None or not state.reachable:
        state = NodeState(name, True, facts=facts)
    return _with(tree, name, "active"), dataclasses.replace(observed, nodes={**observed.nodes, name: state})


def without_node(tree: Tree, observed: Observed, name: str) -> tuple[Tree, Observed]:
    """As if it were drained and empty."""
    state = dataclasses.replace(observed.nodes[name], containers=())
    return _with(tree, name, "drained"), dataclasses.replace(observed, nodes={**observed.nodes, name: state})


def bound(tree: Tree, state: NodeState, desired: Mapping[str, tuple[str, ...]]) -> str:
    """Why what a node runs can't simply go elsewhere; "" when it can. What runs once on each node goes with it."""
    others = [one.name for one in state.strangers if one.cluster]
    if others:
        return f"{others[0]}, of another cluster, runs there"
    for one in state.containers:
        app = tree.apps.get(one.app)
        if app is None or one.replica not in desired.get(one.app, ()):
            return f"{one.name} is about to go"
        if any(volume.binds_to_node for volume in app.volumes):
            return f"{one.name} has its data there"
        pin = pin_of(app, one.replica)
        if not app.per_node and pin is not None and pin.node == state.name:
            return f"{one.name} is pinned to it"
    return ""


def _with(tree: Tree, name: str, availability: str) -> Tree:
    node = dataclasses.replace(tree.nodes[name], availability=availability)  # type: ignore[arg-type]
    return dataclasses.replace(tree, nodes={**tree.nodes, name: node})


def _unplaced(board: Board, seen: Survey, app: App, desired: tuple[str, ...]) -> Iterator[Short]:
    """Takes the places it finds. Another node is no help where data bind a replica to the one that has them."""
    replicas = seen.replicas(app.name)
    stays = {replica for replica, found in replicas.items() if any(_keeps(board, one.node) for one in found)}
    missing = [replica for replica in desired if replica not in stays]
    if not missing or (any(volume.binds_to_node for volume in app.volumes) and not seen.never_applied(app.name)):
        return
    picker = Picker(board, app, ANY)
    try:
        for replica in missing:
            wanted = demand(app, replica)
            if app.per_node:
                _take(board, picker, app, replica, wanted)
            elif not _placed(board, picker, app, replica, wanted):
                yield Short(app.name, replica, picker.reasons(wanted))
    finally:
        picker.close()


def _keeps(board: Board, name: str) -> bool:
    return name in board.hosts and board.hosts[name].node.availability in ("active", "cordoned")


def _placed(board: Board, picker: Picker, app: App, replica: str, wanted: Demand) -> bool:
    pin = pin_of(app, replica)
    if pin is not None and pin.node:
        return _take(board, picker, app, pin.node, wanted)
    host = picker.pick(wanted)
    if host is None:
        return False
    picker.take(host, wanted, f"{app.name}.{replica}")
    return True


def _take(board: Board, picker: Picker, app: App, name: str, wanted: Demand) -> bool:
    host = board.hosts.get(name)
    if host is None or closed(host) or forbids(app, ANY, host) or picker.lacks(host, wanted):
        return False
    picker.take(host, wanted, app.name)
    return True


# --- shares ----------------------------------------------------------------------------------------------------------


def _totals(tree: Tree, observed: Observed, seen: Survey) -> dict[str, tuple[float, float]]:
    """CPUs and bytes of memory of each node that takes replicas, as the planner counts them; 0: not known."""
    hosts = [host_of(node, observed, seen, frozenset()) for node in tree.nodes.values()]
    return {host.name: (host.cpus or 0.0, float(host.memory_bytes or 0)) for host in hosts if not closed(host)}


def _share(board: Board, totals: Mapping[str, tuple[float, float]]) -> float:
    cpus = memory = left_cpus = left_memory = 0.0
    for name, (has_cpus, has_memory) in totals.items():
        host = board.hosts[name]
        if has_cpus and host.cpus is not None:
            cpus, left_cpus = cpus + has_cpus, left_cpus + host.cpus
        if has_memory and host.memory_bytes is not None:
            memory, left_memory = memory + has_memory, left_memory + host.memory_bytes
    shares = [1.0 - left / has for has, left in ((cpus, left_cpus), (memory, left_memory)) if has > 0]
    return max([0.0, *shares])
